"""What a pool says: families of models, their supervised counterparts, and controls."""

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .ids import located

Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Ge(1)]
# strict: an array is no tuple; its items stay strict
Listed = Field(strict=False)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Cka(_Table):
    """How a finetuned model is compared with its zero-shot model, layer by layer.

    Attributes:
        layers: Patterns of the names of layers.
        sample: How many images of each dataset are compared; at least 4.
        batch_size: How many at a time, where a layer is too wide to stream; at least 4.
    """

    layers: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
    sample: Annotated[int, Ge(4)] = 2000
    batch_size: Annotated[int, Ge(4)] = 64


class Overrides(_Table):
    """What a pool changes in the paper's recipe; None leaves it as it is.

    Attributes:
        epochs: How often the training images are seen.
        batch_size: How many images a step learns from.
        learning_rate: Its peak.
        weight_decay: AdamW's.
        warmup: Over how many steps the learning rate rises.
        milestones: After which epochs it falls to a tenth.
        label_smoothing: The share of a label that is spread over all classes.
        seed: Of the order of images, of their views, and of new weights.
        micro_batch: How many images are on a device at a time; gradients are summed up to
            the batch.
        precision: What products run in.
    """

    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Annotated[float, Gt(0)] | None = None
    weight_decay: Annotated[float, Ge(0)] | None = None
    warmup: Annotated[int, Ge(0)] | None = None
    milestones: Annotated[tuple[Count, ...] | None, Listed] = None
    label_smoothing: Annotated[float, Ge(0), Lt(1)] | None = None
    seed: Annotated[int, Ge(0)] | None = None
    micro_batch: Count | None = None
    precision: Literal["float32", "bfloat16", "float16"] | None = None

    def given(self) -> dict[str, Any]:
        """Those that the pool sets.

        Returns:
            Their values by name.

        Example:
            >>> Overrides(epochs=1).given()
            {'epochs': 1}
        """
        return self.model_dump(exclude_none=True)


class Family(_Table):
    """A zero-shot model and what is finetuned from it: one row of the paper's tables.

    Attributes:
        backbone: As tables show it.
        pretraining: As tables show it.
        group: In which figures it stands: ``main`` (the paper's OpenAI), ``large`` (its
            LAION and DataComp) or ``small`` (its YFCC-15M and CC-12M).
        zero_shot: The id of its zero-shot model.
        finetuned: The id of its finetuned model; None where the study finetunes it.
    """

    backbone: Text
    pretraining: Text
    group: Literal["main", "large", "small"]
    zero_shot: Text
    finetuned: Text | None = None


class Supervised(_Table):
    """A backbone trained on labels alone.

    Attributes:
        backbone: That of a family.
        train: The architecture that the study trains from scratch; or
        model: the id of a model that is trained already.
    """

    backbone: Text
    train: Text | None = None
    model: Text | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> "Supervised":
        if (self.train is None) == (self.model is None):
            raise ValueError("give either train or model")
        return self


class Control(_Table):
    """A model that tells apart what a claim is about.

    Attributes:
        kind: ``no-clip``: pretrained on images without captions (the paper's NoCLIP);
            ``captioned-id``: contrastively pretrained on captions of the in-distribution
            images alone, language without diversity; ``untrained``: random weights.
        backbone: As tables show it.
        pretraining: As tables show it.
        model: Its id; None leaves the place vacant.
        finetune: Whether the study finetunes it on labels first.
        note: What a reader must know; of a vacant place, what may take it.
    """

    kind: Literal["no-clip", "captioned-id", "untrained"]
    backbone: Text
    pretraining: str = ""
    model: Text | None = None
    finetune: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _is_explained(self) -> "Control":
        if self.model is None and not self.note:
            raise ValueError("give model, or leave it vacant with a note of what fits")
        return self


class Pool(_Table):
    """Models that are studied together.

    Attributes:
        name: What commands call it.
        title: What its report is called.
        alphas: Where between its zero-shot (0) and its finetuned model (1) each family is
            interpolated; the ends are not among them.
        cka: How layers are compared; None where they are not.
        finetune: Changes to the recipe of finetuning.
        train: Changes to that of training from scratch.
        families: In the order of the tables.
        supervised: At most one for each backbone.
        controls: Vacant ones included.
        base: The folder that relative paths start from; it is no part of a pool's file.
    """

    name: Text
    title: str = ""
    alphas: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], Listed] = ()
    cka: Cka | None = None
    finetune: Overrides = Overrides()
    train: Overrides = Overrides()
    families: Annotated[
        tuple[Family, ...], Field(strict=False, min_length=1, alias="family")
    ]
    supervised: Annotated[tuple[Supervised, ...], Listed] = ()
    controls: Annotated[tuple[Control, ...], Field(strict=False, alias="control")] = ()
    base: Annotated[Path, Field(exclude=True)] = Path()

    def located(self, name: str) -> str:
        """An id of this pool as `earmark.load_model` takes it from any folder.

        Args:
            name: The id as the pool has it, which is also what records call the model.

        Returns:
            The id with its file, if it names one, under ``base``.
        """
        return located(name, self.base)

    def placed(self) -> "Pool":
        """The same pool, with paths that are found from any folder."""

        def all_of(entries: tuple[Any, ...], *keys: str) -> tuple[Any, ...]:
            return tuple(
                entry.model_copy(
                    update={
                        key: self.located(name)
                        for key in keys
                        if (name := getattr(entry, key)) is not None
                    }
                )
                for entry in entries
            )

        return self.model_copy(
            update={
                "families": all_of(self.families, "zero_shot", "finetuned"),
                "supervised": all_of(self.supervised, "model"),
                "controls": all_of(self.controls, "model"),
            }
        )

    def vacant(self) -> tuple[Control, ...]:
        """The controls whose place no model takes."""
        return tuple(control for control in self.controls if control.model is None)

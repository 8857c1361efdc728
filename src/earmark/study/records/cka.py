"""Records of CKA, layer by layer, of a family's two models (Figures 5 and 6)."""

from dataclasses import replace
from functools import partial

from ..._progress import ProgressCallback
from ...models.classifier import Classifier
from ...records import Record
from ..config import Cka
from ..eval_sets import EvalSets
from ..layer_cka.compare import LayerCKAConfig, compare_layers
from .accuracy import model_row


def layer_cka_records(
    finetuned: Classifier,
    zero_shot: Classifier,
    eval_sets: EvalSets,
    cka_config: Cka,
    *,
    workers: int | None,
    progress: ProgressCallback,
) -> list[Record]:
    """Record linear CKA of each layer before and after finetuning; none of dead layers."""
    row = model_row(finetuned)
    batch_size, layers = cka_config.batch_size, cka_config.layers
    config = LayerCKAConfig(pairs="same", batch_size=batch_size, workers=workers)
    records: list[Record] = []
    for images in (eval_sets.in_distribution, *eval_sets.shifts):
        sample = cka_config.sample if cka_config.sample < len(images) else None
        config = replace(config, sample=sample)
        result = compare_layers(
            zero_shot, finetuned, images, layers=layers, config=config, progress=progress
        )
        for pair in result.rows:
            place = {"dataset": images.name, "item": pair.layer, "coordinate": float(pair.place)}
            pair_row = partial(row, quantity="cka", n=pair.n, note=pair.note, **place)
            records += [
                pair_row(value=value, variant=variant, low=low, high=high)
                for variant in ("", "standardized")
                for value, low, high in (pair.estimate(standardized=bool(variant)),)
                if value is not None
            ]
    return records

"""Closed lists of the arguments that files may give to the libraries of models.

A config beside weights, or the description in a saved classifier, is checked here before a
library sees it. A key that is not listed is refused: the libraries would open paths, ask a hub
or run code for some of them. Numbers have bounds, so that no file asks for a model that never
ends being built.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from .._text import quote

Depth = Annotated[int, Ge(0), Le(512)]
Width = Annotated[int, Ge(0), Le(65_536)]
PositiveWidth = Annotated[int, Ge(1), Le(65_536)]
Pixels = Annotated[int, Ge(1), Le(4_096)]
Vocabulary = Annotated[int, Ge(-1), Le(4_000_000)]
Rows = Annotated[int, Ge(0), Le(1_000_000)]  # of a head
Number = Annotated[float, Ge(-1e6), Le(1e6)]
Factor = Annotated[float, Ge(0), Le(16)]  # of widths or depths
_Triple = Annotated[list[Number], Field(min_length=3, max_length=3)]  # red, green, blue
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]*$", max_length=64)]
Text = Annotated[str, StringConstraints(max_length=1_000)]  # shown at most; never opened
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128)]
OWN_FILE_NAME = r"^[\w .()+-]+\.py$"
ModulePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.,+]*$", max_length=256)]

_MAX_LAYERS, _LAYERS = 1_024, "layers"


def _check_layers(values: list[int]) -> list[int]:
    if sum(values) > _MAX_LAYERS:
        raise PydanticCustomError(_LAYERS, "must be at most 1,024 layers together")
    return values


Depths = Depth | Annotated[list[Depth], Field(max_length=64), AfterValidator(_check_layers)]
Sides = Pixels | Annotated[list[Pixels], Field(max_length=3)]
_Values = Width | Number | bool | Word | None
_Row = Annotated[list[_Values], Field(max_length=512)]
_Rows = Annotated[list[_Values | _Row], Field(max_length=512)]
Values = _Values | Annotated[list[_Values | _Row | _Rows], Field(max_length=512)]
Options = dict[Word, _Values]
Labels = Annotated[dict[str, Any], Field(max_length=1_000_000)]


class ClosedList(BaseModel):
    """Base of all closed lists: other keys and other types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def check_arguments(
    values: object, allowed: type[BaseModel], *, source: object, alternative: str = ""
) -> None:
    """Raise a ValueError that names the first key or value that a closed list refuses."""
    try:
        allowed.model_validate(values)
    except ValidationError as error:
        remedy = f"; or give {alternative}" if alternative else ""
        raise ValueError(f"{source} {_describe_refusal(error)}{remedy}.") from None


def is_allowed(values: object, allowed: type[BaseModel]) -> bool:
    """Return whether a closed list has all keys and values."""
    try:
        allowed.model_validate(values)
    except ValidationError:
        return False
    return True


def _describe_refusal(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = unknown[0] if unknown else max(problems, key=_precision)
    key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(_UNION_MARKS))
    if problem["type"] == "extra_forbidden":
        return (
            f"has the key {quote(key)}, which earmark passes to no library: remove it if the model "
            "does not need it"
        )
    if problem["type"] == "missing":
        return f"lacks {quote(key)}"
    shown, reason = quote(problem["input"]), problem["msg"]
    where = f" for {quote(key)}" if key else ""
    return f"has {shown}{where}: {reason[:1].lower()}{reason[1:]}"


def _precision(problem: Any) -> tuple[int, bool]:
    return len(problem["loc"]), problem["type"] == _LAYERS


# pydantic names the member of a union that failed within the path of a value.
_UNION_MARKS = ("constrained-", "list[", "dict[", "function-", "bool", "int", "float", "str")


class _Tower(ClosedList):
    """Arguments that both towers of open_clip take."""

    mlp_ratio: Factor = 4.0
    ls_init_value: Number | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: Options | None = None
    norm_kwargs: Options | None = None
    block_type: Word | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class OpenClipVision(_Tower):
    """Arguments of open_clip's ``CLIPVisionCfg``."""

    layers: Depths = 12
    width: PositiveWidth = 768
    head_width: PositiveWidth = 64
    patch_size: Sides | None = 16
    image_size: Sides = 224
    patch_dropout: Number = 0.0
    attentional_pool: bool | Literal["parallel", "cascade"] = False
    attn_pooler_queries: Width = 256
    attn_pooler_heads: Depth = 8
    no_ln_pre: bool = False
    pos_embed_type: Word = "learnable"
    pool_type: Word = "tok"
    timm_model_name: ModelName | None = None
    timm_model_pretrained: Literal[False] = False
    timm_pool: Word = "avg"
    timm_proj: Word | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Number = 0.0
    timm_drop_path: Number | None = None


class TokenizerOptions(ClosedList):
    """Arguments of open_clip's tokenizers."""

    clean: Word = "whitespace"
    strip_sep_token: bool = False
    language: Word | None = None


class OpenClipText(_Tower):
    """Arguments of open_clip's ``CLIPTextCfg``, without towers of other repositories."""

    context_length: Width = 77
    vocab_size: Vocabulary = 49408
    hf_tokenizer_name: Text | None = None  # never opened: the model's own place is
    tokenizer_mode: Word | None = None
    tokenizer_kwargs: TokenizerOptions | None = None
    width: PositiveWidth = 512
    heads: Depth = 8
    layers: Depth = 12
    embed_cls: bool = False
    pad_id: Vocabulary = 0
    eos_id: Vocabulary = 2
    no_causal_mask: bool = False
    pool_type: Word = "argmax"
    proj_bias: bool = False
    proj_type: Word | None = "linear"


class OpenClipDecoder(OpenClipText):
    """Arguments of the ``MultimodalCfg`` of CoCa."""

    dim_head: Width = 64
    n_queries: Width = 256
    attn_pooler_heads: Depth = 8


class OpenClipArchitecture(ClosedList):
    """Arguments that a saved classifier gives to open_clip's ``CLIP``."""

    embed_dim: PositiveWidth
    quick_gelu: bool = False
    vision_cfg: OpenClipVision


class OpenClipModel(OpenClipArchitecture):
    """The ``model_cfg`` of a folder or a repository of open_clip."""

    text_cfg: OpenClipText
    multimodal_cfg: OpenClipDecoder | None = None
    custom_text: bool = False
    init_logit_scale: Number | None = None
    init_logit_bias: Number | None = None
    nonscalar_logit_scale: bool = False


class OpenClipPreprocessing(ClosedList):
    """The ``preprocess_cfg`` of a folder or a repository of open_clip."""

    size: Sides = 224
    mode: Literal["RGB"] = "RGB"
    mean: Number | list[Number] = 0.0
    std: Number | list[Number] = 1.0
    interpolation: Word = "bicubic"
    resize_mode: Word = "shortest"
    fill_color: Width = 0


class OpenClipConfig(ClosedList):
    """Content of an ``open_clip_config.json``."""

    model_cfg: OpenClipModel
    preprocess_cfg: OpenClipPreprocessing | None = None


class TimmArguments(ClosedList):
    """Arguments of ``timm.create_model`` that change the architecture within its name."""

    num_classes: Rows | None = None
    in_chans: Literal[3] = 3
    img_size: Sides | None = None
    patch_size: Sides | None = None
    global_pool: Word | None = None
    class_token: bool | None = None
    reg_tokens: Depth | None = None
    no_embed_class: bool | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    fc_norm: bool | None = None
    init_values: Number | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    dynamic_img_size: bool | None = None
    act_layer: Word | None = None
    norm_layer: Word | None = None
    pretrained_window_sizes: list[Width] | None = None
    window_size: Sides | None = None
    drop_rate: Number | None = None
    drop_path_rate: Number | None = None


class TimmArchitecture(TimmArguments):
    """Description of an encoder of timm in a saved classifier."""

    name: ModelName
    head: ModulePath


class TimmPretrained(ClosedList):
    """The ``pretrained_cfg`` of a repository of timm: no file of another place."""

    url: Text | None = None  # not opened: the repository's own file is
    source: Literal["hf-hub"] = "hf-hub"
    hf_hub_id: Text | None = None  # the repository itself
    hf_hub_filename: Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*$")] | None = None
    architecture: ModelName | None = None
    tag: ModelName | None = None
    custom_load: Literal[False] = False
    num_features: Width | None = None
    num_classes: Rows | None = None
    label_offset: Depth | None = None
    label_names: list[Text] | None = None
    label_descriptions: Labels | None = None
    input_size: list[Pixels] | None = None
    test_input_size: list[Pixels] | None = None
    min_input_size: list[Pixels] | None = None
    fixed_input_size: bool = False
    interpolation: Word | None = None
    crop_pct: Number | None = None
    test_crop_pct: Number | None = None
    crop_mode: Word | None = None
    test_crop_mode: Word | None = None
    mean: list[Number] | None = None
    std: list[Number] | None = None
    pool_size: list[Width] | None = None
    first_conv: ModulePath | list[ModulePath] | None = None
    classifier: ModulePath | list[ModulePath] | None = None
    license: Text | None = None
    description: Text | None = None
    origin_url: Text | None = None
    paper_name: Text | None = None
    paper_ids: Text | list[Text] | None = None
    notes: Text | list[Text] | None = None


class OwnArchitecture(ClosedList):
    """Reference of a saved classifier to the user's own code, which is never run for it."""

    source: Annotated[str, StringConstraints(pattern=OWN_FILE_NAME, max_length=255)]
    function: Annotated[str, StringConstraints(pattern=r"^\w+$", max_length=128)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class TimmPreprocessing(ClosedList):
    """Preprocessing that a file of weights of timm says it was trained with."""

    input_size: Annotated[list[Pixels], Field(min_length=3, max_length=3)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | None = (
        None
    )
    crop_pct: Annotated[float, Ge(0.1), Le(2)] | None = None  # the image size over the resized
    crop_mode: Literal["center", "squash", "border"] | None = None
    mean: _Triple | None = None
    std: _Triple | None = None


class TorchvisionOptions(ClosedList):
    """Arguments of torchvision's builders of classifiers."""

    num_classes: Rows
    aux_logits: bool = False
    image_size: Pixels | None = None


class TorchvisionArchitecture(ClosedList):
    """Description of an encoder of torchvision in a saved classifier."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$", max_length=64)]
    options: TorchvisionOptions
    head: ModulePath

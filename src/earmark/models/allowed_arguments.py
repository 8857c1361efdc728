"""Closed lists of the arguments that files may give to the libraries of models.

A config beside weights, or the description in a saved classifier, is checked here before a
library sees it. A key that is not listed is refused: the libraries would open paths, ask a hub
or run code for some of them. Numbers have bounds, so that no file asks for a model that never
ends being built.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Optional

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, create_model

Depth = Annotated[int, Ge(0), Le(512)]
Width = Annotated[int, Ge(0), Le(65_536)]
Pixels = Annotated[int, Ge(1), Le(4_096)]
Vocabulary = Annotated[int, Ge(-1), Le(4_000_000)]
Rows = Annotated[int, Ge(0), Le(1_000_000)]  # of a head
Number = Annotated[float, Ge(-1e6), Le(1e6)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]*$", max_length=64)]
Text = Annotated[str, StringConstraints(max_length=1_000)]  # shown at most; never opened
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=128)]
ModulePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.,+]*$", max_length=256)]

Depths = Depth | Annotated[list[Depth], Field(max_length=64)]
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


def _describe_refusal(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False)
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = unknown[0] if unknown else max(problems, key=lambda one: len(one["loc"]))
    key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(_UNION_MARKS))
    if problem["type"] == "extra_forbidden":
        return (
            f"has the key {key!r}, which earmark passes to no library: remove it if the model "
            "does not need it"
        )
    if problem["type"] == "missing":
        return f"lacks {key!r}"
    value, reason = repr(problem["input"]), problem["msg"]
    shown = value if len(value) <= 60 else f"{value[:56]} ..."
    where = f" for {key!r}" if key else ""
    return f"has {shown}{where}: {reason[:1].lower()}{reason[1:]}"


# pydantic names the member of a union that failed within the path of a value.
_UNION_MARKS = ("constrained-", "list[", "dict[", "function-", "bool", "int", "float", "str")


class OpenClipVision(ClosedList):
    """Arguments of open_clip's ``CLIPVisionCfg``."""

    layers: Depths = 12
    width: Width = 768
    head_width: Width = 64
    mlp_ratio: Number = 4.0
    patch_size: Sides | None = 16
    image_size: Sides = 224
    ls_init_value: Number | None = None
    patch_dropout: Number = 0.0
    attentional_pool: bool | Literal["parallel", "cascade"] = False
    attn_pooler_queries: Width = 256
    attn_pooler_heads: Depth = 8
    no_ln_pre: bool = False
    pos_embed_type: Word = "learnable"
    final_ln_after_pool: bool = False
    pool_type: Word = "tok"
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


class OpenClipText(ClosedList):
    """Arguments of open_clip's ``CLIPTextCfg``, without towers of other repositories."""

    context_length: Width = 77
    vocab_size: Vocabulary = 49408
    hf_tokenizer_name: Text | None = None  # never opened: the model's own place is
    tokenizer_mode: Word | None = None
    tokenizer_kwargs: TokenizerOptions | None = None
    width: Width = 512
    heads: Depth = 8
    layers: Depth = 12
    mlp_ratio: Number = 4.0
    ls_init_value: Number | None = None
    embed_cls: bool = False
    pad_id: Vocabulary = 0
    eos_id: Vocabulary = 2
    no_causal_mask: bool = False
    final_ln_after_pool: bool = False
    pool_type: Word = "argmax"
    proj_bias: bool = False
    proj_type: Word | None = "linear"
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


class OpenClipDecoder(OpenClipText):
    """Arguments of the ``MultimodalCfg`` of CoCa."""

    dim_head: Width = 64
    n_queries: Width = 256
    attn_pooler_heads: Depth = 8


class OpenClipArchitecture(ClosedList):
    """Arguments that a saved classifier gives to open_clip's ``CLIP``."""

    embed_dim: Width
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


HF_MODEL_TYPES = (
    *("beit", "bit", "clip", "clip_vision_model", "convnext", "convnextv2", "cvt"),
    *("data2vec-vision", "deit", "dinat", "dinov2", "dinov2_with_registers", "donut-swin"),
    *("efficientformer", "efficientnet", "focalnet", "hgnet_v2", "hiera", "ijepa", "levit"),
    *("metaclip_2", "mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "nat"),
    *("poolformer", "pp_lcnet", "pvt", "pvt_v2", "regnet", "resnet", "segformer", "siglip"),
    *("siglip2", "siglip2_vision_model", "siglip_vision_model", "swiftformer", "swin", "swinv2"),
    *("textnet", "van", "vit", "vit_msn"),
)
"""Model types of transformers that are built: image classifiers and CLIP's relatives."""

_HF_DEPTHS = (
    "depths num_block_repeats num_hidden_layers num_layers num_encoder_blocks "
    "num_attention_heads num_heads num_groups num_query_pool num_stages n_attn_blocks "
    "stage_num_blocks stage_numb_of_layers decoder_depth decoder_num_heads "
    "num_meta3d_blocks depth num_attention_outputs"
)
_HF_ARRAYS = (
    "aspp_out_channels atrous_rates attention_drop_rate attention_ratio auxiliary_channels "
    "auxiliary_num_convs base_attn_unit_dims block_configs class_expand cls_token "
    "conv_kernel_size conv_layer_kernel_sizes conv_layer_strides decoder_hidden_size "
    "depth_divisible_by depth_divisor depthwise_padding dilations divisor down_ops down_pad "
    "down_patch_size down_stride downsamples drop_path_rate drop_rate embed_dim embed_dims "
    "embedding_size encoder_stride expand_ratio expand_ratios ffn_multiplier focal_levels "
    "focal_windows groups_width hidden_dim hidden_size hidden_sizes image_size in_channels "
    "intermediate_size kernel_qkv kernel_size kernel_sizes key_dim masked_unit_attention "
    "masked_unit_size max_position_embeddings min_depth mlp_ratio mlp_ratios "
    "neck_hidden_sizes num_channels num_patches num_register_tokens out_channels "
    "out_features out_indices output_stride padding padding_kv padding_q patch_padding "
    "patch_size patch_sizes patch_stride pool_scales pool_size pooler_output_size projection_size "
    "pretrained_window_sizes projection_dim qkv_bias qkv_projection_method query_stride "
    "reduction sequence_reduction_ratios sr_ratios stage_downsample "
    "stage_downsample_strides stage_in_channels stage_kernel_size stage_light_block "
    "stage_mid_channels stage_names stage_out_channels stem_channels stem_kernel_size "
    "stem_num_channels stem_out_channels stem_stride stem_strides stride stride_kv stride_q "
    "strides width_factor window_size backbone_featmap_shape mlp_expansion_ratio resolution "
    "downsample_patch_size downsample_stride downsample_pad dim"
)
_HF_NUMBERS = (
    "aspp_dropout_prob attention_dropout attention_probs_dropout_prob attn_dropout "
    "auxiliary_loss_weight batch_norm_eps batch_norm_momentum classifier_dropout_prob "
    "depth_coefficient depth_multiplier drop_connect_rate drop_conv_encoder_rate "
    "drop_mlp_rate dropout dropout_rate embed_dim_multiplier ffn_dropout hidden_dropout "
    "hidden_dropout_prob initializer_factor initializer_range layer_norm_eps layer_norm_init "
    "layer_scale_init_value layerscale_value logit_scale_init_value mask_ratio scale "
    "semantic_loss_ignore_index squeeze_expansion_ratio width_coefficient width_multiplier "
    "semantic_loss_weight mlp_dropout_rate"
)
_HF_FLAGS = (
    "add_fpn apply_layernorm auxiliary_concat_input downsample_in_bottleneck "
    "downsample_in_first_stage embedding_dynamic_padding finegrained_output "
    "first_layer_is_expansion linear_attention normalize_modulator normalize_pixel_loss "
    "reshape_hidden_states reshape_last_stage tf_padding use_absolute_embeddings "
    "use_absolute_position_embeddings use_auxiliary_head use_batch_norm_in_bit_residual "
    "use_bias_in_bit_residual use_conv_embed use_layer_scale use_layerscale "
    "use_learnable_affine_block use_mask_token use_mean_pooling use_post_layernorm "
    "use_post_layernorm_in_modulation use_relative_position_bias "
    "use_shared_relative_position_bias use_swiglu_ffn vision_use_head distillation"
)
_HF_WORDS = (
    "hidden_act layer_type pooler_act pooling_type stem_act_func global_padding "
    "embed_layer_type problem_type"
)
# What every config of transformers, of whatever age, may hold without a meaning for an image
# tower: generation, training and bookkeeping.
_HF_IGNORED = (
    "_attn_implementation_autoset add_cross_attention bad_words_ids begin_suppress_tokens "
    "bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id "
    "diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size eos_token_id "
    "exponential_decay_length_penalty finetuning_task forced_bos_token_id "
    "forced_eos_token_id is_decoder is_encoder_decoder length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions "
    "output_hidden_states output_scores pad_token_id prefix remove_invalid_values "
    "repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens "
    "temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings top_k top_p "
    "torchscript typical_p use_bfloat16 use_cache"
)


@cache
def hf_config_list() -> type[BaseModel]:
    """Return the closed list of a ``config.json`` of transformers."""
    kinds: tuple[tuple[str, Any], ...] = (
        (_HF_DEPTHS, Depths),
        (_HF_ARRAYS, Values),
        (_HF_NUMBERS, Number),
        (_HF_FLAGS, bool),
        (_HF_WORDS, Word),
        (_HF_IGNORED, Values),
        ("architectures", list[Word]),
        ("num_labels", Rows),
        ("id2label label2id", Labels),
        ("vocab_size", Vocabulary),
        ("transformers_version _name_or_path", Text),  # where it came from; it is not opened
        ("_commit_hash tokenizer_class", Word),
        ("model_type", ModelName),
        ("dtype torch_dtype", Literal["float32", "float16", "bfloat16"]),
        ("pruned_heads", Annotated[dict[str, Any], Field(max_length=0)]),
        ("task_specific_params", None),
    )
    fields = {name: kind for names, kind in kinds for name in names.split()}
    tower = _make_closed_list("HfTower", fields)
    halves = ("text_config", "vision_config", "text_config_dict", "vision_config_dict")
    return _make_closed_list("HfConfig", {**fields, **dict.fromkeys(halves, tower)})


def _make_closed_list(name: str, fields: Mapping[str, Any]) -> type[BaseModel]:
    """Return a closed list whose entries may all be missing or null."""
    entries: dict[str, Any] = {
        key.lstrip("_"): (Optional[kind], Field(None, alias=key))  # noqa: UP045
        for key, kind in fields.items()
    }
    return create_model(name, __base__=ClosedList, **entries)


class ProcessorConfig(ClosedList):
    """Content of a ``processor_config.json`` of transformers."""

    image_processor: "ImageProcessorConfig | None" = None
    processor_class: Word | None = None
    image_seq_length: Width | None = None


class HfArchitecture(ClosedList):
    """Description of an encoder of transformers in a saved classifier, beside its config."""

    class_name: Word = Field(alias="class")
    config: Annotated[dict[str, Any], Field(max_length=1_000)]  # of `hf_config_list`
    head: ModulePath


class AddedToken(ClosedList):
    """A token in a ``tokenizer_config.json``."""

    content: Text
    lstrip: bool = False
    normalized: bool = False
    rstrip: bool = False
    single_word: bool = False
    special: bool = False
    type_: Literal["AddedToken"] = Field("AddedToken", alias="__type")


_Token = Text | AddedToken | None


class TokenizerConfig(ClosedList):
    """Content of a ``tokenizer_config.json``: no path, no code."""

    tokenizer_class: (
        Literal[
            "CLIPTokenizer",
            "CLIPTokenizerFast",
            "SiglipTokenizer",
            "Siglip2Tokenizer",
            "GemmaTokenizer",
            "GemmaTokenizerFast",
            "T5Tokenizer",
            "T5TokenizerFast",
            "BertTokenizer",
            "BertTokenizerFast",
            "RobertaTokenizer",
            "RobertaTokenizerFast",
            "XLMRobertaTokenizer",
            "XLMRobertaTokenizerFast",
            "NllbTokenizer",
            "NllbTokenizerFast",
            "PreTrainedTokenizerFast",
            "TokenizersBackend",
        ]
        | None
    ) = None
    bos_token: _Token = None
    eos_token: _Token = None
    unk_token: _Token = None
    pad_token: _Token = None
    sep_token: _Token = None
    cls_token: _Token = None
    mask_token: _Token = None
    bos_token_id: Vocabulary | None = None
    eos_token_id: Vocabulary | None = None
    pad_token_id: Vocabulary | None = None
    additional_special_tokens: list[_Token] | None = None
    extra_special_tokens: dict[str, _Token] | list[_Token] | None = None
    extra_ids: Width | None = None
    added_tokens_decoder: Annotated[dict[str, AddedToken], Field(max_length=10_000)] | None = None
    added_tokens: list[AddedToken] | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    backend: Word | None = None
    clean_up_tokenization_spaces: bool | None = None
    do_basic_tokenize: bool | None = None
    do_lower_case: bool | None = None
    errors: Word | None = None
    fix_text: None = None
    from_slow: bool | None = None
    is_local: bool | None = None
    legacy: bool | None = None
    local_files_only: bool | None = None
    max_length: Width | None = None
    model_input_names: list[Word] | None = None
    model_max_length: Annotated[float, Ge(1)] | None = None
    model_specific_special_tokens: dict[str, _Token] | None = None
    name_or_path: Text | None = None  # where it came from; it is not opened
    never_split: None = None
    pad_to_multiple_of: Width | None = None
    pad_token_type_id: Width | None = None
    padding: Word | bool | None = None
    padding_side: Literal["left", "right"] | None = None
    processor_class: Word | None = None
    return_attention_mask: bool | None = None
    sp_model_kwargs: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    spaces_between_special_tokens: bool | None = None
    special_tokens_map_file: Text | None = None  # where it came from; it is not opened
    split_special_tokens: bool | None = None
    stride: Width | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    tokenizer_file: None = None
    trim_offsets: bool | None = None
    truncation: Word | bool | None = None
    truncation_side: Literal["left", "right"] | None = None
    truncation_strategy: Word | None = None
    trust_remote_code: Literal[False] = False
    use_default_system_prompt: bool | None = None
    use_fast: bool | None = None


class ImageProcessorConfig(ClosedList):
    """Content of a ``preprocessor_config.json``: no path, no code."""

    image_processor_type: Word | None = None
    feature_extractor_type: Word | None = None
    processor_class: Word | None = None
    crop_pct: Number | None = None
    crop_size: Sides | dict[Word, Pixels] | None = None
    data_format: Word | None = None
    default_to_square: bool | None = None
    device: None = None
    disable_grouping: bool | None = None
    do_center_crop: bool | None = None
    do_convert_rgb: bool | None = None
    do_normalize: bool | None = None
    do_pad: bool | None = None
    do_reduce_labels: bool | None = None
    do_rescale: bool | None = None
    do_resize: bool | None = None
    image_mean: list[Number] | None = None
    image_seq_length: Width | None = None
    image_std: list[Number] | None = None
    input_data_format: Word | None = None
    pad_size: Sides | dict[Word, Pixels] | None = None
    resample: Width | None = None
    rescale_factor: Number | None = None
    return_tensors: Word | None = None
    size: Sides | dict[Word, Pixels] | None = None
    size_divisor: Width | None = None
    valid_processor_keys: list[Word] | None = Field(None, alias="_valid_processor_keys")
    name_or_path: Text | None = None
    backend: Word | None = None

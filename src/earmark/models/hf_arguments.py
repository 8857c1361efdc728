"""Closed lists of what the files of a model of transformers may hold.

A path, code, or a place on the hub is in none of them.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Optional

from annotated_types import Ge
from pydantic import BaseModel, Field, create_model

from .allowed_arguments import (
    ClosedList,
    Depths,
    Factor,
    Labels,
    ModelName,
    ModulePath,
    Number,
    Pixels,
    Rows,
    Sides,
    Text,
    Values,
    Vocabulary,
    Width,
    Word,
)

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
    "drop_connect_rate drop_conv_encoder_rate "
    "drop_mlp_rate dropout dropout_rate ffn_dropout hidden_dropout "
    "hidden_dropout_prob initializer_factor initializer_range layer_norm_eps layer_norm_init "
    "layer_scale_init_value layerscale_value logit_scale_init_value mask_ratio scale "
    "semantic_loss_ignore_index "
    "semantic_loss_weight mlp_dropout_rate"
)
_HF_FACTORS = (
    "depth_coefficient depth_multiplier embed_dim_multiplier squeeze_expansion_ratio "
    "width_coefficient width_multiplier"
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
        (_HF_FACTORS, Factor),
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

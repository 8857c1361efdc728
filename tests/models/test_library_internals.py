"""What the adapters use of other libraries beyond their documented names is still there.

An upgrade that takes one away fails here, by its name.
"""

import logging
from contextlib import suppress
from importlib import import_module
from inspect import signature
from io import StringIO
from pkgutil import resolve_name

import pytest

from earmark.models import _torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models._quiet import quiet

NAMES = [
    "open_clip:IMAGENET_CLASSNAMES",
    "open_clip:OPENAI_IMAGENET_TEMPLATES",
    "open_clip:SIMPLE_IMAGENET_TEMPLATES",
    "open_clip:CLIP",
    "open_clip:get_model_config",
    "open_clip:is_pretrained_cfg",
    "open_clip:list_models",
    "open_clip:list_pretrained",
    "open_clip:list_pretrained_tags_by_model",
    "open_clip.convert:convert_state_dict",
    "open_clip.factory:download_pretrained_from_hf",
    "open_clip.factory:add_model_config",
    "open_clip.factory:_MODEL_CONFIG_PATHS",
    "open_clip.factory:_MODEL_CONFIGS",
    "open_clip.factory:SigLipTokenizer",
    "open_clip.model:convert_to_custom_text_state_dict",
    "open_clip.model:resize_pos_embed",
    "open_clip.model:resize_text_pos_embed",
    "open_clip.pretrained:_PRETRAINED",
    "open_clip.pretrained:_pcfg",
    "timm:is_model",
    "timm:list_models",
    "timm:list_pretrained",
    "timm.data.config:resolve_data_config",
    "timm.data.config:resolve_model_data_config",
    "timm.data.imagenet_info:ImageNetInfo.label_names",
    "timm.models:load_model_config_from_hf",
    "timm.models.vision_transformer:checkpoint_filter_fn",
    "torchvision.models:get_model",
    "torchvision.models:get_model_weights",
    "torchvision.models:list_models",
    "transformers:AutoConfig.for_model",
    "transformers:AutoImageProcessor.from_pretrained",
    "transformers:AutoTokenizer.from_pretrained",
    "transformers:CLIPModel.get_image_features",
    "transformers:CLIPVisionModelWithProjection",
    "transformers:SiglipVisionModel",
    "transformers.models.auto.modeling_auto:MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "transformers.utils.logging:disable_progress_bar",
    "transformers.utils.logging:enable_progress_bar",
    "transformers.utils.logging:is_progress_bar_enabled",
    "huggingface_hub.constants:HF_HUB_CACHE",
    "huggingface_hub.constants:HF_HUB_OFFLINE",
]
OPTIONS = {
    "open_clip:create_model": {
        "pretrained_text",
        "require_pretrained",
        "weights_only",
        "force_preprocess_cfg",
    },
    "open_clip:download_pretrained": {"cfg"},
    "open_clip:get_pretrained_cfg": {"model", "tag"},
    "open_clip:get_tokenizer": {"model_name"},
    "timm:get_pretrained_cfg": {"allow_unregistered"},
    "timm:create_model": {"pretrained"},
    "timm.data.config:resolve_data_config": {"pretrained_cfg"},
    "timm.data.config:resolve_model_data_config": {"args"},
    "huggingface_hub:hf_hub_download": {"revision"},
    "transformers:PretrainedConfig.to_json_string": {"use_diff"},
}


def named(name: str) -> object:
    import_module(name.partition(":")[0])
    return resolve_name(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_there(name: str):
    assert named(name) is not None


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_there(name: str):
    assert signature(named(name)).parameters.keys() >= OPTIONS[name]


def test_timm_knows_the_parts_of_imagenet():
    from timm.data.imagenet_info import infer_imagenet_subset

    counts = (1000, 11221, 11821, 21841, 21843, 512, 0)
    known = [infer_imagenet_subset({"num_classes": count}) for count in counts]
    assert all(known[:5])
    assert known[5:] == [None, None]


def test_a_tower_of_open_clip_has_what_is_read_of_it():
    from open_clip import CLIP

    vision = {"layers": 1, "width": 64, "patch_size": 8, "image_size": 16}
    model = CLIP(8, vision, {"width": 64, "heads": 1, "layers": 1})
    for attribute in ("attn_mask", "positional_embedding", "logit_scale", "logit_bias"):
        assert hasattr(model, attribute)
    assert model.text_pool_type == "argmax"
    assert model.visual.output_tokens is False


@pytest.mark.parametrize("handled", [True, False])
def test_libraries_are_quiet_and_the_world_stays_as_it_was(
    handled: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    root, timm, shown = logging.getLogger(), logging.getLogger("timm"), StringIO()
    handlers = [logging.StreamHandler(shown)] if handled else []
    monkeypatch.setattr(root, "handlers", handlers.copy())
    filters, level = root.filters.copy(), timm.level

    with suppress(KeyError), quiet():
        logging.error("as open_clip does")
        timm.warning("as timm does")
        raise KeyError

    assert (root.handlers, root.filters, timm.level) == (handlers, filters, level)
    assert (shown.getvalue(), *capfd.readouterr()) == ("", "", "")

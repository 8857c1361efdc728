"""The closed lists against the libraries: what is allowed exists, all else is known and refused."""

import inspect
import json
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from pydantic import BaseModel

import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models import allowed_arguments as allowed
from earmark.models import hf_arguments
from earmark.models.allowed_arguments import check_arguments

ROOT = Path(__file__).parents[2]
OLDEST = json.loads((Path(__file__).parent / "oldest_arguments.json").read_text("utf-8"))

# Arguments of the libraries that a file must not choose. A new version of a library that adds
# an argument fails the tests below until the argument is listed here or allowed.
REFUSED = {
    "CLIPVisionCfg": set(),
    "CLIPTextCfg": {"hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"},
    "CLIP": {"cast_dtype", "output_dict"},
    "CustomTextCLIP": {"cast_dtype", "output_dict"},
    "create_model": {
        *("model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
        *("checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "kwargs"),
    },
    "build_model_with_cfg": {
        *("model_cls", "variant", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
        *("model_cfg", "feature_cfg", "pretrained_strict", "pretrained_filter_fn"),
        *("cache_dir", "kwargs_filter", "kwargs", "pretrained_model_args"),
    },
    "HFTokenizer": {"tokenizer_name", "context_length", "cache_dir", "tokenizer_mode", "kwargs"},
}
ALLOWED: dict[str, type[BaseModel]] = {
    "CLIPVisionCfg": allowed.OpenClipVision,
    "CLIPTextCfg": allowed.OpenClipText,
    "CLIP": allowed.OpenClipModel,
    "CustomTextCLIP": allowed.OpenClipModel,
    "create_model": allowed.TimmArguments,
    "build_model_with_cfg": allowed.TimmArguments,
    "HFTokenizer": allowed.TokenizerOptions,
}


def installed_arguments() -> dict[str, set[str]]:
    """Return the names of the arguments of the installed libraries."""
    import open_clip.model
    import open_clip.tokenizer
    import timm
    from timm.models import build_model_with_cfg

    functions: dict[str, Any] = {
        "CLIP": open_clip.model.CLIP,
        "CustomTextCLIP": open_clip.model.CustomTextCLIP,
        "create_model": timm.create_model,
        "build_model_with_cfg": build_model_with_cfg,
        "HFTokenizer": open_clip.tokenizer.HFTokenizer,
    }
    names = {
        name: {*inspect.signature(function).parameters} for name, function in functions.items()
    }
    for config in ("CLIPVisionCfg", "CLIPTextCfg"):
        names[config] = {field.name for field in fields(getattr(open_clip.model, config))}
    return names


def versions() -> Iterable[tuple[str, dict[str, set[str]]]]:
    yield "installed", installed_arguments()
    yield "oldest", {name: set(names) for name, names in OLDEST["arguments"].items()}


@pytest.mark.parametrize("function", REFUSED)
@pytest.mark.parametrize("which", ["installed", "oldest"])
def test_each_argument_of_a_library_is_allowed_or_refused(which: str, function: str):
    names = dict(versions())[which][function]
    own = {*ALLOWED[function].model_fields}

    assert not own & REFUSED[function]
    if function == "create_model":  # it hands all others to the model
        assert names == REFUSED[function]
    elif function in {"CLIP", "CustomTextCLIP"}:
        assert names <= own | REFUSED[function]
    elif function == "build_model_with_cfg":
        assert names - {"kwargs"} <= REFUSED[function]
    else:
        assert names == (own & names) | (REFUSED[function] & names)
        assert names <= own | REFUSED[function]


def test_the_list_of_the_oldest_versions_is_of_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["hf"]]
    bounds = {
        requirement.name: bound.version
        for requirement in map(Requirement, texts)
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    pinned = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()[1:]
    listed_pins = dict(line.split("==") for line in pinned)
    assert {name: version_key(text) for name, text in listed_pins.items()} == {
        name: version_key(text) for name, text in bounds.items()
    }
    for package, listed in OLDEST["versions"].items():
        assert version_key(listed) == version_key(bounds[package]), package


def version_key(text: str) -> tuple[int, ...]:
    parts = [int(part) for part in text.split("+", maxsplit=1)[0].split(".")]
    return tuple([*parts, 0, 0][:3])


# What ships with the libraries is accepted


def test_all_architectures_of_open_clip_are_accepted():
    from open_clip import get_model_config, list_models

    configs: dict[str, Any] = {name: get_model_config(name) for name in list_models()}
    for name, config in configs.items():
        if "hf_model_name" in config["text_cfg"]:  # a text tower of another repository
            with pytest.raises(ValueError, match=r"text_cfg\.hf_"):
                check_arguments(config, allowed.OpenClipModel, source=name)
        else:
            check_arguments(config, allowed.OpenClipModel, source=name)


@pytest.mark.parametrize("kind", hf_arguments.HF_MODEL_TYPES)
def test_all_default_configs_of_transformers_are_accepted(kind: str):
    from transformers import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        pytest.skip(f"transformers {version('transformers')} has no {kind}")
    config = json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False))

    check_arguments(config, hf_arguments.hf_config_list(), source=kind)


def test_an_old_config_of_clip_is_accepted():
    """The keys of OpenAI's own upload, which transformers 4.16 wrote."""
    names = (
        "add_cross_attention bad_words_ids begin_suppress_tokens bos_token_id "
        "cross_attention_hidden_size diversity_penalty do_sample early_stopping "
        "encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task "
        "forced_bos_token_id is_decoder length_penalty max_length num_beams prefix "
        "problem_type return_dict_in_generate temperature tf_legacy_loss "
        "tie_encoder_decoder tokenizer_class top_k top_p torchscript typical_p "
        "use_bfloat16"
    )
    half: dict[str, Any] = dict.fromkeys(names.split())
    half |= {"pruned_heads": {}, "architectures": None, "id2label": {"0": "LABEL_0"}}
    half |= {"torch_dtype": None, "transformers_version": "4.16.0.dev0", "hidden_size": 768}
    config = {
        "_name_or_path": "openai/clip-vit-base-patch32",
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": 512,
        "text_config": half | {"model_type": "clip_text_model", "vocab_size": 49408},
        "text_config_dict": None,
        "vision_config": half | {"model_type": "clip_vision_model", "patch_size": 32},
        "vision_config_dict": None,
    }

    check_arguments(config, hf_arguments.hf_config_list(), source="config.json")


def test_all_repositories_of_timm_are_accepted():
    import timm
    from timm.models import get_pretrained_cfg

    for name in timm.list_pretrained():
        config: Any = get_pretrained_cfg(name)
        config = config.to_dict(remove_source=True, remove_null=True)
        config.pop("custom_load", None)  # of weights for a tag, which a repository does not need
        check_arguments(json.loads(json.dumps(config)), allowed.TimmPretrained, source=name)


# Messages


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "a", "head": "", "x": 1}, r"^It has the key 'x', which .*: remove it if"),
        ({"name": "a", "head": "", "num_classes": "1"}, r"^It has '1' for 'num_classes': input"),
        ({"name": "a", "head": "", "num_classes": True}, r"has True for 'num_classes'"),
        ({"name": "a"}, r"^It lacks 'head'\.$"),
        ([], r"^It has \[\]: input should be"),
        (None, r"^It has None: input should be"),
        ({"name": "a", "head": "", "img_size": [3, 10**9]}, r"for 'img_size\.1'"),
        ({"name": "a", "head": "", "init_values": float("nan")}, r"has nan for 'init_values'"),
        ({"name": "a" * 500, "head": ""}, r"has 'a{60,90}\.\.\.' for 'name'"),
    ],
)
def test_a_refusal_names_the_key_and_the_value(values: object, says: str):
    with pytest.raises(ValueError, match=says):
        check_arguments(values, allowed.TimmArchitecture, source="It")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_accepted_or_refused_in_one_line(values: object):
    for closed_list in (
        *ALLOWED.values(),
        allowed.OpenClipConfig,
        hf_arguments.TokenizerConfig,
        hf_arguments.ImageProcessorConfig,
        hf_arguments.hf_config_list(),
    ):
        try:
            check_arguments(values, closed_list, source="It")
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017

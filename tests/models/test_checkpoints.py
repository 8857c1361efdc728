"""Reading weights: whatever the file is, weights come out or one line says why not."""

import argparse
import os
import pathlib
import pickle
import zipfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from earmark.models import _torchvision_compat  # noqa: F401 # before timm
from earmark.models.checkpoints import (
    check_finite_weights,
    load_weights,
    read_head,
    read_state_dict,
    split_finetuned_checkpoint,
)


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def linear() -> dict[str, Tensor]:
    return dict(nn.Linear(2, 3).state_dict())


def saved(path: Path, content: object, **options: bool) -> Path:
    torch.save(content, path, **options)
    return path


def same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(got[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrapper", [None, "state_dict", "model_state_dict", "model", "module", "net", "network"]
)
def test_reads_what_torch_saved(tmp_path: Path, wrapper: str | None, zipped: bool):
    state = linear()
    content = state if wrapper is None else {"epoch": 3, wrapper: state}

    path = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)

    same(read_state_dict(path), state)


def test_reads_safetensors(tmp_path: Path):
    save_file(state := linear(), path := tmp_path / "a.safetensors")

    same(read_state_dict(path), state)


def test_a_tensor_called_model_is_no_wrapper(tmp_path: Path):
    state = {"model": torch.ones(2), "state_dict": torch.zeros(3)}

    same(read_state_dict(saved(tmp_path / "a.pt", state)), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_drops_prefixes_that_all_share(tmp_path: Path, prefix: str):
    state = linear()
    path = saved(tmp_path / "a.pt", {prefix + name: state[name] for name in state})

    same(read_state_dict(path), state)


def test_keeps_prefixes_that_some_have(tmp_path: Path):
    state = {"module.weight": torch.ones(2), "scale": torch.ones(1)}

    same(read_state_dict(saved(tmp_path / "a.pt", state)), state)


def test_never_runs_code(tmp_path: Path):
    trap = tmp_path / "sprung"
    paths = [tmp_path / name for name in ("new.pt", "old.pt", "raw.pkl")]
    saved(paths[0], {"state_dict": linear(), "trap": Runs(trap)})
    saved(paths[1], Runs(trap), _use_new_zipfile_serialization=False)
    paths[2].write_bytes(pickle.dumps(Runs(trap)))

    for path in paths:
        with pytest.raises(ValueError, match=r"holds pickled objects, not only weights"):
            read_state_dict(path)
    assert not trap.exists()


def test_names_the_pickled_object(tmp_path: Path):
    paths = [tmp_path / name for name in ("module.pt", "args.pt")]
    saved(paths[0], nn.Linear(2, 3))
    saved(paths[1], {"state_dict": linear(), "loss": Fraction(1, 2)})

    named_types = ("torch.nn.modules.linear.Linear", "fractions.Fraction")
    for path, named in zip(paths, named_types, strict=True):
        with pytest.raises(ValueError, match=rf"{path}.*\({named}\).*state_dict\(\)\."):
            read_state_dict(path)


HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1, out=Path("runs"), nested=argparse.Namespace()),
    "path": Path("runs/1"),
    "pure path": pathlib.PureWindowsPath("C:/runs"),
    "float64": np.float64(0.5),
    "float32": np.float32(0.5),
    "int64": np.int64(3),
    "bool": np.array([True])[0],
    "datetime": np.datetime64("2024-01-01"),
    "string": np.str_("epoch"),
    "ordered": OrderedDict(a=np.float64(1)),
    "key": {np.int64(3): 0.5},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("beside", HARMLESS.values(), ids=HARMLESS)
def test_settings_and_counts_beside_weights_are_skipped(
    tmp_path: Path, beside: object, zipped: bool
):
    content = {"state_dict": (state := linear()), "beside": beside, "list": [beside]}

    path = saved(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)

    same(read_state_dict(path), state)


def test_what_other_code_lets_torch_load_is_refused_meanwhile(tmp_path: Path):
    path = saved(tmp_path / "a.pt", {"state_dict": linear(), "loss": Fraction(1, 2)})

    with torch.serialization.safe_globals([Fraction]):
        before = {*torch.serialization.get_safe_globals()}
        with pytest.raises(ValueError, match=r"not only weights \(fractions\.Fraction\)"):
            read_state_dict(path)
        assert {*torch.serialization.get_safe_globals()} == before
        assert Fraction in before


def test_what_is_skipped_keeps_nothing(tmp_path: Path):
    """A forged type of numpy would let its bytes be read as pointers."""
    from earmark.models.weight_files import Settings, read_content

    content: Any = read_content(saved(tmp_path / "a.pt", {"beside": [*HARMLESS.values()]}))

    skipped = [part for part in content["beside"] if not isinstance(part, dict | Settings)]
    assert len({type(part) for part in skipped}) == 1
    assert all(not vars(part) for part in skipped)


def test_the_arguments_of_a_script_are_kept_by_name(tmp_path: Path):
    from earmark.models.weight_files import read_content

    beside = argparse.Namespace(lr=0.1, out=pathlib.Path("x"))
    content: Any = read_content(saved(tmp_path / "a.pt", {"args": beside}))

    assert not isinstance(content["args"], argparse.Namespace)
    assert content["args"].values.keys() == {"lr", "out"}
    assert content["args"].values["lr"] == 0.1
    assert not vars(content["args"].values["out"])


class Calls(dict[str, int]):
    """A type that is on no list."""


@pytest.mark.parametrize("beside", [np.ones(2), Calls(a=1), slice(3), os.getcwd, range(3)])
def test_other_types_beside_weights_are_refused(tmp_path: Path, beside: object):
    path = saved(tmp_path / "a.pt", {"state_dict": linear(), "beside": beside})

    with pytest.raises(ValueError, match=rf"{path} holds pickled objects, not only weights \("):
        read_state_dict(path)


def test_whole_model_as_wise_ft_pickles_it(tmp_path: Path):
    path = tmp_path / "finetuned.pt"
    path.write_bytes(pickle.dumps(nn.Linear(2, 3)))

    with pytest.raises(ValueError, match="holds pickled objects"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_has_its_own_remedy(tmp_path: Path):
    torch.jit.script(nn.Linear(2, 3)).save(path := tmp_path / "ViT-B-32.pt")

    with pytest.raises(ValueError, match=r"TorchScript archive.*tag"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_no_file(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match=f"{name}: check the path"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_half_a_file(tmp_path: Path, zipped: bool, share: float):
    path = saved(tmp_path / "a.pt", linear(), _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(ValueError, match=rf"{path} "):
        read_state_dict(path)


@given(garbage=st.binary(max_size=200), ending=st.sampled_from([".pt", ".safetensors"]))
def test_garbage(tmp_path_factory: pytest.TempPathFactory, garbage: bytes, ending: str):
    path = tmp_path_factory.getbasetemp() / f"garbage{ending}"
    path.write_bytes(garbage)

    with pytest.raises(ValueError, match=rf"{path} "):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "a dictionary of nothing"),
        ({"epoch": 1, "critic": {"w": torch.ones(1)}}, "a dictionary of epoch, critic"),
        (dict.fromkeys("abcd", 1), r"a dictionary of a, b, c and 1 more"),
    ],
)
def test_no_weights(tmp_path: Path, content: object, found: str):
    with pytest.raises(ValueError, match=rf"holds no weights, but {found}: save"):
        read_state_dict(saved(tmp_path / "a.pt", content))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npy"])
def test_pipes_and_devices_are_refused(tmp_path: Path, name: str):
    os.mkfifo(path := tmp_path / name)
    with pytest.raises(ValueError, match="no regular file but a pipe or device"):
        read_head(path, normalizes=False)
    (link := tmp_path / f"zero-{name}").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        read_head(link, normalizes=False)
    (folder := tmp_path / "folder" / name).mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="is a folder: give a file"):
        read_head(folder, normalizes=False)


@given(place=st.floats(0, 1), flipped=st.integers(1, 255))
def test_a_damaged_archive(tmp_path_factory: pytest.TempPathFactory, place: float, flipped: int):
    """A byte of the central directory of the zip archive is changed."""
    path = saved(tmp_path_factory.getbasetemp() / "directory.pt", linear())
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + int(place * (len(content) - start - 1))] ^= flipped
    path.write_bytes(content)

    problem = ""
    try:
        read_state_dict(path)
    except ValueError as error:
        problem = str(error)
    assert problem == "" or str(path) in problem
    assert "\n" not in problem


def test_an_archive_on_several_disks(tmp_path: Path):
    """Already the question whether the file is an archive raises an error of zipfile."""
    path = saved(tmp_path / "a.pt", linear())
    content = path.read_bytes()
    locator = b"PK\x06\x07" + bytes(4) + content.rindex(b"PK\x05\x06").to_bytes(8, "little")
    end = content[content.rindex(b"PK\x05\x06") :]
    path.write_bytes(content[: -len(end)] + locator + (2).to_bytes(4, "little") + end)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.is_zipfile(path)

    with pytest.raises(ValueError, match=r"a\.pt is damaged .*fetch it again"):
        read_state_dict(path)


def test_an_archive_without_its_directory_or_with_compression(tmp_path: Path):
    path = saved(tmp_path / "a.pt", linear())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = path.read_bytes()
    path.write_bytes(content.replace(b"PK\x01\x02", b"PK\x09\x09"))
    with pytest.raises(ValueError, match=r"a\.pt is damaged .*fetch it again"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    with pytest.raises(ValueError, match=r"was not written by torch\.save"):
        read_state_dict(path)


def test_claims_of_too_much_memory(tmp_path: Path):
    raw = b"\x80\x02c__builtin__\nbytearray\n(\x8a\x08" + (2**62).to_bytes(8, "little") + b"tR."
    (path := tmp_path / "a.pt").write_bytes(raw)

    with pytest.raises(
        ValueError, match=rf"{path} (asks for memory|asks for more memory|is damaged)"
    ):
        read_state_dict(path)


@pytest.mark.parametrize(
    "value",
    [torch.ones(1).expand(10**9), torch.zeros(10**12, 0), torch.ones(1, 1).expand(10**8, 9)],
)
def test_shapes_that_the_file_is_too_small_for(tmp_path: Path, value: Tensor):
    path = saved(tmp_path / "a.pt", {"weight": value})

    with pytest.raises(ValueError, match=rf"weight in {path} has the shape .* is too small"):
        read_state_dict(path)


UNUSABLE: dict[str, Any] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse rows": lambda: torch.eye(3).to_sparse_csr(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantized": lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    "meta": lambda: torch.ones(3, 2, device="meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNUSABLE)
def test_tensors_that_are_no_arrays_are_named(tmp_path: Path, kind: str):
    path = saved(tmp_path / "a.pt", {"weight": UNUSABLE[kind]()})

    word = kind.partition(" ")[0]
    for read in (read_state_dict, lambda path: read_head(path, normalizes=False)):
        with pytest.raises(ValueError, match=rf"weight in {path} is a {word} tensor"):
            read(path)


@pytest.mark.filterwarnings("ignore")
def test_a_jagged_tensor_is_named(tmp_path: Path):
    parts = [torch.ones(2, 3), torch.ones(1, 3)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    path = saved(tmp_path / "a.pt", {"weight": jagged})

    with pytest.raises(ValueError, match=r"nested|pickled objects") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


def test_another_protocol_of_pickle_is_named(tmp_path: Path):
    torch.save(linear(), path := tmp_path / "a.pt", pickle_protocol=4)

    with pytest.raises(ValueError, match=r"another protocol than 2: torch.save\(\) its weights"):
        read_state_dict(path)


NARROW = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_narrow_floats_become_float32(tmp_path: Path, name: str, ending: str):
    values = torch.randn(4, 3).to(getattr(torch, name))
    path = tmp_path / f"a{ending}"
    save_file({"w": values}, path) if ending == ".safetensors" else saved(path, {"w": values})

    read = read_state_dict(path)["w"]

    assert read.dtype == torch.float32
    assert_close(read, values.to(torch.float32), rtol=0, atol=0)


def test_doubles_and_counts_stay(tmp_path: Path):
    state = {"w": torch.ones(2).double(), "num_batches_tracked": torch.tensor(3)}

    got = read_state_dict(saved(tmp_path / "a.pt", state))

    same(got, state)
    assert got["w"].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.complex64])
def test_weights_that_are_no_floats_are_named(dtype: torch.dtype):
    state = linear() | {"weight": torch.ones(3, 2).to(dtype)}

    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"1 weights for it are not floats \(weight of {name}\)"):
        load_weights(nn.Linear(2, 3), state, model_name="it")


@pytest.mark.parametrize("name", ["a.weight.absmax", "fc.qweight", "fc.zero_point", "x.SCB"])
def test_names_of_quantized_weights_are_refused(tmp_path: Path, name: str):
    path = saved(tmp_path / "a.pt", {"w": torch.ones(2), name: torch.ones(2)})

    with pytest.raises(ValueError, match=rf"{path} holds quantized weights \({name}\): give"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.vit.encoder.layer.0.attention.query.lora_A.weight",
        "blocks.0.attn.qkv.lora_B.default.weight",
        "lora_embedding_A",
    ],
)
def test_adapters_are_refused_with_the_remedy(tmp_path: Path, name: str):
    save_file({name: torch.ones(2)}, path := tmp_path / "adapter_model.safetensors")

    with pytest.raises(ValueError, match=r"holds a LoRA adapter \(.*merge_and_unload\(\).*hf:FOLD"):
        read_state_dict(path)


def averaged() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    state = linear()
    return state, {name: value + 1 for name, value in state.items()}


EMA_FILES: dict[str, Any] = {
    "timm": lambda plain, ema: {"state_dict": plain, "state_dict_ema": ema},
    "torchvision": lambda plain, ema: {
        "model": plain,
        "model_ema": {"n_averaged": torch.tensor(7)} | {f"module.{k}": v for k, v in ema.items()},
    },
    "dotted": lambda plain, ema: {"model": plain, "ema_state_dict": ema},
    "short": lambda plain, ema: {"net": plain, "ema": {"module": ema, "updates": 3}},
    "lightning": lambda plain, ema: {"current_model_state": plain, "state_dict": ema},
    "one state": lambda plain, ema: {
        "state_dict": {f"model.{k}": v for k, v in plain.items()}
        | {f"ema_model.{k}": v for k, v in ema.items()}
    },
    "beside": lambda plain, ema: {**plain, "model_ema": ema},
}


def bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model."): value for name, value in state.items()}


@pytest.mark.parametrize("layout", EMA_FILES)
def test_averaged_weights_are_taken_on_demand_or_by_default(tmp_path: Path, layout: str):
    plain, ema = averaged()
    path = saved(tmp_path / "a.pt", EMA_FILES[layout](plain, ema))

    same(bare(read_state_dict(path, weights="ema")), ema)
    same(bare(read_state_dict(path, weights="plain")), plain)
    with pytest.warns(UserWarning, match=rf"{path} holds plain weights .*EMA.* the ema ones"):
        same(bare(read_state_dict(path, default="ema")), ema)
    remedy = r"the plain ones are taken; weights='ema' \(--weights ema\) takes"
    with pytest.warns(UserWarning, match=remedy):
        same(bare(read_state_dict(path)), plain)


def test_the_default_is_that_of_timm(tmp_path: Path):
    from timm.models import load_state_dict

    plain, ema = averaged()
    for layout in ("timm", "torchvision"):
        path = saved(tmp_path / f"{layout}.pt", EMA_FILES[layout](plain, ema))
        with pytest.warns(UserWarning, match="ema ones"):
            ours = read_state_dict(path, default="ema")
        theirs = load_state_dict(str(path))
        theirs.pop("n_averaged", None)
        same(ours, theirs)


def test_one_kind_of_weights_needs_no_choice(tmp_path: Path):
    plain, ema = averaged()
    only_plain = saved(tmp_path / "plain.pt", {"state_dict": plain, "state_dict_ema": None})
    only_ema = saved(tmp_path / "ema.pt", {"state_dict_ema": ema})

    same(read_state_dict(only_plain, default="ema"), plain)
    same(read_state_dict(only_ema), ema)
    with pytest.raises(ValueError, match="holds no ema weights, but plain ones under state_dict:"):
        read_state_dict(only_plain, weights="ema")
    with pytest.raises(ValueError, match=r"no plain weights, but ema .*leave out --weights plain"):
        read_state_dict(only_ema, weights="plain")


def test_a_module_that_is_called_ema_is_no_average(tmp_path: Path):
    state = {"ema.weight": torch.ones(2), "conv.kernel": torch.ones(3)}

    same(read_state_dict(saved(tmp_path / "a.pt", state)), state)


def test_a_count_of_averages_is_left_out(tmp_path: Path):
    own = nn.Linear(2, 3)
    average = torch.optim.swa_utils.AveragedModel(nn.Sequential(own))
    path = saved(tmp_path / "a.pt", average.state_dict())

    same(read_state_dict(path), {f"0.{name}": value for name, value in own.state_dict().items()})


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_named(value: float):
    state = linear()
    state["weight"][1, 1] = value

    with pytest.raises(ValueError, match=r"1 of 2 weights of it have NaN or infinite.*\(weight\)"):
        load_weights(nn.Linear(2, 3), state, model_name="it")


def test_masks_may_be_infinite():
    check_finite_weights({"attn.attn_mask": torch.full((2, 2), -torch.inf)}, model_name="it")
    with pytest.raises(ValueError, match="NaN or infinite"):
        check_finite_weights({"mask.weight": torch.full((2,), torch.nan)}, model_name="it")


def test_loads_every_weight():
    given, module = nn.Linear(2, 3), nn.Linear(2, 3)

    load_weights(module, given.state_dict(), model_name="a Linear")

    same(dict(module.state_dict()), dict(given.state_dict()))


def test_one_error_names_all_that_is_wrong():
    state = {f"{letter}.weight": torch.ones(1) for letter in "abcd"} | {
        "0.weight": torch.ones(5, 2)
    }
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))

    with pytest.raises(ValueError, match=r"not the weights of tiny in a\.pt") as caught:
        load_weights(module, state, model_name="tiny in a.pt")

    assert "3 missing (0.bias, 1.bias, 1.weight)" in str(caught.value)
    assert "4 unexpected (a.weight, b.weight, c.weight and 1 more)" in str(caught.value)
    assert "1 of another shape (0.weight is (5, 2), not (3, 2))" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ({"weight": torch.ones(3, 2)}, r": 1 missing \(bias\); name"),
        (linear() | {"extra": torch.ones(1)}, r": 1 unexpected \(extra\); name"),
    ],
)
def test_one_thing_wrong(state: dict[str, Tensor], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        load_weights(nn.Linear(2, 3), state, model_name="a Linear")


def test_accepts_what_torch_accepts_of_older_checkpoints():
    module = nn.BatchNorm2d(3)
    state = {name: part for name, part in module.state_dict().items() if "num" not in name}

    load_weights(module, state, model_name="a batch norm")


class Renamed(nn.Linear):
    """Reads its weight under an older name too, as torchvision's transformers do."""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], *rest: object):
        if "kernel" in state_dict:
            state_dict["weight"] = state_dict.pop("kernel")
        super()._load_from_state_dict(state_dict, *rest)  # pyright: ignore


def test_modules_may_rename_their_weights():
    old = {"kernel": torch.full((3, 2), 7.0), "bias": torch.ones(3)}

    load_weights(module := Renamed(2, 3), old, model_name="a linear")

    assert_close(module.weight.detach(), old["kernel"])
    with pytest.raises(ValueError, match=r"not the weights of a linear: .*weight"):
        load_weights(module, old | {"kernel": torch.ones(4, 2)}, model_name="a linear")


@pytest.mark.parametrize(
    "prefix", ["", "classification_head.", "fc.", "head.", "classifier.", "probe.last_"]
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_reads_heads(tmp_path: Path, prefix: str, with_bias: bool):
    weight, bias = torch.randn(3, 2).double(), torch.randn(3).half()
    content = {f"{prefix}weight": weight, "body.kernel": torch.ones(4, 4, 1, 1)}
    if with_bias:
        content[f"{prefix}bias"] = bias

    head = read_head(saved(tmp_path / "head.pt", content), normalizes=with_bias)

    assert_close(head.weight, weight.float(), rtol=0, atol=0)
    assert (head.bias is None) == (not with_bias)
    if head.bias is not None:
        assert_close(head.bias, bias.float(), rtol=0, atol=0)
    assert head.normalizes is with_bias


def test_a_lone_matrix_is_the_head(tmp_path: Path):
    save_file({"probe": torch.ones(3, 2)}, path := tmp_path / "head.safetensors")

    assert_close(read_head(path, normalizes=False).weight, torch.ones(3, 2))


@pytest.mark.parametrize("prefix", ["model.fc.", "module.net.classifier.", "backbone.head.fc."])
def test_heads_below_wrappers(tmp_path: Path, prefix: str):
    weight = torch.randn(3, 2)
    state = {f"{prefix}weight": weight, "model.blocks.0.proj.weight": torch.ones(4, 4)}

    head = read_head(saved(tmp_path / "a.pt", state), normalizes=False)

    assert_close(head.weight, weight)


def test_the_head_of_averaged_weights(tmp_path: Path):
    plain, ema = averaged()
    path = saved(tmp_path / "a.pt", {"state_dict": plain, "state_dict_ema": ema})

    assert_close(read_head(path, normalizes=False, weights="ema").weight, ema["weight"])


def test_numpy_heads(tmp_path: Path):
    np.save(path := tmp_path / "head.npy", weight := np.arange(6.0).reshape(3, 2))

    assert_close(read_head(path, normalizes=True).weight.double(), torch.tensor(weight))


def test_a_head_outlives_its_file(tmp_path: Path):
    head = read_head(saved(path := tmp_path / "h.pt", linear()), normalizes=False)
    before = head.weight.clone()
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)

    assert_close(head.weight, before)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"a.weight": torch.ones(3, 2), "b.weight": torch.ones(3, 2)}, "a.weight, b.weigh"),
        ({"W": torch.ones(3, 2), "b": torch.ones(3)}, "which matrix of nothing"),
        ({"weight": torch.ones(3)}, r"holds no head.*\(3,\)"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, "holds no head"),
        ({"weight": torch.full((3, 2), torch.nan)}, "NaN or infinite"),
        ({"weight": torch.ones(1, 2), "bias": torch.tensor([torch.inf])}, "NaN or infinite"),
        ({"weight": torch.ones(3, 2, dtype=torch.int32)}, "holds no head: it is of int32"),
        ({"weight": torch.eye(2), "bias": torch.ones(2).int()}, "holds no head: it is of int32"),
        ({"weight": torch.eye(2) * 1j}, "holds no head: it is of complex64"),
    ],
)
def test_files_without_a_head(tmp_path: Path, content: dict[str, Tensor], complaint: str):
    path = saved(tmp_path / "head.pt", content)

    with pytest.raises(ValueError, match=complaint) as caught:
        read_head(path, normalizes=False)
    assert str(path) in str(caught.value)


def numpy_header(shape: str, dtype: str = "<f8") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"\x93NUMPY\x01\x00",
        numpy_header("(3, 2)")[:40],
        numpy_header("(3, 2)"),
        numpy_header("(1000000000000000,)"),
        numpy_header("(31622777, 31622777)") + b"0" * 800,
        numpy_header("(4294967296, 4294967296)") + b"0" * 800,
        numpy_header("(1000000000000, 0)"),
        numpy_header("(-1, 2)") + b"0" * 800,
        numpy_header("(3, 2)", "O") + b"0" * 800,
        numpy_header("(((((" * 20),
    ],
)
def test_damaged_numpy_heads(tmp_path: Path, content: bytes):
    (path := tmp_path / "head.npy").write_bytes(content)

    with pytest.raises(ValueError, match=rf"{path} holds no matrix of numbers"):
        read_head(path, normalizes=False)


def test_numpy_heads_of_objects_or_words(tmp_path: Path):
    path = tmp_path / "head.npy"
    for array in (np.array([{"a": 1}]), np.array(["a"])):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match="holds no matrix of numbers"):
            read_head(path, normalizes=False)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2", "i8", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_heads_of_any_order_of_bytes(tmp_path: Path, dtype: str, order: Any):
    np.save(path := tmp_path / "head.npy", np.array([[1, 2], [3, 5]], dtype, order=order))

    head = read_head(path, normalizes=False)

    assert_close(head.weight, torch.tensor([[1.0, 2.0], [3.0, 5.0]]))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "complex128"])
def test_numpy_heads_of_other_numbers(tmp_path: Path, dtype: str):
    np.save(path := tmp_path / "head.npy", np.eye(2).astype(dtype))

    with pytest.raises(ValueError, match=rf"holds no head: it is of {dtype}"):
        read_head(path, normalizes=False)


@pytest.mark.parametrize("name", ["head.npy", "head.pt"])
def test_no_head_file(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match=name):
        read_head(tmp_path / name, normalizes=False)


@pytest.mark.parametrize(
    "prefix",
    ["image_encoder.model.", "model.", "net.clip_model.", "model.image_encoder.model.", ""],
)
def test_splits_finetuned_checkpoints(prefix: str):
    towers = {"visual.proj": torch.randn(2), "logit_scale": torch.randn(())}
    weight = torch.randn(3, 2)
    state = {prefix + name: value for name, value in towers.items()}
    state |= {"classification_head.weight": weight, "classification_head.bias": weight[:, 0]}

    split, head = split_finetuned_checkpoint(state)

    same(split, towers)
    assert head is not None
    assert head.bias is not None
    assert head.normalizes
    assert_close(head.weight, weight)
    assert_close(head.bias, weight[:, 0])


@pytest.mark.parametrize("names", [["model.layers.0.weight"], ["visual.proj", "model.x"], []])
def test_other_layouts_stay_as_they_are(names: list[str]):
    state = {name: torch.ones(1) for name in names}

    assert split_finetuned_checkpoint(state) == (state, None)


def test_the_head_of_a_wrapped_checkpoint_is_found():
    weight = torch.randn(3, 2)
    state = {
        "model.image_encoder.model.visual.proj": torch.randn(2),
        "model.classification_head.weight": weight,
    }

    split, head = split_finetuned_checkpoint(state)

    assert [*split] == ["visual.proj"]
    assert head is not None
    assert_close(head.weight, weight)


def test_what_stands_beside_the_towers_is_named():
    state = {"model.visual.proj": torch.ones(2), "loss.scale": torch.ones(1)}

    with pytest.warns(UserWarning, match=r"1 weights .* outside of 'model\.' .*\(loss\.scale\)"):
        assert [*split_finetuned_checkpoint(state)[0]] == ["visual.proj"]

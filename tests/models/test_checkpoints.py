"""Reading weights: whatever the file is, weights come out or one line says why not."""

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from earmark.models.checkpoints import (
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
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
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
    saved(paths[1], {"state_dict": linear(), "args": argparse.Namespace(seed=1)})

    for path, named in zip(
        paths, ("torch.nn.modules.linear.Linear", "argparse.Namespace"), strict=True
    ):
        with pytest.raises(ValueError, match=rf"{path}.*\({named}\).*state_dict\(\)\."):
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
        ({"epoch": 1, "net": {"w": torch.ones(1)}}, "a dictionary of epoch, net"),
        (dict.fromkeys("abcd", 1), r"a dictionary of a, b, c, \.\.\."),
    ],
)
def test_no_weights(tmp_path: Path, content: object, found: str):
    with pytest.raises(ValueError, match=rf"holds no weights, but {found}: save"):
        read_state_dict(saved(tmp_path / "a.pt", content))


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
    assert "4 unexpected (a.weight, b.weight, c.weight, ...)" in str(caught.value)
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
        ({"weight": torch.full((3, 2), torch.nan)}, "not finite"),
        ({"weight": torch.ones(1, 2), "bias": torch.tensor([torch.inf])}, "not finite"),
    ],
)
def test_files_without_a_head(tmp_path: Path, content: dict[str, Tensor], complaint: str):
    path = saved(tmp_path / "head.pt", content)

    with pytest.raises(ValueError, match=complaint) as caught:
        read_head(path, normalizes=False)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
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


@pytest.mark.parametrize("name", ["head.npy", "head.pt"])
def test_no_head_file(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match=name):
        read_head(tmp_path / name, normalizes=False)


@pytest.mark.parametrize("prefix", ["image_encoder.model.", "model.", ""])
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

"""A user's own architecture: it runs if the user names it, and never for what a file says."""

import importlib.util
import json
import marshal
import os
import pickle
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_code_fakes import (
    CLASSES,
    CODE,
    Twin,
    has_run,
    write_code,
    write_images,
    write_weights,
)
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import earmark
from earmark import Classifier, load_model
from earmark.data.image_folder import read_folder_for_head
from earmark.data.loader import load_batches
from earmark.models.classifier import EncoderSpec
from earmark.models.model_id import parse_model_id
from earmark.models.own_code import read_model_from
from earmark.models.serialization import load_classifier
from earmark.training.random_init import reinitialize
from earmark.weights.interpolation import interpolate_classifiers


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write_code(tmp_path / "code")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "w.pt")


def logits(model: Classifier, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.head.logits(model.encoder(images))


def images() -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("function", ["build", "bare"])
def test_weights_are_loaded_into_what_the_function_returns(
    tmp_path: Path, code: Path, function: str, prefix: str
):
    path = write_weights(tmp_path / "w.pt", prefix=prefix)

    model = load_model(str(path), model_from=f"{code}:{function}")

    with torch.inference_mode():
        assert torch.allclose(logits(model, images()), Twin()(images()), atol=1e-6)
    assert model.name == f"own:{code}:{function},{path}"
    assert model.pretraining == "w"
    if function == "build":
        assert (model.classes, model.role) == (CLASSES, "supervised")
        assert model.transform(Image.new("RGB", (40, 30))).shape == (3, 8, 8)


def test_an_id_names_the_function_and_its_weights(code: Path, weights: Path):
    name = f"{code}:build"
    models = [
        load_model(text, model_from=name)
        for text in (f"own:{name},{weights}", f"{name},{weights}", str(weights))
    ]
    assert len({model.fingerprint for model in models}) == 1
    assert len({model.name for model in models}) == 1
    own = load_model(name, model_from=name)
    assert own.name == f"own:{name}"
    assert own.fingerprint not in {model.fingerprint for model in models}
    assert own.fingerprint == load_model(f"own:{name}", model_from=Path(name)).fingerprint


def test_an_id_is_read_without_its_code(tmp_path: Path):
    model_id = parse_model_id("net.py:build,w.pt")
    assert (model_id.family, model_id.name, model_id.file) == ("own", "net.py:build", "w.pt")
    assert str(model_id) == "own:net.py:build,w.pt"
    resolved = str(parse_model_id("own:a/net.py:build").resolve(tmp_path))
    assert resolved == f"own:{tmp_path}/a/net.py:build"


@pytest.mark.parametrize("form", ["own:{}", "{}", "own:{},{weights}"])
@pytest.mark.parametrize("other", [None, "bare", "copy"])
def test_no_id_runs_code_that_the_user_does_not_name(
    code: Path, weights: Path, tmp_path: Path, form: str, other: str | None
):
    given = {None: None, "bare": f"{code}:bare", "copy": f"{write_code(tmp_path / 'copy')}:build"}[
        other
    ]
    with pytest.raises(
        ValueError, match=r"runs code of .*net\.py: add --model-from .*net\.py:b"
    ) as (error):
        load_model(form.format(f"{code}:build", weights=weights), model_from=given)
    assert "\n" not in str(error.value)
    assert not has_run(code)


def test_averaged_weights_can_be_chosen(tmp_path: Path, code: Path):
    states = {"state_dict": Twin(1).state_dict(), "state_dict_ema": Twin(2).state_dict()}
    torch.save(states, tmp_path / "w.pt")
    for kind, seed in (("plain", 1), ("ema", 2)):
        model = load_model(str(tmp_path / "w.pt"), model_from=f"{code}:build", weights=kind)
        with torch.inference_mode():
            assert torch.allclose(logits(model, images()), Twin(seed)(images()), atol=1e-6)


def test_weights_of_another_network_name_the_prefix_of_the_file(tmp_path: Path, code: Path):
    path = write_weights(tmp_path / "w.pt", prefix="tower.")
    with pytest.raises(ValueError, match=r"own:.*net\.py:bare,.*all names .* start with 'tower\.'"):
        load_model(str(path), model_from=f"{code}:bare")


def test_a_file_of_weights_may_be_of_several_functions(code: Path, weights: Path):
    both = [f"{code}:build", f"{code}:bare"]
    with pytest.raises(ValueError, match=r"give .*net\.py:build,.*w\.pt or .*net\.py:bare,.*w\.pt"):
        load_model(str(weights), model_from=both)
    assert load_model(f"{code}:bare,{weights}", model_from=both).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import nothing_of_this_name", "cannot be imported .ModuleNotFoundError"),
        ("def build(:", "cannot be imported .SyntaxError"),
        ("import sys; sys.exit('x')", "cannot be imported .SystemExit: x"),
        ("def make(): ...", "has no function 'build', but make"),
        ("build = 3", "has no function 'build', but none"),
        ("def build(width, *, depth, size=3): ...", "takes the arguments width, depth: give a"),
        ("def build(): raise KeyError('a\\nb')", "build failed .KeyError: 'a"),
        ("def build(): return 3", "returned a int: return a torch.nn.Module, or an ear"),
        (
            "from torch import nn\ndef build(): return nn.Linear(3, 3)",
            "does not read images of 224 by 224 pixels .* give Classifier.from_module the transf",
        ),
    ],
)
def test_what_is_wrong_with_the_code_is_one_line(tmp_path: Path, text: str, complaint: str):
    path = write_code(tmp_path, text)
    with pytest.raises(ValueError, match=rf"net\.py.*{complaint}") as error:
        load_model(f"{path}:build", model_from=f"{path}:build")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["net.py", "net.txt:build", "net.py:", "net.py:a b", ":build"])
def test_what_is_no_function_of_a_file_is_refused(name: str):
    with pytest.raises(ValueError, match=r"must be FILE\.py:FUNCTION"):
        read_model_from(name)


def test_files_that_cannot_be_code(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"check the path of --model-from .*gone\.py:f"):
        read_model_from(f"{tmp_path}/gone.py:f")
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(ValueError, match="no regular file but a pipe"):
        read_model_from(f"{tmp_path}/pipe.py:f")
    (tmp_path / "a,b.py").touch()
    with pytest.raises(ValueError, match=r"'a,b\.py' has other characters .* rename the file"):
        read_model_from(f"{tmp_path}/a,b.py:f")


def test_naming_a_function_runs_nothing(code: Path):
    (own,) = read_model_from([f"{code}:build", Path(f"{code}:build")])
    assert str(own) == f"{code}:build"
    assert not has_run(code)


SIBLING = "from torch import nn\nlayers = [nn.Flatten(), nn.Linear(48, {})]\n"
BESIDE = """
from earmark import Classifier
from torch import nn
from {0} import layers

def picture(image):
    import torch
    return torch.ones(3, 4, 4)

def build():
    return Classifier.from_module(nn.Sequential(*layers), transform=picture)
"""


def test_code_imports_what_stands_beside_it(tmp_path: Path):
    """And not what bears its name beside another file."""
    for folder, classes in (("a", 3), ("b", 5)):
        write_code(tmp_path / folder, BESIDE.format("own_blocks"))
        (tmp_path / folder / "own_blocks.py").write_text(SIBLING.format(classes))
    before = [*sys.path]

    for folder, classes in (("a", 3), ("b", 5), ("a", 3)):
        name = f"{tmp_path / folder / 'net.py'}:build"
        assert len(load_model(name, model_from=name).classes) == classes

    assert sys.path == before
    assert "net" not in sys.modules


def test_compiled_code_beside_it_is_not_run(tmp_path: Path):
    """Such as that in ``__pycache__``, which Python would take without comparing the source."""
    folder, marker = tmp_path / "code", tmp_path / "marker"
    write_code(folder, BESIDE.format("own_blocks"))
    (folder / "own_blocks").mkdir()
    (folder / "own_blocks" / "__init__.py").write_text("from own_blocks.parts.deep import layers\n")
    (folder / "own_blocks" / "parts").mkdir()  # a package without a file of its own
    (folder / "own_blocks" / "parts" / "deep.py").write_text(SIBLING.format(3))
    hostile = compile(f"open({str(marker)!r}, 'w')", "hostile", "exec")
    unchecked = b"\1\0\0\0" + bytes(8)  # by a hash of the source, which is not compared
    compiled = importlib.util.MAGIC_NUMBER + unchecked + marshal.dumps(hostile)
    for source in folder.rglob("*.py"):
        cached = Path(importlib.util.cache_from_source(str(source)))
        cached.parent.mkdir(exist_ok=True)
        cached.write_bytes(compiled)
    sources = {*folder.rglob("*.pyc")}

    name = f"{folder / 'net.py'}:build"
    assert len(load_model(name, model_from=name).classes) == 3
    assert not marker.exists()
    assert {*folder.rglob("*.pyc")} == sources


@pytest.mark.parametrize("ending", [".pyc", ".so", f".{sys.implementation.cache_tag}.so"])
def test_only_sources_are_imported(tmp_path: Path, ending: str):
    write_code(tmp_path, BESIDE.format("own_blocks"))
    (tmp_path / f"own_blocks{ending}").write_bytes(b"compiled")

    with pytest.raises(ValueError, match="No module named 'own_blocks'"):
        load_model(f"{tmp_path / 'net.py'}:build", model_from=f"{tmp_path / 'net.py'}:build")


def test_folders_without_code_hide_no_package(tmp_path: Path):
    write_code(tmp_path, f"import colorsys, xml.dom\n{BESIDE.format('own_blocks')}")
    (tmp_path / "own_blocks.py").write_text(SIBLING.format(3))
    (tmp_path / "xml").mkdir()

    name = f"{tmp_path / 'net.py'}:build"
    assert len(load_model(name, model_from=name).classes) == 3


def test_loading_uses_no_random_numbers(code: Path, weights: Path):
    before = torch.get_rng_state()
    load_model(f"{code}:build", model_from=f"{code}:build")
    load_model(str(weights), model_from=f"{code}:build")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def saved(tmp_path: Path, code: Path, weights: Path) -> Path:
    load_model(str(weights), model_from=f"{code}:build").save(tmp_path / "saved.safetensors")
    has_run(code)
    return tmp_path / "saved.safetensors"


def test_what_is_saved_is_read_with_its_code(tmp_path: Path, saved: Path, code: Path):
    copy = write_code(tmp_path / "elsewhere")
    before = load_model(f"{code}:build,{tmp_path / 'w.pt'}", model_from=f"{code}:build")

    for place in (code, copy):
        after = load_model(str(saved), model_from=f"{place}:build")
        assert after.fingerprint == before.fingerprint
        assert torch.equal(after.head.weight, before.head.weight)
        assert (after.name, after.role, after.classes) == (before.name, before.role, CLASSES)
        assert torch.equal(logits(after, images()), logits(before, images()))
        assert torch.equal(
            after.transform(Image.new("RGB", (9, 9), "red")),
            before.transform(Image.new("RGB", (9, 9), "red")),
        )
    after.save(tmp_path / "again.safetensors")
    assert (
        load_classifier(
            tmp_path / "again.safetensors", codes=read_model_from(f"{copy}:build")
        ).fingerprint
        == before.fingerprint
    )


def test_a_saved_classifier_runs_no_code_by_itself(
    saved: Path, code: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(code.parent)
    for given in (None, "net.py:bare"):
        with pytest.raises(ValueError, match=r"add --model-from net\.py:build, with the path") as (
            error
        ):
            load_model(str(saved), model_from=given)
        assert "\n" not in str(error.value)
    code.write_text(code.read_text() + "\n")
    with pytest.raises(ValueError, match=r"The source changed: .*net\.py of SHA-256 [0-9a-f]{16}"):
        load_model(str(saved), model_from="net.py:build")
    assert not has_run(code)


def test_a_reference_alone_builds_nothing():
    with pytest.raises(ValueError, match=r"is built by its function alone: load the model with"):
        EncoderSpec("own", {"source": "net.py"}).build_encoder()


def test_a_batch_norm_without_its_count_is_loaded(tmp_path: Path, code: Path):
    state = Twin().state_dict()
    del state["body.norm.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pt")
    for function in ("build", "bare"):
        model = load_model(str(tmp_path / "w.pt"), model_from=f"{code}:{function}")
        with torch.inference_mode():
            assert torch.allclose(logits(model, images()), Twin()(images()), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": "x"}, "sha256"),
        ({"source": "../net.py"}, "source"),
        ({"source": "/etc/net.py"}, "source"),
        ({"function": "a.b"}, "function"),
        ({"module": "os"}, "has the key 'module'"),
        ({"source": None}, "source"),
    ],
)
def test_a_forged_reference_is_refused_first(
    saved: Path, code: Path, change: dict[str, Any], complaint: str
):
    with safe_open(saved, framework="pt") as file:
        description = json.loads(file.metadata()["earmark"])
    del description["seal"]
    description["blueprint"]["architecture"] |= change
    save_file(load_file(saved), saved, {"earmark": json.dumps(description)})

    with pytest.raises(ValueError, match=complaint):
        load_model(str(saved), model_from=f"{code}:build")
    assert not has_run(code)


def test_shapes_and_seals_hold_as_for_others(saved: Path, code: Path):
    with safe_open(saved, framework="pt") as file:
        text = file.metadata()["earmark"]
    tensors = load_file(saved)
    unsealed = json.loads(text)
    del unsealed["seal"]
    wide = tensors | {"head.weight": torch.zeros(3, 25)}
    save_file(wide, saved, {"earmark": json.dumps(unsealed)})
    with pytest.raises(ValueError, match=r"head has shape \(3, 25\) for 24 features"):
        load_model(str(saved), model_from=f"{code}:build")
    key = "encoder.module.body.conv.weight"
    save_file(tensors | {key: torch.zeros(7, 3, 3, 3)}, saved, {"earmark": json.dumps(unsealed)})
    with pytest.raises(ValueError, match=r"body\.conv\.weight should have shape \(6, 3, 3, 3\)"):
        load_model(str(saved), model_from=f"{code}:build")
    save_file(tensors | {"head.bias": torch.ones(3)}, saved, {"earmark": text})
    with pytest.raises(ValueError, match="is damaged"):
        load_model(str(saved), model_from=f"{code}:build")


def test_a_transform_that_the_function_does_not_make_is_not_saved(tmp_path: Path, code: Path):
    model = load_model(f"{code}:build", model_from=f"{code}:build")
    with pytest.raises(ValueError, match=r"its transform is not that of .*net\.py:build"):
        replace(model, transform=torch.nn.Flatten()).save(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"its encoder is not that of .*net\.py:build"):
        replace(model, encoder=torch.nn.Flatten()).save(tmp_path / "x.safetensors")


def test_a_classifier_without_code_says_how_it_can_be_saved(tmp_path: Path):
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    model = Classifier.from_module(torch.nn.Sequential(net, torch.nn.Linear(12, 2)))
    with pytest.raises(ValueError, match=r"load_model\(WEIGHTS, model_from='FILE.py:FUNCTION'\)"):
        model.save(tmp_path / "x.safetensors")


def test_the_fingerprint_follows_the_code(tmp_path: Path, weights: Path):
    fingerprints = {
        load_model(
            str(weights), model_from=f"{write_code(tmp_path / folder, text)}:build"
        ).fingerprint
        for folder, text in (("a", CODE), ("b", CODE), ("c", f"{CODE}# changed\n"))
    }
    assert len(fingerprints) == 2


def test_own_modules_are_averaged(tmp_path: Path, code: Path):
    name = f"{code}:build"
    first, second = (
        load_model(str(write_weights(tmp_path / f"{seed}.pt", seed=seed)), model_from=name)
        for seed in (1, 2)
    )
    middle = interpolate_classifiers(first, second, 0.25)

    truth = Twin(1)
    with torch.no_grad():
        for one, other in zip(truth.parameters(), Twin(2).parameters(), strict=True):
            one.lerp_(other, 0.25)
        norm = truth.body.norm
        norm.running_mean.lerp_(Twin(2).body.norm.running_mean, 0.25)
        norm.running_var.lerp_(Twin(2).body.norm.running_var, 0.25)
        expected = truth(images())
    assert torch.allclose(logits(middle, images()), expected, atol=1e-5)
    middle.save(tmp_path / "middle.safetensors")
    again = load_model(str(tmp_path / "middle.safetensors"), model_from=name)
    assert again.fingerprint == middle.fingerprint


def test_its_untrained_control_has_other_weights(code: Path, weights: Path):
    model = load_model(str(weights), model_from=f"{code}:build")
    control, again = reinitialize(model), reinitialize(model)
    for key, value in model.encoder.state_dict().items():
        drawn = control.encoder.state_dict()[key]
        if key.endswith("conv.weight"):
            assert not torch.equal(drawn, value)
            assert drawn.abs().max() <= 27**-0.5  # as torch initializes a convolution
        if key.endswith("running_mean"):
            assert not drawn.any()
        assert torch.equal(drawn, again.encoder.state_dict()[key])
    assert reinitialize(model, seed=1).fingerprint != control.fingerprint


PRETRAINED = f"""{CODE}
class Token(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.token = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x):
        return self.net(x + self.token)


def token():
    return Classifier.from_module(Token(), transform=picture)
"""


def test_weights_that_no_module_draws_are_named(tmp_path: Path):
    name = f"{write_code(tmp_path, PRETRAINED)}:token"
    model = load_model(name, model_from=name)
    with pytest.raises(ValueError, match=r"no untrained control: 1 weights \(token\)") as error:
        reinitialize(model)
    assert "\n" not in str(error.value)


ZERO = f"""{CODE}
def zero():
    net = Net()
    nn.init.zeros_(net.fc.weight)
    return Classifier.from_module(net, transform=picture)
"""


def test_a_head_of_zeros_is_refused_unless_weights_replace_it(tmp_path: Path, weights: Path):
    name = f"{write_code(tmp_path, ZERO)}:zero"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(f"{name},{weights}", model_from=name).head.weight.any()
        with pytest.raises(ValueError, match="All 3 rows of the head"):
            load_model(name, model_from=name)


TWO = f"""{CODE}
class Distilled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.one, self.two = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        h = self.body(x)
        return (self.one(h) + self.two(h)) / 2


def pair():
    return Classifier.from_module(Distilled(), transform=picture)


def apart():
    net = Net()
    net.fc = nn.Identity()
    return Classifier.from_module(net, head=torch.eye(3, 24), transform=picture)


class Conv(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(24, 3, 1)

    def forward(self, x):
        return self.fc(self.pool(self.body(x))[:, :, None, None]).flatten(1)


def conv():
    return Classifier.from_module(Conv(), transform=picture)
"""


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    return write_code(tmp_path / "heads", TWO)


def test_weights_for_two_heads_need_the_module_itself(tmp_path: Path, heads: Path):
    torch.save({"one.weight": torch.ones(3, 12)}, tmp_path / "w.pt")
    with (
        pytest.warns(UserWarning, match="averages the logits of two heads"),
        pytest.raises(ValueError, match=r"averages two heads: return the torch\.nn\.Module"),
    ):
        load_model(str(tmp_path / "w.pt"), model_from=f"{heads}:pair")


def test_a_head_apart_stays_the_functions(tmp_path: Path, heads: Path):
    state = {key: part for key, part in Twin().state_dict().items() if key[:2] != "fc"}
    torch.save(state, tmp_path / "w.pt")
    model = load_model(str(tmp_path / "w.pt"), model_from=f"{heads}:apart")
    assert torch.equal(model.head.weight, torch.eye(3, 24))
    assert torch.equal(
        model.encoder.state_dict()["module.body.conv.weight"], state["body.conv.weight"]
    )


def test_a_head_may_be_a_convolution(tmp_path: Path, heads: Path):
    state = Twin().state_dict()
    shaped = state | {"fc.weight": state["fc.weight"][:, :, None, None]}
    torch.save(shaped, tmp_path / "w.pt")
    model = load_model(str(tmp_path / "w.pt"), model_from=f"{heads}:conv")
    with torch.inference_mode():
        assert torch.allclose(logits(model, images()), Twin()(images()), atol=1e-6)


def test_a_file_that_changes_between_naming_and_running_is_not_run(code: Path):
    (own,) = read_model_from(f"{code}:build")
    code.write_text(f"{CODE}# another\n")
    with pytest.raises(ValueError, match=r"net\.py was changed while earmark ran"):
        load_model(f"{code}:build", model_from=own)
    assert not has_run(code)


def test_another_process_takes_the_function_with_its_hash(code: Path):
    (own,) = read_model_from(f"{code}:build")
    sent = pickle.loads(pickle.dumps(own.resolve()))  # noqa: S301
    assert not has_run(code)
    first, second = (load_model(f"{code}:build", model_from=one) for one in (own, sent))
    assert first.fingerprint == second.fingerprint


def test_an_architecture_and_code_exclude_each_other(code: Path, weights: Path):
    name = f"{code}:build"
    with pytest.raises(ValueError, match=r"both say what .*w\.pt is: give one of them"):
        load_model(str(weights), architecture="timm:test_vit", model_from=name)
    assert load_model(str(weights), architecture=name, model_from=name).classes == CLASSES


def test_workers_preprocess_with_the_users_transform(tmp_path: Path, code: Path):
    model = load_model(f"{code}:build", model_from=f"{code}:build")
    folder = read_folder_for_head(write_images(tmp_path / "images"), name="x", classes=CLASSES)
    (batch,) = load_batches(model.transform, folder, [range(4)], 4, workers=1, device="cpu")
    expected = torch.stack([model.transform(folder.open(image)) for image in range(4)])
    assert torch.equal(batch.pixels, expected)


def test_a_scan_takes_own_code(tmp_path: Path, code: Path, weights: Path):
    data = write_images(tmp_path / "images")
    result = earmark.scan(weights, data, model_from=f"{code}:build", out=tmp_path / "out")
    right = 0
    for path in sorted(data.glob("*/*.png")):
        pixels = load_model(f"{code}:build", model_from=f"{code}:build").transform(Image.open(path))
        with torch.inference_mode():
            right += CLASSES[int(Twin()(pixels[None]).argmax())] == path.parent.name
    (accuracy,) = result.records.select(quantity="accuracy")
    assert (accuracy.value, accuracy.n) == (right / 12, 12)
    assert result.role == "supervised"
    assert result.report().is_file()

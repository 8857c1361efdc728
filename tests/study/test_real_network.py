"""A network with its true ImageNet weights, on photographs: scanned, pruned and averaged.

What earmark measures equals plain numpy on the logits and features of timm alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.real_network import (
    ARCHITECTURE,
    PHOTOGRAPHS,
    original_weights,
    write_photographs,
    write_weights,
)
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import earmark.models._torchvision_compat  # noqa: F401 # before timm
from earmark import cli, scan
from earmark.data.registry import imagenet_wnids
from earmark.models.factory import load_model
from earmark.records import Records

WNIDS = imagenet_wnids()


def run(*arguments: object) -> Any:
    """The answer of a command, as its JSON."""
    texts = [*map(str, arguments), "--json"]
    result = CliRunner().invoke(cli.app, texts, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@dataclass(frozen=True)
class Scanned:
    """What a scan gives, and what timm gives for the same photographs, in sorted order."""

    folder: Path
    model: str
    records: Records
    files: Sequence[Path]
    features: NDArray[np.float64]
    logits: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Place of each photograph's class in the head."""
        return np.array([WNIDS.index(file.parent.name) for file in self.files])

    def values(self, quantity: str, **fields: object) -> NDArray[np.float64]:
        """Values of a quantity, by their coordinate."""
        found = self.records.select(quantity=quantity, **{"variant": "", **fields})
        return np.array([r.value for r in sorted(found, key=lambda r: r.coordinate or 0.0)])


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    import timm
    from timm.data import create_transform, resolve_model_data_config

    folder = tmp_path_factory.mktemp("real")
    model = write_weights(folder / "lite0.pth")
    write_photographs(folder / "photographs")
    result = scan(model, folder / "photographs")
    network = timm.create_model(ARCHITECTURE).eval()
    network.load_state_dict(torch.load(folder / "lite0.pth", weights_only=True))
    transform: Any = create_transform(**resolve_model_data_config(network))
    files = sorted((folder / "photographs").glob("*/*"))
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(file).convert("RGB")) for file in files])
        features = network.forward_head(network.forward_features(images), pre_logits=True)
        logits = network.classifier(features)
    head = network.classifier
    arrays = (features, logits, head.weight.detach(), head.bias.detach())
    numbers = (array.double().numpy() for array in arrays)
    return Scanned(folder, model, result.records, files, *numbers)


def test_the_weights_are_timms_in_order_and_shape():
    import timm

    theirs, ours = original_weights(), timm.create_model(ARCHITECTURE).state_dict()

    assert len(theirs) == len(ours) == 296
    assert [value.shape for value in theirs.values()] == [value.shape for value in ours.values()]


def test_it_names_what_the_photographs_show(scanned: Scanned):
    model = load_model(scanned.model)
    for file in scanned.files:
        with torch.inference_mode():
            activations = model.encoder(model.transform(Image.open(file))[None])
        named = model.classes[int(model.head.logits(activations).argmax())]
        assert named in PHOTOGRAPHS[file.name][2], file.name


def test_the_preprocessing_is_the_networks_own(scanned: Scanned):
    """TensorFlow's weights read pixels from -1 to 1."""
    assert {record.preprocessing for record in scanned.records} == {
        "resized to a shorter side of 256 (bicubic), cropped to the central 224 x 224, "
        "mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    }


def test_accuracy_is_that_of_timm(scanned: Scanned):
    correct = scanned.logits.argmax(axis=1) == scanned.labels
    assert scanned.values("accuracy") == pytest.approx([correct.mean()])
    assert correct.sum() >= 6


def test_kurtosis_equals_numpy(scanned: Scanned):
    h = scanned.features
    centered = h - h.mean(axis=1, keepdims=True)
    kurtosis = (centered**4).mean(axis=1) / (centered**2).mean(axis=1) ** 2
    assert scanned.values("activation_kurtosis") == pytest.approx([kurtosis.mean()], rel=1e-4)


def test_importance_and_rank_equal_numpy(scanned: Scanned):
    """Eq. 4, and as many directions as the head of 1,000 classes has."""
    _, sigma, right = np.linalg.svd(scanned.weight, full_matrices=False)
    cosines = scanned.features @ right.T / np.linalg.norm(scanned.features, axis=1, keepdims=True)
    importance = sigma / sigma.sum() * np.abs(cosines).mean(axis=0)

    assert np.linalg.matrix_rank(scanned.weight) == len(sigma) == 1000
    np.testing.assert_allclose(scanned.values("singular_value"), sigma, rtol=1e-6)
    np.testing.assert_allclose(scanned.values("importance"), importance, rtol=2e-3, atol=1e-9)
    ratio = importance.max() / (importance.sum() / scanned.features.shape[1])
    assert scanned.values("importance_ratio") == pytest.approx([ratio], rel=1e-4)


def test_pruning_equals_numpy(scanned: Scanned):
    left, sigma, right = np.linalg.svd(scanned.weight, full_matrices=False)
    projected, accuracy = scanned.features @ right.T, []
    records = scanned.records.select(quantity="pruned_accuracy", variant="singular")
    for record in records:
        kept = 1000 - round((record.coordinate or 0.0) * 1000)
        logits = projected[:, :kept] * sigma[:kept] @ left[:, :kept].T + scanned.bias
        accuracy.append((logits.argmax(axis=1) == scanned.labels).mean())

    assert len(records) > 10
    assert [record.value for record in records] == pytest.approx(accuracy)
    assert min(accuracy) < max(accuracy)


def test_its_checkpoint_is_pruned_saved_read_and_averaged(scanned: Scanned):
    """A head of one fifth of the directions, and the mean of it and the whole one."""
    pruned = scanned.folder / "pruned"
    answer = run("prune", scanned.model, "--keep", 0.2, "--out", pruned)
    assert (answer["kept"], answer["rank"]) == (200, 1000)
    left, sigma, right = np.linalg.svd(scanned.weight, full_matrices=False)
    head = left[:, :200] * sigma[:200] @ right[:200]

    file = pruned / "model.safetensors"
    read = load_model(str(file))
    np.testing.assert_allclose(read.head.weight, head, atol=1e-5)
    image = read.transform(Image.open(scanned.files[0]))
    with torch.inference_mode():
        features = read.encoder(image[None])
    np.testing.assert_allclose(features[0], scanned.features[0], atol=1e-4)

    run("interpolate", scanned.model, file, "--out", scanned.folder / "between")
    (between,) = (scanned.folder / "between").rglob("*.safetensors")
    mean = load_model(str(between))
    np.testing.assert_allclose(mean.head.weight, (head + scanned.weight) / 2, atol=1e-5)
    for name, value in mean.encoder.state_dict().items():
        torch.testing.assert_close(value, read.encoder.state_dict()[name])

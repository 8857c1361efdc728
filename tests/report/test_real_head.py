"""A real zero-shot head of CLIP, from its weights to what the page says of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.imagenet_trees import WNIDS
from PIL import Image
from torch import nn

from earmark.models.classifier import Classifier, Head
from earmark.models.preprocessing import Preprocessing
from earmark.records import Record, select
from earmark.report.results_grid import ResultsGrid
from earmark.report.tables.special import directions_table
from earmark.study.eval_sets import find_eval_sets
from earmark.study.measure import measure_model

REAL_HEAD = Path(__file__).parents[1] / "data" / "clip_vit_b32_datacomp_head.npy"
SIDE = 4


class Leaning(nn.Module):
    """Activations about the mean class embedding, as those of CLIP are."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(weight.mean(dim=0))
        self.map = nn.Linear(3 * SIDE * SIDE, weight.shape[1], bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Activations of shape (image, feature)."""
        return 20 * self.mean + 0.1 * self.map(images.flatten(1))


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Classifier]:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for image in range(40):
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.png")
    weight = torch.from_numpy(np.load(REAL_HEAD).T.copy())
    torch.manual_seed(0)
    model = Classifier(
        name="real",
        role="zero-shot",
        encoder=Leaning(weight).eval(),
        head=Head(weight),
        classes=tuple(WNIDS),
        transform=Preprocessing(None, None, (0.5,) * 3, (0.25,) * 3),
        backbone="ViT-B-32",
        pretraining="DataComp",
    )
    sets = find_eval_sets(model, folder)
    return measure_model(model, sets, (), tmp_path_factory.mktemp("store")), model


def test_the_page_says_what_v1_is_and_what_its_removal_flips(
    scanned: tuple[list[Record], Classifier],
):
    records, model = scanned
    table = directions_table(ResultsGrid.from_records(records))
    assert table
    said = {labels[-1]: cells[0] for labels, cells in table.rows}

    v1 = select(records, quantity="importance", variant="", coordinate=0.0)[0].value
    assert v1 == max(r.value for r in select(records, quantity="importance", variant=""))
    percent = "\N{NO-BREAK SPACE}%"
    assert said["Class-constant part of the largest"].text == f"99.4{percent}"
    assert said["Part of it that can change a decision"].text == f"0.6{percent}"

    flips = said["Predictions that change without the largest"]
    weight, h = model.head.weight.double().numpy(), activations(model)
    u, sigma, v = np.linalg.svd(weight, full_matrices=False)
    before = (h @ weight.T).argmax(axis=1)
    after = (h @ (weight - sigma[0] * np.outer(u[:, 0], v[0])).T).argmax(axis=1)
    assert flips.raw[""] == pytest.approx((before != after).mean())
    assert flips.raw[""] > 0
    assert " to " in flips.small


def activations(model: Classifier) -> np.ndarray:
    """Of the same images, without earmark's store."""
    random = np.random.default_rng(0)
    pixels = [random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(40)]
    shown = torch.stack([model.transform(Image.fromarray(one)) for one in pixels])
    with torch.no_grad():
        return model.encoder(shown).double().numpy()

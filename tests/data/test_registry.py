"""Datasets that ship, and those that other packages add."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers.known_subsets import IMAGENETTE
from PIL import Image

from earmark.data import accuracy_tables, imagenet, registry
from earmark.data.registry import DatasetInfo
from earmark.data.validation import check_datasets

WNIDS = registry.imagenet_wnids()
SHIPPED = list(registry.DATASETS)
Install = Callable[[str, str], Mapping[str, DatasetInfo]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package of one module that adds a dataset; returns the new registry."""

    def install(name: str, code: str) -> Mapping[str, DatasetInfo]:
        folder = tmp_path / "site"
        info = folder / f"{name}_data-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-data\n")
        (info / "entry_points.txt").write_text(f"[earmark.datasets]\nx = {name}:DATASET\n")
        (folder / f"{name}.py").write_text(
            f"from earmark.data.registry import DatasetInfo\nDATASET = {code}\n"
        )
        monkeypatch.syspath_prepend(folder)
        datasets = type(registry.DATASETS)()
        for module in (registry, imagenet):
            monkeypatch.setattr(module, "DATASETS", datasets)
        return datasets

    return install


def test_ids_titles_and_columns_are_unique():
    datasets = registry.DATASETS
    columns = [column for dataset in datasets.values() for column in dataset.columns]

    assert [dataset.id for dataset in datasets.values()] == list(datasets)
    assert len({dataset.title for dataset in datasets.values()}) == len(datasets)
    assert len({dataset.short_title for dataset in datasets.values()}) == len(datasets)
    assert len(set(columns)) == len(columns)


def test_the_papers_shifts_have_a_column_and_variants_that_exist():
    for shift in registry.PAPER_SHIFTS:
        assert registry.DATASETS[shift].columns
        assert all(name in registry.DATASETS for name in registry.dataset_variants(shift))
    v2 = registry.dataset_variants(registry.PAPER_SHIFTS[0])
    variants = [registry.DATASETS[name].variant for name in v2]
    assert variants == ["matched-frequency", "threshold-0.7", "top-images"]


def test_columns_for_the_help():
    assert accuracy_tables.COLUMN_HELP == (
        "model, pretrained (optional), imagenet, imagenetv2 (matched-frequency; or "
        "imagenetv2_threshold_0.7), imagenet_r, imagenet_sketch, objectnet, imagenet_a"
    )
    assert accuracy_tables.V2_VARIANTS == ("matched-frequency", "threshold-0.7")


def test_a_package_adds_a_dataset(tmp_path: Path, install: Install):
    datasets = install(
        "good", f'DatasetInfo("tiny", "Tiny", "T", ("tiny",), 6, class_set={WNIDS[5:2:-1]!r})'
    )
    data = tmp_path / "data"
    for wnid in WNIDS[3:6]:
        (data / "tiny" / wnid).mkdir(parents=True)
        for image in range(2):
            pixels = np.zeros((8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(data / "tiny" / wnid / f"{image}.png")

    images = imagenet.read_dataset(data, "tiny", classes=WNIDS)

    assert list(datasets) == [*SHIPPED, "tiny"]
    assert imagenet.available_datasets(data) == ("tiny",)
    assert images.classes == WNIDS[3:6]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.class_to_label is not None
    assert images.class_to_label[:7] == (-1, -1, -1, 0, 1, 2, -1)
    (report,) = check_datasets(data)
    assert (report.name, report.issues) == ("tiny", ())


@pytest.mark.parametrize(
    ("name", "code", "error"),
    [
        ("fails", "1 / 0", "division by zero"),
        ("other", "5", "5 is not a DatasetInfo"),
        ("twice", 'DatasetInfo("objectnet", "R", "R", ("r",), 5)', "the id 'objectnet' is taken"),
        ("empty", 'DatasetInfo("x", "X", "X", (), 5)', "needs an id, a folder"),
        ("cats", 'DatasetInfo("x", "X", "X", ("x",), 5, class_set=("cat",))', "'cat' is not a"),
        ("nolist", 'DatasetInfo("x", "X", "X", ("x",), 5, class_set="y")', "y_wnids.txt"),
    ],
)
def test_a_bad_package_is_named(name: str, code: str, error: str, install: Install):
    datasets = install(name, code)

    assert datasets["imagenet"].title == "ImageNet"  # other packages are not loaded for it
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{name}-data \(earmark.datasets: x\).*{error}"):
            list(datasets)
    with pytest.raises(ValueError, match=f"{name}-data"):
        datasets["unknown"]


def test_known_subsets_are_those_of_others():
    """Of torchvision, and for ImageNet-100 that of the count of its validation images."""
    subsets = registry.SUBSETS

    assert subsets["imagenette2-val"].class_ids == IMAGENETTE
    assert [*subsets] == [dataset.id for dataset in subsets.values()]
    for name, dataset in subsets.items():
        assert {*dataset.class_ids} < {*WNIDS}
        assert list(dataset.class_ids) == sorted({*dataset.class_ids})
        assert dataset.title not in {other.title for other in registry.DATASETS.values()}
        assert name not in registry.DATASETS
    for split in (("imagenet-100", 50), ("imagenette", 50), ("imagewoof", 50)):
        validation = subsets[f"{split[0]}-val"]
        assert validation.n_images == split[1] * len(validation.class_ids)
    for name in ("imagenette", "imagewoof"):  # the second version divides the same images
        first, second = (
            sum(subsets[f"{name}{version}-{split}"].n_images for split in ("train", "val"))
            for version in ("", "2")
        )
        assert first == second

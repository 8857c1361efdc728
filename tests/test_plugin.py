"""The example plug-in, installed as pip would, and plug-ins that are wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy

import numpy as np
import pytest
import torch
from helpers.encoding_fakes import ToTensor, make_images
from torch import nn

import earmark
from earmark import Classifier, Record, read_records, scan
from earmark.quantities import all_quantities, plugin_measurements
from earmark.records import write_records

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
NAME = "earmark_sparsity:hoyer"
Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a module as a distribution with one entry point."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)

    def write(source: str, name: str = "earmark_sparsity") -> None:
        folder.mkdir(exist_ok=True)
        if source:
            (folder / f"{name}.py").write_text(source, encoding="utf-8")
        else:
            copy(EXAMPLE / f"{name}.py", folder)
        info = folder / f"{name}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
        entry = f"[earmark.signatures]\nsparsity = {name}:SPARSITY\n"
        (info / "entry_points.txt").write_text(entry)
        plugin_measurements.cache_clear()
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)

    yield write
    plugin_measurements.cache_clear()


def model() -> Classifier:
    torch.manual_seed(0)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(27, 4))
    return Classifier.from_module(module, transform=ToTensor(), name="mine")


def test_the_example_is_short_and_declares_its_entry_point():
    lines = sum(
        len((EXAMPLE / name).read_text().splitlines())
        for name in ("earmark_sparsity.py", "pyproject.toml")
    )

    assert lines < 60
    assert 'sparsity = "earmark_sparsity:SPARSITY"' in (EXAMPLE / "pyproject.toml").read_text()


def test_a_plugins_quantity_is_measured_and_shown_everywhere(install: Install, tmp_path: Path):
    install("")
    images = make_images(tmp_path / "images", 12)

    result = scan(model(), images.root, out=tmp_path / "scan")

    (record,) = result.records.select(quantity=NAME)
    h = earmark.encode(model(), images).tensor().double().numpy()
    ratio = np.abs(h).sum(axis=1) / np.linalg.norm(h, axis=1)
    root = np.sqrt(h.shape[1])
    assert record.value == pytest.approx(((root - ratio) / (root - 1)).mean(), rel=1e-9)
    assert record.low < record.value < record.high
    assert read_records(tmp_path / "scan") == result.records
    assert [row.section for row in result.summary if row.title == "images"][-1] == "Sparsity"
    assert "Hoyer sparsity" in str(result.table("P1").to_pandas().to_dict())


def test_a_plugins_quantity_is_audited(install: Install, tmp_path: Path):
    install("")
    random = np.random.default_rng(0)
    records = []
    for number in range(8):
        fields = (f"m{number}", f"B{number}", "P", "zero-shot")
        er, sparsity, accuracy = random.uniform(0.1, 0.9, 3)
        records += [
            Record(*fields, "effective_robustness", er, "shifts", baseline="paper"),
            Record(*fields, "accuracy", accuracy, "imagenet"),
            Record(*fields, NAME, sparsity, "imagenet"),
        ]
    write_records(tmp_path / "records.parquet", records)

    audit = earmark.Study(tmp_path).audit()

    assert NAME in {signature.key for signature in audit.signatures}


PLUGIN = """
from earmark import Measurement, Quantity
def measure(context):
    {body}
QUANTITY = Quantity("{name}", "Q", "S", "A quantity.")
SPARSITY = {value}
"""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"body": "raise RuntimeError('no\\nluck')"}, r"broken \(.*\) failed \(RuntimeError: no"),
        (
            {"body": "return [context.row(quantity='accuracy', value=1.0)]"},
            r"broken \(.*\) returned 'accuracy', but declares broken:q",
        ),
        ({"body": "return [1.0]"}, r"broken \(.*\) returned 'float'"),
        ({"name": "q"}, r"broken \(.*\) names a quantity 'q': name it"),
        ({"value": "1"}, r"broken \(.*\) is a int: give a Measurement"),
        ({"value": "1 / 0"}, r"broken \(.*\) cannot be loaded \(ZeroDivisionError"),
    ],
)
def test_a_plugin_that_is_wrong_is_named(
    install: Install, tmp_path: Path, fields: dict[str, str], message: str
):
    value = "Measurement((QUANTITY,), needs='images', measure=measure)"
    source = PLUGIN.format(**{"body": "return []", "name": "broken:q", "value": value} | fields)
    install(source, "broken")
    images = make_images(tmp_path / "images", 3)

    with pytest.raises(ValueError, match=message):
        scan(model(), images.root)


def test_without_plugins_the_registry_is_earmarks_own():
    plugin_measurements.cache_clear()

    assert not [name for name in all_quantities() if ":" in name]

"""The public API, from a model and a folder to records, tables and figures."""

import json
from pathlib import Path

import pytest
import torch
from helpers.encoding_fakes import ToTensor, write_image
from torch import nn

import earmark
from earmark import Classifier, ScanResult, Study, encode, read_dataset, read_records, scan
from earmark.activations import EncodeConfig
from earmark.api import figure_id
from earmark.report.exhibits import EXHIBITS
from earmark.study.scan import ScanConfig, scan_model

CLASSES = ("cat", "dog", "fox")


def model() -> Classifier:
    torch.manual_seed(1)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    return Classifier.from_module(
        module, transform=ToTensor(), class_names=CLASSES, name="mine", role="zero-shot"
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for seed in range(24):
        for part in ("id", "dark"):
            folder = root / part / CLASSES[seed % 3]
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{seed}.png", seed=seed + 100 * (part == "dark"))
    return root


@pytest.fixture(scope="module")
def result(photos: Path) -> ScanResult:
    out = photos / "out"
    return scan(model(), photos / "id", out=out, shifts={"dark": photos / "dark"}, baseline="paper")


def test_a_scan_is_the_commands(result: ScanResult, photos: Path, tmp_path: Path):
    config = ScanConfig(
        model(),
        photos / "id",
        tmp_path,
        shifts={"dark": photos / "dark"},
        baseline=earmark.PAPER_BASELINE,
        encoding=EncodeConfig(batch_size=32),
    )

    assert scan_model(config).records == result.records
    assert read_records(result.folder) == read_records(result.folder / "records.parquet")
    assert read_records(result.folder) == result.records


def test_a_scan_takes_a_baseline_for_own_shifts(result: ScanResult, photos: Path, tmp_path: Path):
    (robustness,) = result.records.select(quantity="effective_robustness")
    accuracy = {
        r.dataset: r.value
        for r in result.records.select(quantity="accuracy", variant="", model="mine")
    }
    expected = earmark.effective_robustness(accuracy["id"], accuracy["dark"])
    assert robustness.value == pytest.approx(expected, rel=1e-12)
    assert robustness.baseline == "paper"

    rows = "id_accuracy,shift_accuracy\n" + "\n".join(f"{x},{x - 0.1}" for x in (0.3, 0.5, 0.7))
    (tmp_path / "own.csv").write_text(rows)
    own = scan(
        model(), photos / "id", shifts={"dark": photos / "dark"}, baseline=str(tmp_path / "own.csv")
    )
    (robustness,) = own.records.select(quantity="effective_robustness")
    line = earmark.fit_baseline([0.3, 0.5, 0.7], [0.2, 0.4, 0.6])
    assert robustness.baseline == "own"
    assert robustness.value == pytest.approx(
        earmark.effective_robustness(accuracy["id"], accuracy["dark"], baseline=line), rel=1e-9
    )
    assert own.folder is None
    with pytest.raises(ValueError, match=r"report\(out=FOLDER\)"):
        own.report()


def test_results_show_themselves(result: ScanResult):
    assert repr(result).startswith("<ScanResult of mine (zero-shot): <Records: ")
    assert "Activation kurtosis" not in repr(result)
    assert "Outlier features" in repr(result.summary)
    assert result._repr_html_().startswith("<table>")
    assert "section" in result.summary.to_pandas().columns
    assert [need for name, need in result.missing if name.startswith("concepts")]


def test_a_folder_gives_tables_and_figures(result: ScanResult, tmp_path: Path):
    study = Study(result.folder)

    assert study.records == result.records
    assert repr(study).startswith("<Study '")
    kurtosis = study.table("2")
    assert repr(kurtosis).startswith("<Table 2: ")
    assert "<table>" in kurtosis._repr_html_()
    (expected,) = study.records.select(quantity="activation_kurtosis", variant="", dataset="id")
    numbers = kurtosis.to_pandas().select_dtypes("number").to_numpy().ravel().tolist()
    assert expected.value in numbers
    figure = study.figure("3")
    figure.save(tmp_path / "pruning.svg")
    assert (tmp_path / "pruning.svg").read_text().startswith("<svg")
    assert "<svg" in figure._repr_html_()
    with pytest.raises(ValueError, match=r"end it in \.svg"):
        figure.save(tmp_path / "pruning.gif")
    page = study.report()
    assert page.read_text(encoding="utf-8").count("Signatures of mine") >= 1


def test_what_is_not_there_is_named(result: ScanResult, tmp_path: Path):
    with pytest.raises(ValueError, match=r"No table 99: these records have tables 4, "):
        result.table("99")
    with pytest.raises(ValueError, match=r"No figure 5: these records have figures "):
        result.figure("5")
    with pytest.raises(FileNotFoundError, match="No records at"):
        Study(tmp_path)
    with pytest.raises(ValueError, match="needs data=FOLDER"):
        earmark.run_study("paper-v1", out=tmp_path)
    with pytest.raises(ValueError, match="effective robustness"):
        Study(
            scan(model(), read_dataset(result.folder.parent / "id").root, out=tmp_path / "s").folder
        ).audit()


def test_a_figures_number_names_it():
    for exhibit in EXHIBITS:
        word, number = exhibit.title.split()
        assert exhibit.id == (figure_id(number) if word == "Figure" else f"table-{number}")


def test_datasets_are_read_as_they_lie(photos: Path, tmp_path: Path):
    labeled = read_dataset(photos / "id")
    assert labeled.classes == CLASSES
    assert labeled.labels is not None
    assert labeled.name == "id"

    turned = read_dataset(photos / "id", classes=CLASSES[::-1], name="mine")
    assert [turned.classes[label] for label in turned.labels] == [
        file.partition("/")[0] for file in turned.files
    ]

    write_image(tmp_path / "1.png", seed=0)
    assert read_dataset(tmp_path).labels is None
    with pytest.raises(FileNotFoundError, match="images of imagenet-r are expected"):
        read_dataset(tmp_path, name="imagenet-r")


def test_activations_are_the_same_from_memory_and_cache(photos: Path, tmp_path: Path):
    images = read_dataset(photos / "id")

    fresh = encode(model(), images)
    stored = [encode(model(), images, cache=tmp_path / "cache") for _ in range(2)]

    assert fresh.tensor().shape == (24, 48)
    assert all(torch.equal(one.tensor(), fresh.tensor()) for one in stored)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_the_stub_lists_the_public_names():
    assert {"scan", "Study", "Classifier", "Quantity"} <= set(earmark.__all__)
    for name in earmark.__all__:
        assert getattr(earmark, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'scann'"):
        _ = earmark.scann


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[]", "all of it: "),
        ("{}", "model: "),
        ('{"model": 3}', "model: "),
        ('{"model": "m", "missing": {}}', "missing: "),
        ('{"model": "m", "missing": [{"quantity": "accuracy"}]}', "missing.0.needs: "),
        ('{"model": "m", "missing": [["accuracy", "labels"]]}', "missing.0: "),
        ('{"model": "m", "lacking": null}', "lacking: |missing: "),
        ('{"model": ' + "[" * 100_000, "all of it: "),
        ("\x00\x01", "all of it: "),
        ("", "all of it: "),
    ],
)
def test_a_scan_file_of_another_shape(result: ScanResult, tmp_path: Path, content: str, match: str):
    (tmp_path / "records.parquet").write_bytes((result.folder / "records.parquet").read_bytes())
    (tmp_path / "scan.json").write_text(content)

    with pytest.raises(
        ValueError, match=rf"scan\.json is not what a scan writes \(({match})"
    ) as error:
        Study(tmp_path).report()

    assert "\n" not in str(error.value)
    assert str(error.value).endswith("scan again, or remove the file.")


def test_what_an_earlier_scan_could_not_measure_is_told(result: ScanResult, tmp_path: Path):
    (tmp_path / "records.parquet").write_bytes((result.folder / "records.parquet").read_bytes())
    content = {"model": "mine", "lacking": [{"quantity": "accuracy", "needs": "labels"}]}
    (tmp_path / "scan.json").write_text(json.dumps(content))

    page = Study(tmp_path).report().read_text(encoding="utf-8")

    assert "Accuracy: needs labels." in page


def test_damaged_records_are_named_with_the_remedy(result: ScanResult, tmp_path: Path):
    content = bytearray((result.folder / "records.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "records.parquet").write_bytes(bytes(content))

    with pytest.raises(ValueError, match=r"records\.parquet is damaged: .* Run the scan or study"):
        Study(tmp_path)


def test_a_scan_does_not_take_the_folder_of_a_study(photos: Path, tmp_path: Path):
    (tmp_path / "pool.toml").write_text('name = "mine"\n')

    with pytest.raises(ValueError, match=r"holds the results of a study: give another folder"):
        scan(model(), photos / "id", out=tmp_path)

"""Public accuracies and users' results, and the effective robustness that follows."""

import csv
import io
import json
import math
import os
import warnings
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import PAPER_BASELINE, effective_robustness, fit_baseline
from earmark.data.accuracy_tables import (
    SHIFTS,
    ModelAccuracies,
    load_shipped_accuracies,
    read_accuracies,
    read_accuracy_files,
)
from earmark.data.model_names import has_imagenet_only
from earmark.study.robustness_table import (
    MATCHED_BASELINE,
    TIMM_BASELINE,
    V2_MATCHED_FREQUENCY,
    V2_THRESHOLD,
    RobustnessTable,
    caption,
    describe_incomplete,
    effective_robustness_table,
    filter_models,
    find_duplicates,
    get_baseline,
    save_table,
    sort_rows,
    table_as_json,
)

HEADER = "model,imagenet,imagenetv2,imagenet_r,imagenet_sketch,objectnet,imagenet_a"
ON = {
    "imagenet": 0.7,
    V2_MATCHED_FREQUENCY: 0.6,
    "imagenet_r": 0.5,
    "imagenet_sketch": 0.4,
    "objectnet": 0.3,
    "imagenet_a": 0.2,
}


def facts(name: str) -> list[dict[str, str]]:
    """A shipped CSV, read without earmark."""
    text = (resources.files("earmark") / "data" / "facts" / name).read_text()
    return list(csv.DictReader(text.splitlines()))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def model(name: str = "m", **changed: float) -> ModelAccuracies:
    return ModelAccuracies(name, "", "mine.csv", ON | changed)


# What ships


def test_shipped_models_are_those_of_the_files():
    openclip, testbed = facts("openclip_zeroshot.csv"), facts("testbed_baselines.csv")

    found = load_shipped_accuracies("openclip")
    assert [one.name for one in found] == [f"{r['model']},{r['pretrained']}" for r in openclip]
    assert [one.by_dataset["imagenet_a"] for one in found] == [
        float(r["imagenet_a"]) for r in openclip
    ]
    assert all(set(one.by_dataset) == set(ON) for one in found)

    found = load_shipped_accuracies("testbed")
    assert [one.name for one in found] == [row["model"] for row in testbed]
    assert [one.category for one in found] == [row["category"] for row in testbed]
    for v2, column in (
        (V2_THRESHOLD, "imagenetv2_threshold_0.7"),
        (V2_MATCHED_FREQUENCY, "imagenetv2_matched_frequency"),
    ):
        assert [one.by_dataset[v2] for one in found] == [float(row[column]) for row in testbed]
    assert sum(one.missing == ("imagenet_r",) for one in found) == 6
    assert sum(bool(one.missing) for one in found) == 6


# What users have

# The header of docs/openclip_results.csv in open_clip, as it is.
OPENCLIP_HEADER = (
    "name,pretrained,Average perf. on 38 datasets,ImageNet 1k,Caltech-101,CIFAR-10,"
    "CIFAR-100,CLEVR Counts,CLEVR Distance,Country211,Describable Textures,EuroSAT,"
    "FGVC Aircraft,Food-101,GTSRB,ImageNet Sketch,ImageNet v2,ImageNet-A,ImageNet-O,"
    "ImageNet-R,KITTI Vehicle Distance,MNIST,ObjectNet,Oxford Flowers-102,Oxford-IIIT Pet,"
    "Pascal VOC 2007,PatchCamelyon,Rendered SST2,RESISC45,Stanford Cars,STL-10,SUN397,SVHN,"
    "Flickr,MSCOCO,WinoGAViL,iWildCam,Camelyon17,FMoW,Dollar Street,GeoDE"
)
# And two of its rows. The average of the second is 030282.63... in the original, too.
OPENCLIP_ROWS = """\
ViT-B-16,openai,0.5626067910505228,0.6834,0.8901,0.9077,0.6695,0.2123,0.2231,0.2282,0.4495,\
0.5594,0.2421,0.8872,0.4339,0.4824,0.6188,0.4995,0.4230,0.7770,0.2644,0.5135,0.5531,0.6907,\
0.8886,0.7831,0.5072,0.6068,0.5822,0.6477,0.9825,0.6435,0.5190,0.7218,0.4275,0.4316,0.1099,\
0.6808,0.1888,0.5876,0.8614
ViT-g-14,laion2b_s34b_b88k,030282.6426775674661013,0.7847,0.9452,0.9815,0.8465,0.3768,0.1870,\
0.3091,0.6856,0.6530,0.4441,0.9241,0.4964,0.6754,0.7158,0.6092,0.3705,0.9020,0.2700,0.7191,\
0.6908,0.8010,0.9379,0.8166,0.5384,0.5678,0.6960,0.9394,0.9893,0.7411,0.5611,0.8456,0.5758,\
0.4104,0.1524,0.4771,0.2090,0.6671,0.9090
"""


def test_reads_open_clips_table_as_it_is(tmp_path: Path):
    path = written(tmp_path / "openclip_results.csv", f"{OPENCLIP_HEADER}\n{OPENCLIP_ROWS}")

    found = read_accuracies(path)

    shipped = {one.name: one.by_dataset for one in load_shipped_accuracies("openclip")}
    assert [one.name for one in found] == ["ViT-B-16,openai", "ViT-g-14,laion2b_s34b_b88k"]
    assert all(one.by_dataset == shipped[one.name] for one in found)
    assert found[0].source == str(path)


def result(folder: Path, dataset: str, acc1: float, **changed: object) -> None:
    """One JSON file, as CLIP_benchmark writes it."""
    content = {
        "dataset": dataset,
        "model": "ViT-B-16",
        "pretrained": "openai",
        "task": "zeroshot_classification",
        "metrics": {"acc1": acc1, "acc5": 0.9, "mean_per_class_recall": acc1},
        "language": "en",
    } | changed
    folder.mkdir(exist_ok=True, parents=True)
    name = f"{len(list(folder.glob('*.json')))}.json"
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("prefix", ["", "wds/"])
def test_reads_a_folder_of_clip_benchmark(tmp_path: Path, prefix: str):
    names = ["imagenet1k", "imagenetv2", "imagenet-r", "imagenet_sketch", "objectnet"]
    for name, accuracy in zip([*names, "imagenet-a"], ON.values(), strict=True):
        result(tmp_path / name, prefix + name, accuracy)
    result(tmp_path, f"{prefix}imagenet1k", 0.5, pretrained="laion2b_e16")

    found = {one.name: one for one in read_accuracies(tmp_path)}

    assert found["ViT-B-16,openai"].by_dataset == ON
    assert found["ViT-B-16,laion2b_e16"].by_dataset == {"imagenet": 0.5}
    assert found["ViT-B-16,laion2b_e16"].missing == SHIFTS


def test_passes_over_other_datasets_tasks_and_languages(tmp_path: Path):
    result(tmp_path, "imagenet1k", 0.7)
    result(tmp_path, "cifar10", 0.9)
    result(tmp_path, "imagenet1k", 0.8, task="linear_probe")
    result(tmp_path, "wds/mscoco_captions", 0.8, task="zeroshot_retrieval", metrics={})
    result(tmp_path, "imagenet1k", 0.2, language="ar")

    found = {one.name: one.by_dataset for one in read_accuracies(tmp_path)}

    assert found == {"ViT-B-16,openai": {"imagenet": 0.7}, "ViT-B-16,openai@ar": {"imagenet": 0.2}}


def test_reads_one_json_file_by_its_content(tmp_path: Path):
    result(tmp_path, "wds/objectnet", 0.4)
    text = (tmp_path / "0.json").read_text()
    path = tmp_path / "result.txt"
    path.write_text(text, encoding="utf-8-sig")

    assert [one.by_dataset for one in read_accuracies(path)] == [{"objectnet": 0.4}]


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "name,imagenet1k,v2,r,sketch,objectnet,a",
        " Model ,ImageNet,ImageNetV2,ImageNet-R,ImageNet Sketch,ObjectNet,ImageNet_A",
        "\ufeffmodel,imagenet_val,imagenetv2_matched_frequency,imagenet-r,sketch,objectnet,a",
        "model,imagenet,imagenetv2-matched-frequency,r,sketch,objectnet,a",
        '"model","imagenet","v2","r","sketch","objectnet","a"',
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_columns_go_by_many_names(tmp_path: Path, header: str, newline: str):
    text = newline.join([header, '"a, b",.7,0.6,5e-1, .4 ,.3,.2', ""])

    (found,) = read_accuracies(written(tmp_path / "mine.csv", text))

    assert (found.model, found.pretraining, found.by_dataset) == ("a, b", "", ON)


@given(accuracies=st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_a_fraction_is_read_exactly(tmp_path_factory: pytest.TempPathFactory, accuracies):  # noqa: ANN001
    cells = ",".join(map(repr, accuracies))
    path = tmp_path_factory.getbasetemp() / "exact.csv"

    (found,) = read_accuracies(written(path, f"{HEADER}\nm,{cells}\n"))

    assert list(found.by_dataset.values()) == accuracies


def test_an_empty_cell_is_what_the_model_lacks(tmp_path: Path):
    text = f"{HEADER}\na,.7,.6,,.4,.3,\nb,,,.5,.4,.3,.2\n"

    found = read_accuracies(written(tmp_path / "mine.csv", text))

    assert [one.missing for one in found] == [
        ("imagenet_r", "imagenet_a"),
        ("imagenet", "imagenetv2"),
    ]
    assert describe_incomplete(found) == (
        "a lacks imagenet_r, imagenet_a; b lacks imagenet, imagenetv2"
    )
    assert describe_incomplete(found * 2) == (
        "a lacks imagenet_r, imagenet_a; b lacks imagenet, imagenetv2; "
        "a lacks imagenet_r, imagenet_a; and 1 more"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv has no models: give a header"),
        (f"{HEADER}\n", "mine.csv has no models"),
        (f"{HEADER},imagenet_skech\nm", "unknown column 'imagenet_skech': known are "),
        (f"{HEADER},v2\nm", "two columns for matched-frequency, 'imagenetv2' and 'v2'"),
        ("imagenet\n.7\n", "no column 'model': known are model, "),
        (f"{HEADER}\nm,.7,.6\n", "line 2 has 3 cells, the header 7: separate"),
        (f"{HEADER}\nm,.7,.6,.5,.4,.3,.2,.1\n", "line 2 has 8 cells, the header 7"),
        (f"{HEADER}\n\n ,.7,.6,.5,.4,.3,.2\n", "line 3 names no model"),
        (f"{HEADER}\nm,70,.6,.5,.4,.3,.2\n", "line 2: imagenet is 70, .* divide percentages"),
        (f"{HEADER}\nm,.7,.6,.5,.4,.3,-1\n", "line 2: imagenet_a is -1, .* measure it"),
        (f"{HEADER}\nm,.7,nan,.5,.4,.3,.2\n", "matched-frequency is nan, not in .* again"),
        (f"{HEADER}\nm,.7,.6,high,.4,.3,.2\n", "line 2: imagenet_r is 'high': give a num"),
        (f'{HEADER}\nm,"0.7\n', "line 2 is malformed: unexpected end of data"),
    ],
)
def test_names_what_is_wrong_with_a_csv(tmp_path: Path, text: str, message: str):
    path = written(tmp_path / "mine.csv", text)

    with pytest.raises(ValueError, match=message) as caught:
        read_accuracies(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"dataset": ]', r"is not JSON \(Expecting value: line 2 .*\): check that"),
        ("nonsense", r"is not JSON \(Expecting value: line 1"),
        ("[]", "not a result of CLIP_benchmark, .* move it elsewhere"),
        ('{"dataset": "imagenet1k", "metrics": {}}', "not a result of CLIP_benchmark"),
        ('{"dataset": "a", "model": "m", "pretrained": "p"}', "not a result of CLIP_benchmark"),
        (
            '{"dataset": "imagenet1k", "model": "m", "pretrained": "p", "metrics": {}}',
            "acc1 is None: give a number",
        ),
        (
            '{"dataset": "cifar10", "model": "m", "pretrained": "p", "metrics": {}}',
            "no zero-shot result on ImageNet or its shifts",
        ),
    ],
)
def test_names_what_is_wrong_with_a_json(tmp_path: Path, text: str, message: str):
    path = written(tmp_path / "mine.json", text)

    with pytest.raises(ValueError, match=message) as caught:
        read_accuracies(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_results_on_one_dataset_are_one_too_many(tmp_path: Path):
    result(tmp_path, "imagenet1k", 0.7)
    result(tmp_path, "wds/imagenet1k", 0.71)

    with pytest.raises(ValueError, match=r"two results on imagenet, .*0.json and .*1.json"):
        read_accuracies(tmp_path)


def test_an_empty_folder_holds_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="no zero-shot result"):
        read_accuracies(tmp_path)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"No file or folder at .*nothing.csv"):
        read_accuracies(tmp_path / "nothing.csv")


def test_a_file_that_is_no_text(tmp_path: Path):
    (tmp_path / "mine.csv").write_bytes(b"model\xff\xfe")

    with pytest.raises(ValueError, match=r"mine.csv is not UTF-8 text"):
        read_accuracies(tmp_path / "mine.csv")


# Lines


def test_named_lines():
    assert get_baseline("paper").baseline is PAPER_BASELINE
    expected = {"testbed": (0.7601, -1.4895, 0.9945), MATCHED_BASELINE: (0.7569, -1.571, 0.9934)}
    for name, numbers in expected.items():
        line = get_baseline(name).baseline
        found = (line.slope, line.intercept, line.pearson_r)
        assert tuple(round(number, 4) for number in found) == numbers
        assert (line.name, line.n) == (name, 287)


def test_a_line_of_ones_own(tmp_path: Path):
    rows = ["a,.3,.2,.1,.1,.1,.1", "b,.5,.4,.3,.2,.2,.1", "c,.8,.7,.5,.4,.3,.1", "d,,,,,,"]
    path = written(tmp_path / "mine.csv", "\n".join([HEADER, *rows]))

    line = get_baseline(str(path))

    by_hand = fit_baseline([0.3, 0.5, 0.8], [0.6 / 5, 1.2 / 5, 2 / 5])
    assert line.baseline.slope == pytest.approx(by_hand.slope)
    assert line.baseline.intercept == pytest.approx(by_hand.intercept)
    assert (line.baseline.name, line.v2) == (str(path), V2_MATCHED_FREQUENCY)
    assert [one.name for one in line.excluded_models] == ["d"]


def test_a_line_of_ones_own_on_the_other_imagenet_v2(tmp_path: Path):
    header = HEADER.replace("imagenetv2", "imagenetv2_threshold_0.7")
    rows = ["a,.3,.2,.1,.1,.1,.1", "b,.5,.4,.3,.2,.2,.1", "c,.8,.7,.5,.4,.3,.1"]

    line = get_baseline(str(written(tmp_path / "mine.csv", "\n".join([header, *rows]))))

    assert line.v2 == V2_THRESHOLD


def test_a_line_needs_one_imagenet_v2(tmp_path: Path):
    header = f"{HEADER},imagenetv2_threshold_0.7"
    rows = ["a,.3,.2,.1,.1,.1,.1,", "b,.5,,.3,.2,.2,.1,.4", "c,.8,.7,.5,.4,.3,.1,"]
    path = written(tmp_path / "mine.csv", "\n".join([header, *rows]))

    with pytest.raises(ValueError, match=r"mine.csv mixes variants of ImageNet-V2"):
        get_baseline(str(path))


def test_a_line_needs_models(tmp_path: Path):
    path = written(tmp_path / "mine.csv", f"{HEADER}\na,.3,.2,.1,.1,.1,.1\nb,.3,.2,.1,.1,.1,\n")

    with pytest.raises(
        ValueError,
        match=r"No baseline can be fitted on .*mine.csv, 1 .*\(b lacks imagenet_a\): .* three",
    ):
        get_baseline(str(path))


def test_an_unknown_line():
    with pytest.raises(FileNotFoundError, match=r"'papre': take paper, testbed, testbed-m"):
        get_baseline("papre")


# Effective robustness


@pytest.fixture(scope="module")
def openclip() -> RobustnessTable:
    return effective_robustness_table(load_shipped_accuracies("openclip"), get_baseline("paper"))


def test_reproduces_the_papers_table_1(openclip: RobustnessTable):
    """Two ViT-B-16 trained on LAION are known to differ from their public accuracies."""
    printed = {
        f"{row['open_clip_model']},{row['open_clip_pretrained']}": float(row["value"])
        for row in facts("paper_models.csv")
        if row["table"].startswith("1 ") and row["role"] == "zero-shot"
    }
    found = {row.name: 100 * row.er for row in openclip.rows}

    far = {name for name, points in printed.items() if abs(found[name] - points) > 1.8}
    assert len(printed) == 12
    assert far == {"ViT-B-16,laion400m_e32", "ViT-B-16,laion2b_s34b_b88k"}
    assert all(abs(found[name] - printed[name]) < 3.2 for name in far)


def test_a_row_follows_from_its_accuracies(openclip: RobustnessTable):
    row = next(row for row in openclip.rows if row.name == "ViT-B-16,openai")
    mean = (0.6188 + 0.7770 + 0.4824 + 0.5531 + 0.4995) / 5
    line = 1 / (1 + math.exp(-(0.76 * math.log(0.6834 / (1 - 0.6834)) - 1.49)))

    assert (row.imagenet, row.imagenetv2, row.imagenet_r) == (0.6834, 0.6188, 0.7770)
    assert (row.imagenet_sketch, row.objectnet, row.imagenet_a) == (0.4824, 0.5531, 0.4995)
    assert row.shift_accuracy == pytest.approx(mean)
    assert row.er == row.paper_er == pytest.approx(mean - line)
    assert (row.model, row.pretraining, row.source) == ("ViT-B-16", "openai", "openclip")
    assert (row.line, row.v2) == ("paper", V2_MATCHED_FREQUENCY)


def test_the_lines_own_imagenet_v2_is_taken_where_there_is_one():
    both = model(**{V2_THRESHOLD: 0.9})
    matched = get_baseline(MATCHED_BASELINE).baseline

    (first, second) = effective_robustness_table([both, model()], get_baseline("paper")).rows
    (third,) = effective_robustness_table([both], get_baseline(MATCHED_BASELINE)).rows

    assert (first.v2, second.v2, third.v2) == (
        V2_THRESHOLD,
        V2_MATCHED_FREQUENCY,
        V2_MATCHED_FREQUENCY,
    )
    assert (first.imagenetv2, second.imagenetv2, third.imagenetv2) == (0.9, 0.6, 0.6)
    assert first.er == effective_robustness(0.7, fmean([0.9, 0.5, 0.4, 0.3, 0.2]))
    expected = effective_robustness(0.7, fmean([0.6, 0.5, 0.4, 0.3, 0.2]), baseline=matched)
    assert third.er == expected
    assert first.paper_er == third.paper_er == first.er


def test_without_matched_frequency_the_sibling_line_is_taken():
    on = {dataset: accuracy for dataset, accuracy in ON.items() if dataset != V2_MATCHED_FREQUENCY}
    other = ModelAccuracies("m", "", "mine.csv", on | {V2_THRESHOLD: 0.6})

    (row,) = effective_robustness_table([other], get_baseline(MATCHED_BASELINE)).rows

    assert (row.v2, row.line) == (V2_THRESHOLD, "testbed")
    line = get_baseline("testbed").baseline
    assert row.er == effective_robustness(0.7, fmean([0.6, 0.5, 0.4, 0.3, 0.2]), baseline=line)


def test_rows_say_whether_the_line_is_extrapolated_without_a_warning():
    low, high = PAPER_BASELINE.id_range
    models = [model(imagenet=x) for x in (low / 2, low, high, (1 + high) / 2)]

    with warnings.catch_warnings(record=True) as caught:
        rows = effective_robustness_table(models, get_baseline("paper")).rows

    assert caught == []
    assert [row.extrapolated for row in rows] == [True, False, False, True]


def test_incomplete_models_are_left_out_and_listed():
    table = effective_robustness_table(load_shipped_accuracies("testbed"), get_baseline("testbed"))

    assert (len(table.rows), len(table.incomplete)) == (329, 6)
    assert all(one.missing == ("imagenet_r",) for one in table.incomplete)


def test_no_complete_model():
    bare = ModelAccuracies("bare", "", "mine.csv", {"imagenet": 0.5})

    with pytest.raises(ValueError, match="all but ObjectNet: bare lacks imagenetv2, imagenet_r"):
        effective_robustness_table([bare], get_baseline("paper"))
    with pytest.raises(ValueError, match="all but ObjectNet: there is none"):
        effective_robustness_table([], get_baseline("paper"))


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_names_the_model_without_a_logit(accuracy: float):
    models = [model(), model("perfect", imagenet=accuracy)]

    with pytest.raises(ValueError, match=rf"perfect of mine.csv: .* {accuracy}: .* no logit"):
        effective_robustness_table(models, get_baseline("paper"))


# What a reader asks for


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["RN50,openai", "ViT-B-16,openai", "vit-b-32"]),
        ("VIT", ["ViT-B-16,openai", "vit-b-32"]),
        ("*,openai", ["RN50,openai", "ViT-B-16,openai"]),
        ("vit-b-??", ["vit-b-32"]),
        ("[rv]*,*", ["RN50,openai", "ViT-B-16,openai"]),
    ],
)
def test_matching(pattern: str, names: list[str]):
    models = [
        ModelAccuracies("RN50", "openai", "t", ON),
        ModelAccuracies("ViT-B-16", "openai", "t", ON),
        ModelAccuracies("vit-b-32", "", "t", ON),
    ]

    assert [one.name for one in filter_models(models, pattern)] == names


def test_nothing_matches():
    with pytest.raises(ValueError, match="No model fits 'vit': give part of a name"):
        filter_models([model("RN50")], "vit")


def test_order_and_top(openclip: RobustnessTable):
    fields = {"er": "er", "imagenet": "imagenet", "shifts": "shift_accuracy"}
    for order, field in fields.items():
        values = [getattr(row, field) for row in sort_rows(openclip, order).rows]
        assert values == sorted(values, reverse=True)
        assert len(values) == 121
        top = sort_rows(openclip, order, top=7)
        assert [getattr(row, field) for row in top.rows] == values[:7]
        assert top.named_baseline == openclip.named_baseline
    names = [row.name for row in sort_rows(openclip, "model").rows]
    assert names == sorted(names, key=str.lower)


def test_the_top_of_nothing(openclip: RobustnessTable):
    with pytest.raises(ValueError, match="top must be >= 1, got 0"):
        sort_rows(openclip, "er", top=0)


def test_the_caption_says_what_to_know(tmp_path: Path):
    rows = ["a,.3,.2,.1,.1,.1,.1", "b,.5,.4,.3,.2,.2,.1", "c,.8,.7,.5,.4,.3,.1", "d,,,,,,"]
    path = written(tmp_path / "mine.csv", "\n".join([HEADER, *rows]))
    public = [*load_shipped_accuracies("testbed"), model(imagenet=0.9)]

    units, line, other, outside, left_out = caption(
        effective_robustness_table(public, get_baseline("paper"))
    )
    assert "in points" in units
    assert line == (
        "Baseline paper: logit(shifts) = 0.76 logit(ImageNet) - 1.49; r 0.99, n 287, "
        "ImageNet-V2 threshold-0.7, ImageNet accuracies of 0.3 to 85.4 % "
        "(n, V2 and range are inferred)."
    )
    assert other.startswith("Not measured on ImageNet-V2 threshold-0.7: 1 of 330 models")
    assert outside == "* ImageNet accuracy outside the range of the baseline's models: 5 of 330."
    assert left_out.startswith("Left out (6): resnet101-tencent-ml-images lacks")

    assert len(caption(effective_robustness_table([model()], get_baseline(MATCHED_BASELINE)))) == 4
    assert (
        "threshold-0.7 whichever"
        in caption(effective_robustness_table([model()], get_baseline(MATCHED_BASELINE)))[2]
    )
    said = caption(effective_robustness_table([model()], get_baseline(str(path))))
    assert said[1].endswith(
        "n 3, ImageNet-V2 matched-frequency, ImageNet accuracies of 30.0 to 80.0 %."
    )
    assert said[-1] == (
        "Not in the baseline (1): d lacks imagenet, imagenetv2, imagenet_r, "
        "imagenet_sketch, objectnet, imagenet_a."
    )


# Files


def test_csv_holds_the_rows(openclip: RobustnessTable, tmp_path: Path):
    save_table(openclip, tmp_path / "new" / "er.csv")

    rows = list(csv.DictReader((tmp_path / "new" / "er.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == [row.model for row in openclip.rows]
    assert rows[0]["shifts"] == "; ".join(SHIFTS)
    for name in ("imagenet", "shift_accuracy", "er", "paper_er"):
        assert [float(row[name]) for row in rows] == [getattr(row, name) for row in openclip.rows]


def test_json_holds_the_rows_and_the_line(tmp_path: Path):
    bare = ModelAccuracies("bare", "", "mine.csv", {"imagenet": 0.5})
    table = effective_robustness_table([model(), bare], get_baseline("testbed"))
    save_table(table, tmp_path / "er.json")

    found = json.loads((tmp_path / "er.json").read_text())

    assert found == json.loads(table_as_json(table))
    assert found["models"] == json.loads(json.dumps([asdict(row) for row in table.rows]))
    assert found["baseline"]["n"] == 287
    assert found["baseline"]["v2"] == V2_THRESHOLD
    assert found["incomplete"] == [{"model": "bare", "source": "mine.csv", "lacks": list(SHIFTS)}]


def test_refuses_other_formats(openclip: RobustnessTable, tmp_path: Path):
    with pytest.raises(ValueError, match=r"er.xlsx: end it in .csv or .json"):
        save_table(openclip, tmp_path / "er.xlsx")


def test_a_write_that_fails_leaves_what_was_there(
    openclip: RobustnessTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = written(tmp_path / "er.csv", "old")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_table(openclip, path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"n": ' + "9" * 5001 + "}"])
def test_json_that_python_cannot_hold(tmp_path: Path, text: str):
    (tmp_path / "deep.json").write_text(text)

    with pytest.raises(ValueError, match=r"deep\.json is (no JSON that can be read|not JSON)"):
        read_accuracies(tmp_path / "deep.json")


def test_true_is_no_accuracy(tmp_path: Path):
    result = {"dataset": "imagenet1k", "model": "m", "pretrained": "p", "metrics": {"acc1": True}}
    (tmp_path / "r.json").write_text(json.dumps(result))

    with pytest.raises(ValueError, match="acc1 is True: give a number"):
        read_accuracies(tmp_path / "r.json")


# Rows of benchmark/benchmark.csv in CLIP_benchmark, as they are; its columns come in any order.
LONG = """\
acc1,acc5,mean_per_class_recall,dataset,model,pretrained,task,mean_average_precision,\
image_retrieval_recall@5,text_retrieval_recall@5,model_fullname
0.4460852605182502,0.9469211479520758,0.39406127166313165,fer2013,ViT-B-16-plus-240,\
laion400m_e32,zeroshot_classification,,,,ViT-B-16-plus-240 laion400m_e32
0.7738666666666667,0.9362666666666667,0.7345750490593081,imagenet-a,ViT-L-14-336,openai,\
zeroshot_classification,,,,ViT-L-14-336 openai
,,,voc2007_multilabel,ViT-B-32,openai,zeroshot_classification,0.7601363658905029,,,ViT-B-32 openai
,,,flickr30k,ViT-B-32,openai,zeroshot_retrieval,,0.8338000178337097,0.9490000009536743,\
ViT-B-32 openai
0.63334,0.88778,0.63284,imagenet1k,ViT-B-32,openai,zeroshot_classification,,,,ViT-B-32 openai
0.4417465274038979,0.7008721869279638,0.4272611771980346,objectnet,ViT-B-32,openai,\
zeroshot_classification,,,,ViT-B-32 openai
"""
LONG_RESULTS = {
    "ViT-L-14-336,openai": {"imagenet_a": 0.7738666666666667},
    "ViT-B-32,openai": {"imagenet": 0.63334, "objectnet": 0.4417465274038979},
}


def by_model(path: Path) -> dict[str, dict[str, float]]:
    return {one.name: dict(one.by_dataset) for one in read_accuracies(path)}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("index", [False, True])
def test_reads_clip_benchmarks_long_csv_as_it_is(tmp_path: Path, delimiter: str, index: bool):
    frame = pandas.read_csv(io.StringIO(LONG))
    frame.to_csv(tmp_path / "benchmark.csv", sep=delimiter, index=index)

    assert by_model(written(tmp_path / "long.csv", LONG)) == LONG_RESULTS
    assert by_model(tmp_path / "benchmark.csv") == LONG_RESULTS


def test_a_long_csv_in_any_order_of_columns_and_languages(tmp_path: Path):
    frame = pandas.read_csv(io.StringIO(LONG))
    frame["language"] = ["en", "en", "en", None, None, "ar"]
    frame[sorted(frame.columns, reverse=True)].to_csv(tmp_path / "x.csv")

    assert by_model(tmp_path / "x.csv") == {
        "ViT-L-14-336,openai": {"imagenet_a": 0.7738666666666667},
        "ViT-B-32,openai": {"imagenet": 0.63334},
        "ViT-B-32,openai@ar": {"objectnet": 0.4417465274038979},
    }


@pytest.mark.parametrize("orient", ["lines", "list", "indented"])
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.txt"])
def test_reads_results_in_one_json_file(tmp_path: Path, orient: str, name: str):
    frame = pandas.read_csv(io.StringIO(LONG))
    flat = [row.dropna().to_dict() for _, row in frame.iterrows()]
    nested = [{"metrics": {"acc1": row.get("acc1")}, **row} for row in flat]
    for results in (flat, nested):
        if orient == "lines":
            text = "".join(f"{json.dumps(result)}\n\n" for result in results)
        else:
            text = json.dumps(results, indent=1 if orient == "indented" else None)

        assert by_model(written(tmp_path / name, text)) == LONG_RESULTS


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_folder_may_hold_lines(tmp_path: Path, suffix: str):
    frame = pandas.read_csv(io.StringIO(LONG))
    for number, (_, row) in enumerate(frame.iterrows()):
        folder = tmp_path / "deep"
        folder.mkdir(exist_ok=True)
        written(folder / f"{number}{suffix}", json.dumps(row.dropna().to_dict()))
    for hidden in ("__MACOSX/._0.json", ".ipynb_checkpoints/0.json", "._1.json"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"\0\5\x16\7")

    assert by_model(tmp_path) == LONG_RESULTS


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("index", ["numbers", "models", "named"])
def test_tables_as_pandas_and_spreadsheets_write_them(
    tmp_path: Path, delimiter: str, decimal: str, index: str
):
    frame = pandas.DataFrame({"model": ["a", "b"], **{name: [0.25, 0.75] for name in ON}})
    frame = frame.rename(columns={V2_MATCHED_FREQUENCY: "imagenetv2"})
    if index == "models":
        frame = frame.set_index("model").rename_axis(None)
    elif index == "named":
        frame = frame.rename_axis("index")
    frame.to_csv(tmp_path / "x.csv", sep=delimiter, decimal=decimal)

    found = by_model(tmp_path / "x.csv")

    assert found == {"a": dict.fromkeys(ON, 0.25), "b": dict.fromkeys(ON, 0.75)}


def test_an_index_of_numbers_names_no_model(tmp_path: Path):
    path = written(tmp_path / "x.csv", ",imagenet\n0,.7\n1,.8\n")

    with pytest.raises(ValueError, match=r"x\.csv has no column 'model': known are model, "):
        read_accuracies(path)


def test_json_with_one_row_per_model(tmp_path: Path):
    rows = [{"model": "a", "pretrained": None, **ON}, {"model": "b", "imagenet": 0, "v2": None}]
    rows[0]["imagenetv2"] = rows[0].pop(V2_MATCHED_FREQUENCY)
    for text in (json.dumps(rows), "\n".join(map(json.dumps, rows))):
        path = written(tmp_path / "x.json", text)

        assert by_model(path) == {"a": ON, "b": {"imagenet": 0}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{HEADER}\nm,.7,,,,,\nn,.7,,,,,\nm,.6,,,,,\n",
            "m has two rows, .* line 2 and .* line 4:",
        ),
        ("model,pretrained,r\nm,p,.7\nm,q,.7\nm,p,.7\n", "m,p has two rows, .*2 and .*4: remove"),
        ('[{"model": "m", "r": 0.5}, {"model": "m", "a": 0.5}]', "m has two rows, .*1 and .*2:"),
    ],
)
def test_a_model_has_one_row(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        read_accuracies(written(tmp_path / "x.csv", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "lines", "list"])
def test_a_model_has_one_result_on_a_dataset(tmp_path: Path, kind: str):
    frame = pandas.read_csv(io.StringIO(LONG))
    twice = pandas.concat([frame, frame.iloc[[4]].assign(dataset="wds/imagenet1k", acc1=0.7)])
    path = tmp_path / "x"
    if kind == "csv":
        twice.to_csv(path, index=False)
    else:
        rows = [row.dropna().to_dict() for _, row in twice.iterrows()]
        text = json.dumps(rows) if kind == "list" else "\n".join(map(json.dumps, rows))
        written(path, text)
    place = {"csv": "line 6 and .* line 8", "lines": "line 5 and .* line 7"}

    with pytest.raises(
        ValueError,
        match=f"ViT-B-32,openai has two results on imagenet, .*{place.get(kind, 'entry 5 and')}",
    ):
        read_accuracies(path)


def test_public_tables_have_no_model_twice():
    for table in ("openclip", "testbed"):
        names = [one.name for one in load_shipped_accuracies(table)]
        assert len(names) == len({*names})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"acc1": 10**400}, r"acc1 is 1000+: give a number in \[0, 1\]"),
        ({"acc1": 1e300}, r"acc1 is 1e\+300, not in \[0, 1\]: measure it again"),
        ({"acc1": [0.5]}, r"acc1 is \[0\.5\]: give a number"),
        ({"acc1": "0,5,1"}, r"acc1 is '0,5,1': give a number"),
        ({"acc1": "9" * 5000}, r"acc1 is 999+, not in"),
        ({"acc1": 0.5, "model": {"a": 1}}, r"model is \{'a': 1\}: give a text"),
        ({"acc1": 0.5, "pretrained": 3}, r"pretrained is 3: give a text"),
        ({"metrics": [0.5]}, "is not a result of CLIP_benchmark"),
    ],
)
def test_absurd_results_are_named(tmp_path: Path, result: dict[str, object], message: str):
    known = {"dataset": "imagenet1k", "model": "m", "pretrained": "p"}
    path = written(tmp_path / "x.json", json.dumps(known | result))

    with pytest.raises(ValueError, match=message) as caught:
        read_accuracies(path)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_results_are_regular_files(tmp_path: Path):
    os.mkfifo(tmp_path / "0.json")

    for path in (tmp_path, tmp_path / "0.json"):
        with pytest.raises(ValueError, match=r"0\.json is no regular file but a pipe or device"):
            read_accuracies(path)
    with pytest.raises(ValueError, match=r"/dev/zero is no regular file"):
        read_accuracies(Path("/dev/zero"))


def test_a_saved_table_holds_no_formula(tmp_path: Path):
    bad = '=HYPERLINK("http://x";"y")'
    table = effective_robustness_table([model(bad)], get_baseline("paper"))

    save_table(table, tmp_path / "er.csv")

    (row,) = csv.DictReader((tmp_path / "er.csv").read_text().splitlines())
    assert row["model"] == f"'{bad}"


@given(st.text(max_size=60))
@settings(max_examples=200)
@pytest.mark.parametrize("prefix", ["", "{", "[", "model,imagenet\n", "dataset;model;acc1\n"])
def test_any_text_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, text: str
):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes((prefix + text).encode(errors="surrogatepass"))

    try:
        read_accuracies(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 (some texts are tables)


# Four shifts


def test_the_line_over_four_shifts_is_numpys_of_imagenet_only_models_of_one_size():
    rows = [
        row
        for row in facts("timm_results.csv")
        if has_imagenet_only(row["model"]) and "/" not in row["image_size"]
    ]
    shifts = ("imagenetv2_matched_frequency", "imagenet_r", "imagenet_sketch", "imagenet_a")
    x = np.array([float(row["imagenet_val"]) for row in rows])
    y = np.array([fmean(float(row[shift]) for shift in shifts) for row in rows])
    slope, intercept = np.polyfit(np.log(x / (1 - x)), np.log(y / (1 - y)), 1)

    line = get_baseline(TIMM_BASELINE)

    assert (line.baseline.slope, line.baseline.intercept) == pytest.approx((slope, intercept))
    assert line.baseline.n == len(rows) > 600
    assert line.shifts == tuple(shift for shift in SHIFTS if shift != "objectnet")
    four = {dataset: accuracy for dataset, accuracy in ON.items() if dataset != "objectnet"}
    mine = ModelAccuracies("m", "", "mine.csv", four)
    (row,) = effective_robustness_table([mine], get_baseline(MATCHED_BASELINE)).rows
    predicted = 1 / (1 + np.exp(-(slope * np.log(0.7 / 0.3) + intercept)))
    assert row.er == pytest.approx(fmean([0.6, 0.5, 0.4, 0.2]) - predicted)
    assert (row.line, row.objectnet, row.paper_er) == (TIMM_BASELINE, None, None)


def test_timms_two_image_sizes_are_marked():
    table = effective_robustness_table(
        load_shipped_accuracies("timm"), get_baseline(MATCHED_BASELINE)
    )

    sizes = {row["model"]: row["image_size"] for row in facts("timm_results.csv")}
    assert len(table.rows) == len(sizes) == 1265
    assert {row.model for row in table.rows if row.marked} == {
        name for name, size in sizes.items() if len({*size.split("/")}) > 1
    }
    assert sum(not row.marked for row in table.rows) == 1005


@pytest.mark.parametrize(
    ("name", "is_only"),
    [
        ("resnet50.a1_in1k", True),
        ("convnextv2_base.fcmae_ft_in1k", True),
        ("hiera_huge_224.mae_in1k_ft_in1k", True),
        ("resnetv2_34d.ra4_e3600_r224_in1k", True),
        ("caformer_b36.sail_in1k_384", True),
        ("resnet50", False),  # no tag
        ("resnet50.new_in1k", False),  # a word that is not known
        ("vit_base_patch16_224.augreg_in21k", False),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", False),
        ("tf_efficientnet_b0.ns_jft_in1k", False),
        ("resnet50.fb_swsl_ig1b_ft_in1k", False),
        ("regnety_1280.swag_lc_in1k", False),
        ("vit_base_patch32_clip_224.openai_ft_in1k", False),
        ("deit_base_distilled_patch16_224.fb_in1k", False),  # a teacher
        ("levit_128.fb_dist_in1k", False),
        ("hgnetv2_b0.ssld_stage2_ft_in1k", False),
        ("hrnet_w18_ssld.paddle_in1k", False),
        ("beitv2_base_patch16_224.in1k_ft_in1k", False),  # CLIP as teacher
        ("eva02_large_patch14_448.mim_m38m_ft_in1k", False),
        ("dpn107.mx_in1k", False),
    ],
)
def test_what_a_timm_name_says_of_its_data(name: str, is_only: bool):
    assert has_imagenet_only(name) == is_only


def test_names_of_the_same_weights_are_linked_and_their_accuracies_agree():
    tables = ("openclip", "testbed", "timm")
    models = [one for table in tables for one in load_shipped_accuracies(table)]

    twins = find_duplicates(models)

    pairs = [(models[k], models[twin]) for k, others in enumerate(twins) for twin in others]
    assert len(pairs) >= 2 * 75
    for first, second in pairs:
        assert first.source != second.source
        assert (second, first) in pairs
        assert first.by_dataset["imagenet"] == pytest.approx(
            second.by_dataset["imagenet"], abs=0.01
        )
    names = {(one.name, two.name) for one, two in pairs}
    assert ("resnet34", "resnet34.tv_in1k") in names
    assert ("RN50,openai", "resnet50_clip_zeroshot") in names


# timm's own files

TIMM_FILES = {
    "results-imagenet.csv": 80.0,
    "results-imagenetv2-matched-frequency.csv": 70.0,
    "results-sketch.csv": 30.0,
    "results-imagenet-r.csv": 40.0,
    "results-imagenet-a.csv": 10.0,
}


def write_timm_files(folder: Path, size_of_a: int = 224) -> list[Path]:
    head = "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation"
    paths: list[Path] = []
    for name, top1 in TIMM_FILES.items():
        size = size_of_a if name.endswith("-a.csv") else 224
        row = f"m.x_in1k,{top1},1,99,1,25.5,{size},0.875,bicubic"
        paths.append(written(folder / name, f"{head}\n{row}\n"))
    return paths


def test_timms_files_make_one_model(tmp_path: Path):
    paths = write_timm_files(tmp_path)
    written(tmp_path / "results-imagenet-real.csv", paths[0].read_text())

    (given,) = read_accuracy_files(paths)
    (found,) = read_accuracy_files([tmp_path])

    assert given == found
    assert found.by_dataset == {
        "imagenet": 0.8,
        V2_MATCHED_FREQUENCY: 0.7,
        "imagenet_sketch": 0.3,
        "imagenet_r": 0.4,
        "imagenet_a": 0.1,
    }
    assert found.has_one_image_size
    (other,) = read_accuracy_files(write_timm_files(tmp_path, size_of_a=288))
    assert not other.has_one_image_size


def test_timms_merged_table_is_read(tmp_path: Path):
    names = ("imagenet_val", "imagenet_real", "imagenetv2_matched_frequency", "imagenet_sketch")
    names = (*names, "imagenet_a", "imagenet_r")
    sizes = [f"{name}_size" for name in names]
    rows = ["m,1.5,.8,.85,.7,.3,.1,.4,224,288,224,224,224,224", "k,1.5,.8,.85,.7,.3,.1,.4"]
    rows[1] += ",224,224,288,224,288,224"
    text = ",".join(["model", "parameters_millions", *names, *sizes])
    path = written(tmp_path / "timm.csv", "\n".join([text, *rows]))

    one, two = read_accuracy_files([path])

    assert one.by_dataset["imagenet_a"] == 0.1
    assert (one.has_one_image_size, two.has_one_image_size) == (True, False)


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("results-imagenet-x.csv", "m,80,224", "of no known data set: name it as timm does"),
        ("results-imagenet.csv", "m,80", "line 2 has 2 cells, the header 3"),
        ("results-imagenet.csv", "m,180,224", "top1 is 180, not in"),
        ("results-imagenet.csv", "m,many,224", "top1 is 'many': give a number"),
        ("results-imagenet.csv", "m,80,big", "an image size is 'big': give pixels"),
        ("results-imagenet.csv", "m,80,224\nm,80,224", "line 3 names no model, or one of another"),
    ],
)
def test_names_what_is_wrong_with_a_file_of_timm(tmp_path: Path, name: str, row: str, message: str):
    path = written(tmp_path / name, f"model,top1,img_size\n{row}\n")

    with pytest.raises(ValueError, match=message):
        read_accuracy_files([path])

"""Models of the lab: architecture, training, and the shipped weights."""

import json
import warnings
from collections import Counter
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, linregress
from torch import Tensor, nn
from torch.testing import assert_close

from earmark._io import lock_folder
from earmark.lab import train
from earmark.lab.baselines import BASELINES_FILE, FACTS_FOLDER, load_lab_baselines
from earmark.lab.checkpoints import CHECKPOINT_DIR, LAB_MODELS, load_lab
from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.lab.text import LabText
from earmark.lab.train import (
    HARD_EXAMPLES_FILE,
    LabTrainConfig,
    LineBaseline,
    _read_hard_examples,
    _read_intact_rows,
    select_hard_examples,
    train_lab,
)
from earmark.lab.world import (
    CLASSES,
    VOCABULARY,
    make_captions,
    make_prompts,
    render,
    sample_candidates,
    sample_id,
    sample_world,
)
from earmark.models.zeroshot import zero_shot_head
from earmark.training.loop import train_contrastive

DATASETS = {"imagenet", "imagenetv2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a"}
TINY = LabTrainConfig(
    n_world_images=512,
    n_train_images=300,
    n_candidates=200,
    counts=dict.fromkeys(DATASETS, 40),
    architecture=LabArchitecture(stem=4, blocks=(8, 8, 8), features=8, heads=2),
    epochs=(2, 2, 1),
    line_baselines=(LineBaseline(4, 300, 1), LineBaseline(8, 200, 2)),
    judge=LineBaseline(4, 300, 1),  # one of the baselines, here
)


class Interruption(Exception):
    """As Ctrl-C would."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("towers")
    train_lab(out, config=TINY)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# What a tower computes.


def test_a_tower_reads_each_image_by_itself():
    encoder = LabResNet(LabArchitecture()).eval()
    images = torch.randn(4, 3, 32, 32)

    alone = torch.cat([encoder(image[None]) for image in images])

    assert_close(encoder(images), alone, rtol=0, atol=1e-5)


def test_attention_by_hand():
    """The pooling against a softmax written out, head by head."""
    pool = LabResNet(LabArchitecture(blocks=(8, 8, 12), features=5, heads=3)).pool
    picture = torch.randn(2, 12, 4, 4)
    places = picture.reshape(2, 12, 16).permute(0, 2, 1)
    places = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + pool.positions
    query = places[:, 0] @ pool.query.weight.T + pool.query.bias
    key, value = (places @ pool.key_value.weight.T + pool.key_value.bias).split(12, dim=2)
    heard: list[Tensor] = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        scores = (key[:, :, part] * query[:, None, part]).sum(dim=2) / 4**0.5
        shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        heard.append((shares[:, :, None] * value[:, :, part]).sum(dim=1))
    expected = torch.cat(heard, dim=1) @ pool.project.weight.T + pool.project.bias

    assert_close(pool(picture), expected, rtol=1e-4, atol=1e-5)


def test_the_default_tower_is_small():
    size = sum(weight.numel() for weight in LabResNet(LabArchitecture()).parameters())

    assert 6e5 < size < 7e5


def test_the_order_of_words_does_not_count():
    texts = LabText(VOCABULARY, features=8)

    first, second, third = texts.embed(["a red circle", "circle a red", "a red square"])

    assert_close(first, second)
    assert not torch.allclose(first, third)


def test_short_texts_do_not_feel_long_ones():
    texts = LabText(VOCABULARY, features=8)

    together = texts.embed(["red", "a photo of a large red circle in the forest"])

    assert_close(together[:1], texts.embed(["red"]))


def test_a_word_said_twice_counts_twice():
    texts = LabText(("red", "blue"), features=8)

    summed = 2 * texts.words.weight[1] + texts.words.weight[2]
    expected = texts.project(torch.relu(texts.norm(summed)))

    assert_close(texts.embed(["red blue red"])[0], expected)


@pytest.mark.parametrize("scale", [0.5, 30.0, 500.0])
def test_the_scale_is_at_most_100(scale: float):
    texts = LabText(("red",), features=8)
    texts.log_scale.data.fill_(np.log(scale))

    assert texts.scale.item() == pytest.approx(min(scale, 100.0), rel=1e-5)


def test_an_unknown_word():
    with pytest.raises(ValueError, match="does not know the word 'zebra'"):
        LabText(VOCABULARY, features=8).embed(["a red zebra"])


def test_no_text():
    with pytest.raises(ValueError, match="There is no text to tokenize"):
        LabText(VOCABULARY, features=8).tokenize([])


def test_every_caption_can_be_read():
    texts = LabText(VOCABULARY, features=8)
    said = make_captions(sample_world(50, seed=0), seed=0)

    words = texts.tokenize(said)

    back = [[texts.vocabulary[word - 1] for word in row if word] for row in words.tolist()]
    assert [" ".join(row) for row in back] == said


# A head made of words.


def test_zero_shot_head_by_hand():
    embeddings = {text: torch.randn(5) for text in ("a cat", "cats", "a dog")}
    embeddings["cats"] *= 100  # a long embedding must count no more than a short one
    embeddings["cats"].requires_grad_()

    head = zero_shot_head(
        lambda texts: torch.stack([embeddings[text] for text in texts]),
        [["a cat", "cats"], ["a dog"]],
        scale=7.0,
    )

    units = {text: (row / row.norm()).detach().numpy() for text, row in embeddings.items()}
    cat = (units["a cat"] + units["cats"]) / 2
    expected = [7 * cat / np.linalg.norm(cat), 7 * units["a dog"]]
    np.testing.assert_allclose(head.weight.numpy(), expected, rtol=1e-5)
    assert head.normalizes
    assert head.bias is None
    assert not head.weight.requires_grad


@pytest.mark.parametrize(
    ("phrasings", "complaint"),
    [([], "at least one class, got none"), ([["a cat"], []], "Class 1 has no text")],
)
def test_a_class_needs_words(phrasings: list[list[str]], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        zero_shot_head(lambda texts: torch.eye(len(texts)), phrasings, scale=1.0)


# How the towers are made.


def test_everything_is_made(made: Path):
    towers = {f"{name}.safetensors" for name in LAB_MODELS}

    assert set(contents(made)) == {*towers, BASELINES_FILE, HARD_EXAMPLES_FILE}
    roles = {name: load_lab(name, folder=made).role for name in LAB_MODELS}
    assert roles == {
        "zero-shot": "zero-shot",
        "finetuned": "finetuned",
        "supervised": "supervised",
        "untrained": "other",
    }
    assert [row.name for row in load_lab_baselines(made / BASELINES_FILE)] == [
        baseline.name for baseline in TINY.line_baselines
    ]


def test_the_zero_shot_head_is_made_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoders: list[LabText] = []

    def train_and_note(*arguments: Any) -> tuple[nn.Module, LabText]:
        encoder, texts = train_contrastive(*arguments)
        encoders.append(texts)
        return encoder, texts

    monkeypatch.setattr(train, "train_contrastive", train_and_note)
    train.make_towers(tmp_path, ["zero-shot"], config=TINY)
    head = load_lab("zero-shot", folder=tmp_path).head
    (texts,) = encoders

    remade = zero_shot_head(
        texts.embed, [make_prompts(name) for name in CLASSES], scale=texts.scale.item()
    )

    assert_close(head.weight, remade.weight, rtol=2**-9, atol=1e-5)  # float16's rounding
    assert head.normalizes == remade.normalizes


def test_finetuning_starts_from_the_zero_shot_tower(made: Path):
    """Here it takes one step, of 1e-4 / 50: what moves does so by float16's grain."""
    start, end = (load_lab(name, folder=made) for name in ("zero-shot", "finetuned"))

    assert_close(end.head.weight, start.head.weight, rtol=2**-9, atol=1e-4)
    assert end.head.normalizes
    moved = dict(end.encoder.named_parameters())
    for name, value in start.encoder.named_parameters():
        assert_close(moved[name], value, rtol=2**-9, atol=1e-4, msg=name)


def test_a_run_that_was_cut_short_goes_on(made: Path, tmp_path: Path):
    """It ends with the same bits, and makes nothing twice."""
    for cut in ("finetuned", "supervised", TINY.judge.name, TINY.line_baselines[1].name):

        def stop(what: str, done: int, _total: int, cut: str = cut) -> None:
            if what == f"train lab:{cut}" and done == 1:
                raise Interruption

        with pytest.raises(Interruption):
            train_lab(tmp_path, config=TINY, progress=stop)
    told: list[str] = []
    train_lab(tmp_path, config=TINY, progress=lambda what, *_: told.append(what))

    assert set(told) == {f"train lab:{TINY.line_baselines[1].name}"}
    assert contents(tmp_path) == contents(made)


def test_nothing_is_made_twice(made: Path):
    def refuse(what: str, _done: int, _total: int) -> None:
        raise Interruption(what)

    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}

    train_lab(made, config=TINY, progress=refuse)

    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_progress_runs_to_its_end(made: Path, tmp_path: Path):
    for name in (HARD_EXAMPLES_FILE, BASELINES_FILE):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    told: list[tuple[str, int, int]] = []

    train_lab(tmp_path, config=TINY, progress=lambda *step: told.append(step))

    contrastive = [step for step in told if step[0] == "train lab:zero-shot"]
    assert contrastive == [("train lab:zero-shot", step, 4) for step in (1, 2, 3, 4)]


def test_another_seed_makes_other_towers(made: Path, tmp_path: Path):
    for name in (HARD_EXAMPLES_FILE, BASELINES_FILE):
        (tmp_path / name).write_bytes((made / name).read_bytes())

    train_lab(tmp_path, config=TINY, seed=5)

    before, after = contents(made), contents(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{name}.safetensors" for name in LAB_MODELS}


def test_a_device_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match="Cannot use the device 'abacus'") as error:
        train_lab(tmp_path, device="abacus")

    assert "\n" not in str(error.value)


def test_the_judge_gets_all_of_a_wrong(made: Path):
    """In this plan it is one of the baselines, and A is what it got wrong."""
    judge, _ = load_lab_baselines(made / BASELINES_FILE)

    assert judge.accuracy["imagenet-a"] == 0
    assert judge.images == dict.fromkeys(DATASETS, 40)


def test_a_table_of_baselines(tmp_path: Path):
    (tmp_path / "table.csv").write_text(
        "model,dataset,correct,images\none,imagenet,3,4\none,imagenetv2,1,4\ntwo,imagenet,1,8\n"
    )

    one, two = load_lab_baselines(tmp_path / "table.csv")

    assert (one.name, dict(one.accuracy), dict(one.images)) == (
        "one",
        {"imagenet": 0.75, "imagenetv2": 0.25},
        {"imagenet": 4, "imagenetv2": 4},
    )
    assert (two.name, dict(two.accuracy)) == ("two", {"imagenet": 0.125})


@given(
    classes=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60),
    count=st.integers(0, 8),
)
def test_mistakes_come_from_all_classes(classes: list[tuple[int, bool]], count: int):
    labels = np.array([label for label, _ in classes], dtype=np.int64)
    wrong = np.array([mistake for _, mistake in classes], dtype=bool)

    chosen = select_hard_examples(labels, wrong, count)

    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert wrong[chosen].all()
    assert len(chosen) == min(count, wrong.sum())
    taken, had = Counter(labels[chosen].tolist()), Counter(labels[wrong].tolist())
    most = max(taken.values(), default=0)
    assert all(taken[label] >= min(most - 1, had[label]) for label in had)


# What ships.


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor]:
    factors = sample_id(512, seed=1, split="val")  # the demo draws seed 0
    return LabTransform().batch(torch.from_numpy(render(factors))), torch.from_numpy(factors.labels)


@pytest.mark.parametrize("name", LAB_MODELS)
def test_shipped_towers_know_what_they_should(name: str, held_out: tuple[Tensor, Tensor]):
    tower = load_lab(name)
    images, labels = held_out

    with torch.inference_mode():
        correct = int((tower.head.predict(tower.encoder(images)) == labels).sum())

    assert tower.name == f"lab:{name}"
    assert tower.classes == tuple(label.replace(" ", "_") for label in CLASSES)
    assert not tower.encoder.training
    if name == "untrained":
        assert binom.sf(correct - 1, len(labels), 1 / len(CLASSES)) > 1e-6
    else:
        assert binom.cdf(correct, len(labels), 0.5) > 0.999  # surely above one half


def test_shipped_towers_are_small():
    files = [CHECKPOINT_DIR / f"{name}.safetensors" for name in LAB_MODELS]

    assert sum(file.stat().st_size for file in files) < 6e6


def test_there_is_no_such_tower():
    with pytest.raises(ValueError, match="no model 'clip'; choose zero-shot, finetuned"):
        load_lab("clip")


def test_the_shipped_mistakes_are_hard_for_another_small_network():
    """That A is what a small network gets wrong shows in every other one."""
    path = FACTS_FOLDER / HARD_EXAMPLES_FILE
    choice = json.loads(path.read_text())
    candidates = sample_candidates(choice["candidates"], seed=choice["seed"])
    per_class = Counter(candidates.labels[choice["chosen"]].tolist())

    assert len(set(choice["chosen"])) == len(choice["chosen"]) >= 1900
    assert len(per_class) > 100
    for baseline in load_lab_baselines():
        assert baseline.accuracy["imagenet-a"] < baseline.accuracy["imagenetv2"]


def test_the_shipped_baselines_make_a_line():
    """What design asks of it: a wide range, every accuracy with a logit, and r of .95."""
    rows = load_lab_baselines()
    points = [
        (
            row.accuracy["imagenet"],
            np.mean([row.accuracy[name] for name in DATASETS - {"imagenet"}]),
        )
        for row in rows
    ]
    x, y = np.log(np.array(points) / (1 - np.array(points))).T

    assert len(rows) >= 10
    assert min(points)[0] < 0.2
    assert max(points)[0] > 0.75
    assert linregress(x, y).rvalue > 0.95
    assert all(0 < value < 1 for row in rows for value in row.accuracy.values())


# Damage and company.


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(copytree(made, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("name", "match", "tasks"),
    [
        ("untrained.safetensors", "The model is trained again", set()),
        (HARD_EXAMPLES_FILE, "shift A is chosen again", {TINY.judge.name}),
        (BASELINES_FILE, "are trained again", {line.name for line in TINY.line_baselines}),
    ],
)
def test_a_damaged_file_is_named_and_made_again(
    made: Path, copied: Path, name: str, match: str, tasks: set[str]
):
    flip_a_bit(copied / name)
    told: set[str] = set()

    with pytest.warns(UserWarning, match=rf"{name} is damaged.*{match}"):
        train_lab(copied, config=TINY, progress=lambda task, *_: told.add(task))

    assert told <= {f"train lab:{name}" for name in tasks}
    assert contents(copied) == contents(made)


def test_no_flipped_bit_of_the_tables_is_believed(made: Path, copied: Path):
    """Each of 60 bits of either file is named, or the content is as before."""
    choice = _read_hard_examples(made)
    rows = _read_intact_rows(made / BASELINES_FILE)
    drawn = np.random.default_rng(0)
    for name, read, expected in (
        (HARD_EXAMPLES_FILE, lambda: _read_hard_examples(copied), choice),
        (BASELINES_FILE, lambda: _read_intact_rows(copied / BASELINES_FILE), rows),
    ):
        whole = (made / name).read_bytes()
        for bit in drawn.choice(8 * len(whole), 60, replace=False).tolist():
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            (copied / name).write_bytes(bytes(content))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = read()
            assert caught or found == expected


def test_tables_of_an_earlier_earmark_are_read(made: Path, tmp_path: Path):
    """They had no checksums, as those that ship have none."""
    choice = json.loads((made / HARD_EXAMPLES_FILE).read_text())
    del choice["seal"]
    (tmp_path / HARD_EXAMPLES_FILE).write_text(json.dumps(choice))
    lines = (made / BASELINES_FILE).read_text().splitlines()
    plain = [line.rpartition(",")[0] for line in lines]
    (tmp_path / BASELINES_FILE).write_text("\n".join(plain) + "\n")

    assert _read_hard_examples(tmp_path) == _read_hard_examples(made)
    assert _read_intact_rows(tmp_path / BASELINES_FILE) == _read_intact_rows(made / BASELINES_FILE)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "[]",
        '{"seed": 0, "candidates": 3, "chosen": [3]}',
        '{"seed": 0, "candidates": 3, "chosen": [-1]}',
        '{"seed": 0, "candidates": "3", "chosen": []}',
        '{"seed": 0, "candidates": 3, "chosen": [1e300]}',
    ],
)
def test_a_choice_of_another_shape_is_made_again(tmp_path: Path, content: str):
    (tmp_path / HARD_EXAMPLES_FILE).write_text(content)

    with pytest.warns(UserWarning, match="is damaged .*: shift A is chosen again"):
        assert _read_hard_examples(tmp_path) is None


def test_a_table_that_is_no_text_is_made_again(tmp_path: Path):
    (tmp_path / BASELINES_FILE).write_bytes(b"\xff\xfe,")

    with pytest.warns(UserWarning, match="is damaged .*: it is made again"):
        assert _read_intact_rows(tmp_path / BASELINES_FILE) == []


def test_two_processes_do_not_train_the_same_lab(made: Path, tmp_path: Path):
    def try_too(*_: object) -> None:
        with pytest.raises(BlockingIOError, match=r"is in use by process .*: wait until it ends"):
            train.make_towers(tmp_path, ["supervised"], config=TINY)
        raise Interruption

    with pytest.raises(Interruption):
        train.make_towers(tmp_path, ["supervised"], config=TINY, progress=try_too)
    with lock_folder(made):  # what is there needs no lock
        train.make_towers(made, ["supervised"], config=TINY)
    with lock_folder(tmp_path), pytest.raises(BlockingIOError, match="is in use by process"):
        train_lab(tmp_path, config=TINY)


def test_what_a_killed_run_left_is_swept(copied: Path):
    (copied / ".supervised.safetensors.0123abcd").write_bytes(b"half")

    train_lab(copied, config=TINY)

    assert not list(copied.glob(".*"))

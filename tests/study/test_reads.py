"""How often a study reads what is large: activations, weights, model files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from earmark import Classifier, Head, fit_baseline
from earmark.activations import Activations, cached_activations
from earmark.data import image_set
from earmark.data.broden import ConceptDataset, ConceptInfo
from earmark.data.image_set import ImageSet, file_stamp
from earmark.lab.model import LabArchitecture, LabResNet, LabTransform
from earmark.study import measure, runner
from earmark.study.config import load_study_config
from earmark.study.eval_sets import EvalSets
from earmark.study.measure import measure_model
from earmark.study.runner import RunConfig, StudyRunner
from earmark.study.units import StudyModel, StudyUnit

CLASSES = ("one", "two", "three", "four")
BASELINE = fit_baseline([0.1, 0.4, 0.9], [0.05, 0.3, 0.7], name="line")
METADATA = {"__get__", "__len__", "dim", "size", "numel", "is_complex", "is_floating_point"}


class CountedTensor(Tensor):
    """Batch of activations; the first use of its values reports a read."""

    def __new__(cls, batch: Tensor, reads: set[int], turn: int) -> "CountedTensor":  # noqa: D102
        counted = batch.as_subclass(cls)
        counted.reads, counted.turn = reads, turn
        return counted

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        def plain(argument: Any) -> Any:
            if isinstance(argument, (list, tuple)):
                return type(argument)(map(plain, argument))
            if not isinstance(argument, CountedTensor):
                return argument
            if func.__name__ not in METADATA:
                argument.reads.add(argument.turn)
            with torch._C.DisableTorchFunctionSubclass():
                return argument.as_subclass(Tensor)

        return func(*plain(tuple(args)), **(kwargs or {}))


class CountedBatches(tuple[Tensor, ...]):
    """Batches of one set, with the passes over them in which values were read."""

    reads: set[int]
    turns: int

    def __iter__(self) -> Iterator[Tensor]:
        self.turns += 1
        for batch in super().__iter__():
            yield CountedTensor(batch, self.reads, self.turns)

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """By set, the passes over its stored activations."""
    passes: dict[str, set[int]] = {}

    def counted(classifier: Classifier, images: ImageSet, *args: Any, **kwargs: Any):
        activations = cached_activations(classifier, images, *args, **kwargs)
        batches = CountedBatches(activations.batches)
        batches.reads = passes.setdefault(images.name, set())
        batches.turns = 0
        return Activations(batches, activations.skipped)

    monkeypatch.setattr(measure, "cached_activations", counted)
    return passes


def write_images(folder: Path, name: str, count: int) -> ImageSet:
    random = np.random.default_rng(count)
    (folder / name).mkdir(parents=True)
    files = tuple(f"{image:03}.png" for image in range(count))
    for file in files:
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / file)
    return ImageSet(name, folder / name, files, random.integers(0, 4, count), CLASSES)


def tiny_model() -> Classifier:
    encoder = LabResNet(LabArchitecture(stem=8, blocks=(8, 8, 8), features=6)).eval()
    head = Head(torch.randn(4, 6), torch.randn(4), normalizes=True)
    return Classifier("m", "zero-shot", encoder, head, CLASSES, LabTransform(), "B", "P")


@pytest.fixture
def eval_sets(tmp_path: Path) -> EvalSets:
    shifts = (write_images(tmp_path, "r", 20), write_images(tmp_path, "a", 21))
    concepts = ConceptDataset(
        write_images(tmp_path, "broden", 40),
        (ConceptInfo(1, "red", ("color",)), ConceptInfo(2, "fabric", ("material",))),
        (np.arange(20), np.arange(5, 25)),
    )
    return EvalSets(write_images(tmp_path, "imagenet", 30), shifts, concepts)


def test_a_scan_reads_stored_activations_four_times_at_most(
    reads: dict[str, set[int]], eval_sets: EvalSets, tmp_path: Path
):
    measure_model(tiny_model(), eval_sets, [BASELINE], tmp_path / "store")

    assert {*reads} == {"imagenet", "r", "a", "broden"}
    for name, turns in reads.items():
        assert 1 <= len(turns) <= 4, name


def test_passes_are_counted_and_metadata_is_free():
    batches = CountedBatches([torch.ones(3, 2), torch.ones(1, 2)])
    batches.reads, batches.turns = set(), 0

    assert sum(batch.shape[0] + batch.nbytes for batch in batches) == 4 + 32
    assert not batches.reads
    assert float(sum(batch[:1].sum() for batch in batches)) == 4
    assert batches[1].numpy().tolist() == [[1.0, 1.0]]
    assert len(batches.reads) == 2


@pytest.mark.filterwarnings("ignore:.* has no effective robustness")  # nor needs it
def test_a_unit_loads_a_source_hashes_weights_and_stats_images_once(
    eval_sets: EvalSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[str] = []
    stamped: Counter[Path] = Counter()
    hashed: Counter[str] = Counter()
    model, fingerprint = tiny_model(), Classifier.fingerprint.fget

    def load(source: str, **_: object) -> Classifier:
        loaded.append(source)
        return model

    def count_hash(classifier: Classifier) -> str:
        hashed[classifier.name] += 1
        return fingerprint(classifier)

    def stamp(path: Path) -> str:
        stamped[path] += 1
        return file_stamp(path)

    monkeypatch.setattr(image_set, "file_stamp", stamp)
    monkeypatch.setattr(runner, "load_model", load)
    monkeypatch.setattr(runner, "train_on_images", lambda start, *_, **__: start)
    monkeypatch.setattr(runner, "find_train_data", lambda *_: eval_sets.in_distribution)
    monkeypatch.setattr(runner, "run_key", lambda *_: "a" * 8)
    monkeypatch.setattr(runner, "find_eval_sets", lambda *_, **__: eval_sets)
    monkeypatch.setattr(Classifier, "fingerprint", property(count_hash))
    config = load_study_config("lab", base=tmp_path)
    config = config.model_copy(update={"alphas": (), "cka": None})
    first = StudyModel("first", "m", "loaded", "B", "P", "zero-shot")
    second = replace(first, name="second", origin="finetuned", role="finetuned")

    result = StudyRunner(RunConfig(config, tmp_path, tmp_path / "out")).run_unit(
        StudyUnit(first, second)
    )

    assert not result.failures
    assert {record.model for record in result.records} >= {"first", "second"}
    assert loaded == ["m"]
    assert {*hashed} == {"first", "second"}
    assert max(hashed.values()) == 1
    assert len(stamped) == sum(map(len, eval_sets.image_sets))
    assert max(stamped.values()) == 1

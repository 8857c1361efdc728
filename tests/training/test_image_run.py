"""Training on image files: what it computes, what it writes, and how it goes on."""

import copy
import json
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import helpers.training_fakes as fakes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, normalize
from torch.testing import assert_close

from earmark._io import LOCK_FILE, lock_folder
from earmark.data.image_set import ImageSet
from earmark.models.classifier import Classifier
from earmark.models.serialization import load_classifier
from earmark.training import image_run
from earmark.training.image_run import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    ComputeConfig,
    run_key,
    train_on_images,
)
from earmark.training.image_stream import AugmentedStream, TrainData, crop_transform
from earmark.training.recipes import Augmentation
from earmark.training.run_log import LOG_FILENAME, read_log

WHOLE = Augmentation((1.0, 1.0))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return fakes.write_images(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture
def lessons(images: ImageSet) -> TrainData:
    return TrainData(images)


def same(first: Classifier, second: Classifier) -> bool:
    ours, theirs = first.encoder.state_dict(), second.encoder.state_dict()
    equal = all(torch.equal(ours[key], theirs[key]) for key in theirs)
    return equal and torch.equal(first.head.weight, second.head.weight)


def logits(classifier: Classifier, images: ImageSet) -> Tensor:
    shown = [classifier.transform(images.open(image)) for image in range(len(images))]
    with torch.inference_mode():
        return classifier.head.logits(classifier.encoder(torch.stack(shown)))


@pytest.mark.parametrize(
    ("normalizes", "decay", "clip"),
    [(True, "all", 0.5), (False, "kernels", 0.5), (False, "all", None)],
)
def test_it_is_adamw_on_whole_batches(
    tmp_path: Path, images: ImageSet, normalizes: bool, decay: str, clip: float | None
):
    """A loop by hand over the stream, with all that the recipe says."""
    start = fakes.tower(bias=not normalizes, normalizes=normalizes)
    recipe = fakes.recipe(
        warmup=3, milestones=(1,), label_smoothing=0.2, clip=clip, betas=(0.8, 0.9), decay=decay
    )
    encoder = copy.deepcopy(start.encoder).train().requires_grad_()
    head = [start.head.weight.clone().requires_grad_()]
    if not normalizes:
        head.append(start.head.bias.clone().requires_grad_())
    learned = [*encoder.parameters(), *head]
    optimizer = torch.optim.AdamW(
        [
            {"params": [part for part in learned if part.ndim > 1], "weight_decay": 0.1},
            {
                "params": [part for part in learned if part.ndim < 2],
                "weight_decay": 0.1 if decay == "all" else 0,
            },
        ],
        betas=(0.8, 0.9),
    )
    stream, shown = AugmentedStream.from_images(images, recipe), crop_transform(start)
    losses = []
    for step in range(12):
        turns = range(4 * step, 4 * step + 4)
        pixels = torch.stack([shown(stream.open(turn)) for turn in turns])
        activations = encoder(pixels)
        activations = normalize(activations, dim=1) if normalizes else activations
        answers = torch.tensor([
            int(images.labels[stream.epoch_and_index(turn)[1]]) for turn in turns
        ])
        loss = cross_entropy(linear(activations, *head), answers, label_smoothing=0.2)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(learned, clip)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 3) * (1 if step < 6 else 0.1)
        optimizer.step()
        losses.append(loss.item())

    trained = train_on_images(start, TrainData(images), recipe, tmp_path)

    assert [line["loss"] for line in read_log(tmp_path)] == pytest.approx(losses, rel=1e-4)
    by_hand = replace(trained, encoder=encoder.eval())
    by_hand = replace(by_hand, head=type(start.head)(*head, normalizes=normalizes))
    assert_close(logits(trained, images), logits(by_hand, images), rtol=0, atol=1e-4)
    assert not torch.allclose(logits(trained, images), logits(start, images), atol=1e-2)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_accumulation_equals_the_whole_batch(tmp_path: Path, lessons: TrainData, micro_batch: int):
    whole = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path / "whole")

    running = ComputeConfig(micro_batch=micro_batch)
    parts = train_on_images(
        fakes.tower(), lessons, fakes.recipe(), tmp_path / "p", compute_config=running
    )

    ours, expected = (logits(one, lessons.train) for one in (parts, whole))
    assert_close(ours, expected, rtol=0, atol=1e-5)
    for one, other in zip(read_log(tmp_path / "p"), read_log(tmp_path / "whole"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_it_learns_and_leaves_the_world_as_found(tmp_path: Path, images: ImageSet):
    from accelerate.state import is_initialized

    start = fakes.tower()
    before, random = copy.deepcopy(start.encoder.state_dict()), torch.get_rng_state()
    recipe = fakes.recipe(epochs=20, learning_rate=1e-2, batch_size=8)

    trained = train_on_images(start, TrainData(images, images), recipe, tmp_path)

    asked = [one for one in read_log(tmp_path) if "validation_accuracy" in one]
    right = logits(trained, images).argmax(dim=1).numpy() == images.labels
    assert len(asked) == 20
    assert asked[-1]["validation_accuracy"] == right.mean() > 0.9
    assert torch.equal(torch.get_rng_state(), random)
    assert_close(start.encoder.state_dict(), before, rtol=0, atol=0)
    assert not start.encoder.training
    assert not is_initialized()
    assert (trained.name, trained.role) == (start.name, start.role)


def test_what_it_writes(tmp_path: Path, images: ImageSet):
    trained = train_on_images(fakes.tower(), TrainData(images, images), fakes.recipe(), tmp_path)

    assert same(load_classifier(tmp_path / MODEL_FILE), trained)
    assert not (tmp_path / CHECKPOINT_FILE).exists()
    log = read_log(tmp_path)
    steps = [one for one in log if "loss" in one]
    assert [one["step"] for one in steps] == list(range(1, 13))
    assert [one["epoch"] for one in steps] == [0] * 6 + [1] * 6
    assert [one["learning_rate"] for one in steps] == [
        fakes.recipe().lr(step, 6) for step in range(12)
    ]
    assert all(one["accuracy"] in {0, 0.25, 0.5, 0.75, 1} for one in steps)
    assert [one["step"] for one in log if "validation_accuracy" in one] == [6, 12]
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["batch_size"] == 4


def test_tensorboard_holds_the_log(tmp_path: Path, lessons: TrainData):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)

    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = [(event.step, event.value) for event in board.Scalars("loss")]
    assert shown == [
        (one["step"], pytest.approx(one["loss"], rel=1e-6)) for one in read_log(tmp_path)
    ]


def test_without_tensorboard(tmp_path: Path, lessons: TrainData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)

    train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)

    assert not (tmp_path / "tensorboard").exists()
    assert len(read_log(tmp_path)) == 12


def test_weights_and_biases_only_where_asked(
    tmp_path: Path, lessons: TrainData, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "wandb.py").write_text(
        "told = []\nclass Run:\n"
        "  def log(self, values, step): told.append((step, values))\n"
        "  def finish(self): told.append('finished')\n"
        "def init(**options):\n  told.append(options)\n  return Run()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import wandb

    train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path / "quiet")
    assert wandb.told == []

    out = tmp_path / "told"
    train_on_images(
        fakes.tower(), lessons, fakes.recipe(), out, compute_config=ComputeConfig(wandb=True)
    )
    assert wandb.told[0]["name"] == "tiny"
    assert [one[1]["loss"] for one in wandb.told[1:-1]] == [one["loss"] for one in read_log(out)]
    assert wandb.told[-1] == "finished"


def test_weights_and_biases_that_is_not_installed(
    tmp_path: Path, lessons: TrainData, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb, or leave out --wandb"):
        train_on_images(
            fakes.tower(),
            lessons,
            fakes.recipe(),
            tmp_path,
            compute_config=ComputeConfig(wandb=True),
        )
    assert not list(tmp_path.iterdir())


def dropping() -> Classifier:
    """A tower that drops half of its patches at random."""
    config = {**fakes.VIT, "vision_cfg": {**fakes.VIT["vision_cfg"], "patch_dropout": 0.5}}
    start = fakes.tower()
    encoder = fakes.build_encoder(config)
    encoder.load_state_dict(start.encoder.state_dict())
    blueprint = replace(start.spec, architecture=config)
    return replace(start, encoder=encoder, spec=blueprint)


@pytest.mark.parametrize("make", [fakes.tower, fakes.tower_with_batchnorm, dropping])
@pytest.mark.parametrize("stop", [1, 6, 9])
def test_an_interrupted_run_ends_in_the_same_bits(
    tmp_path: Path, images: ImageSet, make: type[Classifier], stop: int
):
    lessons, running = (TrainData(images, images), ComputeConfig(checkpoint_every=2, micro_batch=2))
    unbroken = train_on_images(
        make(), lessons, fakes.recipe(), tmp_path / "a", compute_config=running
    )

    def interrupt(_: str, done: int, __: int) -> None:
        torch.rand(done)  # what others draw meanwhile changes nothing
        if done == stop:
            raise KeyboardInterrupt

    broken = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        train_on_images(
            make(), lessons, fakes.recipe(), broken, compute_config=running, progress=interrupt
        )
    resumed = []
    trained = train_on_images(
        make(),
        lessons,
        fakes.recipe(),
        broken,
        compute_config=running,
        progress=lambda _, done, __: resumed.append(done),
    )

    assert same(trained, unbroken)
    assert (broken / LOG_FILENAME).read_bytes() == (tmp_path / "a" / LOG_FILENAME).read_bytes()
    # the checkpoint before the interruption: every second step's, or an epoch's end
    assert resumed[0] == {1: 0, 6: 4, 9: 8}[stop] + 1


def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path, images: ImageSet):
    """Killed twice by the system, wherever it was."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    running = ComputeConfig(checkpoint_every=1, micro_batch=2)
    lessons = TrainData(images, images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = train_on_images(
        fakes.tower(), lessons, fakes.recipe(), unbroken, compute_config=running
    )
    for lines in (2, 7):
        command = [sys.executable, fakes.__file__, "slowly", images.root, broken]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while process.poll() is None and count(broken / LOG_FILENAME) < lines:
            time.sleep(0.001)
        process.kill()
        _, said = process.communicate()
        assert count(broken / LOG_FILENAME) >= lines, said

    trained = train_on_images(
        fakes.tower(), lessons, fakes.recipe(), broken, compute_config=running
    )
    torch.set_num_threads(threads)

    assert not list(broken.glob(".*"))
    assert same(trained, expected)
    assert (broken / LOG_FILENAME).read_bytes() == (unbroken / LOG_FILENAME).read_bytes()


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_workers_change_nothing(tmp_path: Path, lessons: TrainData):
    recipe = fakes.recipe(augmentation=Augmentation((0.1, 1.0), flip=True), epochs=1)

    by_thread = train_on_images(fakes.tower(), lessons, recipe, tmp_path / "a")
    running = ComputeConfig(workers=2)
    by_process = train_on_images(
        fakes.tower(), lessons, recipe, tmp_path / "b", compute_config=running
    )

    assert same(by_thread, by_process)


def test_the_stream_depends_on_seed_epoch_and_image_alone(images: ImageSet):
    recipe = fakes.recipe(batch_size=5, augmentation=Augmentation((0.1, 1.0), flip=True))
    stream = AugmentedStream.from_images(images, recipe)
    turns = [stream.epoch_and_index(turn) for turn in range(40)]
    first, second = ([image for epoch, image in turns if epoch == e] for e in (0, 1))

    assert len(set(first)) == len(set(second)) == 20  # 4 of 24 make no whole batch
    assert first != second

    def crops(one: AugmentedStream, epoch: int) -> dict[int, bytes]:
        held = range(20 * epoch, 20 * epoch + 20)
        return {one.epoch_and_index(turn)[1]: one.open(turn).tobytes() for turn in held}

    larger = AugmentedStream.from_images(images, replace(recipe, batch_size=10, epochs=7))
    other = AugmentedStream.from_images(images, replace(recipe, seed=1))
    assert crops(stream, 0) == crops(larger, 0)
    both = crops(stream, 0).keys() & crops(stream, 1).keys() & crops(other, 0).keys()
    for image in both:
        seen = {crops(one, e)[image] for one, e in ((stream, 0), (stream, 1), (other, 0))}
        assert len(seen) == 3


def test_a_whole_crop_is_what_the_encoder_is_shown(images: ImageSet):
    """A square image, cropped to all of itself, as the model's own preprocessing has it."""
    start = fakes.tower()
    square = images.open(0).crop((0, 0, 20, 20))

    assert_close(crop_transform(start)(square), start.transform(square), rtol=0, atol=0)


def test_a_finished_run_is_read(tmp_path: Path, lessons: TrainData):
    first = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)

    def fail(*_: object) -> None:
        raise AssertionError

    again = replace(fakes.tower(), name="renamed", role="other")
    second = train_on_images(again, lessons, fakes.recipe(), tmp_path, progress=fail)

    assert same(first, second)
    assert (second.name, second.role) == ("renamed", "other")


@pytest.mark.parametrize("other", ["recipe", "encoder", "head", "images", "precision"])
def test_another_run_s_folder_is_refused(tmp_path: Path, images: ImageSet, other: str):
    start, lessons, recipe = fakes.tower(), TrainData(images), fakes.recipe(epochs=1)
    train_on_images(start, lessons, recipe, tmp_path)
    running = ComputeConfig()
    match other:
        case "recipe":
            recipe = replace(recipe, seed=1)
        case "encoder":
            start = replace(start, encoder=fakes.tower(seed=1).encoder)
        case "head":
            start = replace(start, head=replace(start.head, normalizes=True))
        case "images":
            lessons = TrainData(images.exclude([3]))
        case _:
            running = ComputeConfig(precision="bfloat16")

    with pytest.raises(ValueError, match=rf"another training run, which differs in: {other}\. Use"):
        train_on_images(start, lessons, recipe, tmp_path, compute_config=running)


def test_another_run_s_checkpoint_is_refused(tmp_path: Path, lessons: TrainData):
    def interrupt(_: str, done: int, __: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            train_on_images(
                fakes.tower(),
                lessons,
                fakes.recipe(seed=seed),
                tmp_path / str(seed),
                compute_config=ComputeConfig(checkpoint_every=3),
                progress=interrupt,
            )
    (tmp_path / "1" / CHECKPOINT_FILE).replace(tmp_path / "0" / CHECKPOINT_FILE)

    with pytest.raises(ValueError, match="is of another training run: remove it"):
        train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path / "0")


def test_a_model_of_no_known_run_is_not_touched(tmp_path: Path, lessons: TrainData):
    (tmp_path / MODEL_FILE).write_bytes(b"precious")

    with pytest.raises(
        ValueError, match=r"holds model\.safetensors but no run\.json, so its run is unknown"
    ):
        train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)
    assert (tmp_path / MODEL_FILE).read_bytes() == b"precious"


def test_bfloat16_learns_nearly_the_same(tmp_path: Path, lessons: TrainData):
    exact = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path / "a")
    running = ComputeConfig(precision="bfloat16")
    short = train_on_images(
        fakes.tower(), lessons, fakes.recipe(), tmp_path / "b", compute_config=running
    )

    assert not same(exact, short)
    assert load_file(tmp_path / "b" / MODEL_FILE)["head.weight"].dtype == torch.float32
    ours, expected = (logits(one, lessons.train) for one in (short, exact))
    assert_close(ours, expected, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": None}, "The images of pets have no labels"),
        ({"classes": ("a", "b", "c")}, "The 3 classes of pets do not match the 3 classes of tiny"),
    ],
)
def test_images_that_do_not_fit(
    tmp_path: Path, images: ImageSet, change: dict[str, object], match: str
):
    with pytest.raises(ValueError, match=match):
        train_on_images(
            fakes.tower(), TrainData(replace(images, **change)), fakes.recipe(), tmp_path
        )


def test_models_that_do_not_fit(tmp_path: Path, lessons: TrainData):
    start = fakes.tower()
    empty = replace(start.head, weight=torch.zeros(0, fakes.FEATURES), bias=None)
    anysize = replace(start.transform, resize=None, crop=None)
    for wrong, match in (
        (replace(start, head=empty, classes=()), "tiny has no head to train"),
        (replace(start, spec=None), "tiny could not be saved after training"),
        (replace(start, transform=anysize), "has no fixed input size"),
    ):
        with pytest.raises(ValueError, match=match):
            train_on_images(wrong, lessons, fakes.recipe(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite(tmp_path: Path, lessons: TrainData):
    recipe = fakes.recipe(learning_rate=1e30)

    with pytest.raises(ValueError, match=r"loss is (nan|inf) at step \d+; lower the"):
        train_on_images(fakes.tower(), lessons, recipe, tmp_path)
    assert not (tmp_path / MODEL_FILE).exists()


def test_an_image_that_cannot_be_read(tmp_path: Path):
    images = fakes.write_images(tmp_path / "pets", 8)
    images.path(5).write_bytes(b"no image")

    with pytest.raises(ValueError, match=f"Cannot read the image {images.path(5)}"):
        train_on_images(fakes.tower(), TrainData(images), fakes.recipe(), tmp_path / "out")


@pytest.mark.parametrize(
    ("running", "match"),
    [
        ({"device": "cuda"}, "Cannot train on 'cuda'"),
        ({"precision": "float64"}, "Unknown precision 'float64'"),
    ],
)
def test_what_this_machine_cannot_do(
    tmp_path: Path, lessons: TrainData, running: dict[str, str], match: str
):
    if running.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=match):
        train_on_images(
            fakes.tower(),
            lessons,
            fakes.recipe(),
            tmp_path,
            compute_config=ComputeConfig(**running),
        )


@pytest.mark.parametrize("change", [{"micro_batch": 0}, {"workers": -1}])
def test_running_that_cannot_be(change: dict[str, int]):
    with pytest.raises(ValueError, match=f"{next(iter(change))} must be >= "):
        ComputeConfig(**change)


def test_batchnorm_remembers_the_micro_batches(tmp_path: Path, images: ImageSet):
    """The running mean of its first layer after one step in two halves, by hand."""
    start = fakes.tower_with_batchnorm()
    recipe = fakes.recipe(epochs=1, batch_size=24, augmentation=WHOLE)
    stream, shown = AugmentedStream.from_images(images, recipe), crop_transform(start)
    pixels = torch.stack([shown(stream.open(turn)) for turn in range(24)])
    with torch.no_grad():
        means = [start.encoder.stem[0][0](part).mean(dim=(0, 2, 3)) for part in pixels.split(12)]
    expected = 0.9 * (0.1 * means[0]) + 0.1 * means[1]

    running = ComputeConfig(micro_batch=12)
    trained = train_on_images(start, TrainData(images), recipe, tmp_path, compute_config=running)

    found = trained.encoder.stem[0][1].running_mean
    assert_close(found, expected, rtol=0, atol=1e-5)
    assert np.isfinite(found.numpy()).all()


def test_a_run_is_known_by_all_that_moves_its_weights(lessons: TrainData):
    plain = run_key(fakes.tower(), lessons, fakes.recipe(), ComputeConfig())
    norm = run_key(fakes.tower_with_batchnorm(), lessons, fakes.recipe(), ComputeConfig())

    assert run_key(fakes.tower(), lessons, fakes.recipe(epochs=3), ComputeConfig()) != plain
    assert run_key(fakes.tower(seed=1), lessons, fakes.recipe(), ComputeConfig()) != plain
    small = ComputeConfig(micro_batch=2)
    assert run_key(fakes.tower(), lessons, fakes.recipe(), small) == plain
    assert run_key(fakes.tower_with_batchnorm(), lessons, fakes.recipe(), small) != norm


# Damage, killed writes, and company.


def flip_last_bit(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()  # a model that was read from it still has its pages
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_damaged_model_is_named_and_trained_again(tmp_path: Path, lessons: TrainData):
    first = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)
    flip_last_bit(tmp_path / MODEL_FILE)

    with pytest.warns(UserWarning, match=rf"{MODEL_FILE} is damaged.* The model is trained again"):
        second = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)

    assert same(first, second)
    assert same(load_classifier(tmp_path / MODEL_FILE), first)


def test_a_damaged_checkpoint_is_named_and_the_run_starts_anew(tmp_path: Path, lessons: TrainData):
    expected = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path / "whole")

    def interrupt(_: str, done: int, __: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on_images(
            fakes.tower(), lessons, fakes.recipe(), tmp_path / "cut", progress=interrupt
        )
    flip_last_bit(tmp_path / "cut" / CHECKPOINT_FILE)
    steps: list[int] = []
    with pytest.warns(UserWarning, match=rf"{CHECKPOINT_FILE} is damaged.* The run starts anew"):
        trained = train_on_images(
            fakes.tower(),
            lessons,
            fakes.recipe(),
            tmp_path / "cut",
            progress=lambda _, done, __: steps.append(done),
        )

    assert steps[0] == 1
    assert same(trained, expected)
    logs = [(tmp_path / name / LOG_FILENAME).read_bytes() for name in ("cut", "whole")]
    assert logs[0] == logs[1]


def test_two_processes_do_not_train_the_same_model(tmp_path: Path, lessons: TrainData):
    """A second run of the folder is refused while the first one trains, and reads it then."""
    tried: list[str] = []

    def try_too(*_: object) -> None:
        if not tried:
            with pytest.raises(BlockingIOError, match=r"is in use by process .*: wait") as error:
                train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)
            tried.append(str(error.value))

    first = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path, progress=try_too)
    with lock_folder(tmp_path):  # a finished run is read while another process holds the lock
        second = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)

    assert tried
    assert same(first, second)


def test_a_model_that_another_process_just_finished_is_read(
    tmp_path: Path, lessons: TrainData, monkeypatch: pytest.MonkeyPatch
):
    """It finishes after this one saw no model, and before this one has the lock."""
    lock = image_run.lock_folder

    def finish_first(out: Path) -> AbstractContextManager[None]:
        monkeypatch.setattr(image_run, "lock_folder", lock)
        train_on_images(fakes.tower(), lessons, fakes.recipe(), out)
        return lock(out)

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(image_run, "lock_folder", finish_first)
    trained = train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path, progress=fail)

    assert image_run.lock_folder is lock  # so the other process did finish
    assert same(trained, load_classifier(tmp_path / MODEL_FILE))


@pytest.mark.parametrize(
    ("environment", "is_locked"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0", "RANK": "0"}, True),
        ({"RANK": "1"}, True),
        ({"LOCAL_RANK": "1", "RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "RANK": "8"}, False),
    ],
)
def test_the_first_process_locks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_locked: bool
):
    for name in ("LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with image_run._lock_run(tmp_path):
        assert (tmp_path / LOCK_FILE).exists() == is_locked


def test_what_a_killed_run_was_writing_is_swept(tmp_path: Path, lessons: TrainData):
    for name in (CHECKPOINT_FILE, MODEL_FILE, "run.json"):
        (tmp_path / f".{name}.0123abcd").write_bytes(b"half")

    train_on_images(fakes.tower(), lessons, fakes.recipe(), tmp_path)

    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]", "null", "\x00" * 9])
def test_a_folder_whose_run_cannot_be_read(tmp_path: Path, lessons: TrainData, content: str):
    train_on_images(fakes.tower(), lessons, fakes.recipe(epochs=1), tmp_path)
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(ValueError, match=r"differs in: run\.json, which cannot be read\. Use"):
        train_on_images(fakes.tower(), lessons, fakes.recipe(epochs=1), tmp_path)

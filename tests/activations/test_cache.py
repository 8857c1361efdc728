"""The store against damage, change, interruption and company."""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from helpers.encoding_fakes import (
    IMAGES,
    Slow,
    ToTensor,
    make_classifier,
    make_images,
    run_killed,
    run_slowly,
    write_image,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from earmark.activations import Activations, EncodeConfig, cache, cached_activations, encode
from earmark.activations.cache import Shard
from earmark.data.image_set import ImageSet
from earmark.models.classifier import Classifier

BY_TWO = EncodeConfig(batch_size=2)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return make_images(tmp_path / "images")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch):
    """Of ten images: three shards, of 4, 4 and 2."""
    monkeypatch.setattr(cache, "IMAGES_PER_SHARD", 4)


def shard_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file with a name, by its place in the folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def aside_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 16])
def test_equals_encode_bit_for_bit(images: ImageSet, tmp_path: Path, batch_size: int):
    classifier = make_classifier()

    stored = cached_activations(
        classifier, images, tmp_path / "s", encoding=EncodeConfig(batch_size)
    )

    assert torch.equal(stored.tensor(), encode(classifier, images, batch_size=batch_size))
    assert len(stored) == IMAGES
    assert stored.skipped == ()
    size = max(1, 4 // batch_size) * batch_size
    assert [len(b) for b in stored.batches] == [
        min(size, IMAGES - start) for start in range(0, IMAGES, size)
    ]
    assert len(shard_files(tmp_path / "s")) == len(stored.batches)


def test_encodes_once(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    folder, done = tmp_path / "a" / "b", []
    first = cached_activations(
        classifier, images, folder, encoding=BY_TWO, progress=lambda *n: done.append(n)
    )
    written = contents(folder), [path.stat().st_mtime_ns for path in shard_files(folder)]
    moved = replace(images, name="renamed")

    again = cached_activations(
        replace(classifier, name="renamed"),
        moved,
        folder,
        encoding=EncodeConfig(batch_size=2, workers=1, skip_unreadable=True),
        progress=lambda *_: 1 / 0,
    )

    assert torch.equal(again.tensor(), first.tensor())
    assert done == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]
    assert written[0] == contents(folder)
    assert written[1] == [path.stat().st_mtime_ns for path in shard_files(folder)]


def test_goes_on_where_it_stopped(images: ImageSet, tmp_path: Path):
    classifier, done = make_classifier(), []

    def interrupt(now: int, _: int) -> None:
        if now == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO, progress=interrupt)
    assert [path.name for path in shard_files(tmp_path / "s")] == ["00000.safetensors"]

    cached_activations(
        classifier, images, tmp_path / "s", encoding=BY_TWO, progress=lambda *n: done.append(n)
    )
    cached_activations(classifier, images, tmp_path / "whole", encoding=BY_TWO)

    assert done == [(6, 10), (8, 10), (10, 10)]
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def started(*arguments: object, run: Callable[..., None] = run_slowly) -> BaseProcess:
    context = get_context("forkserver")
    context.set_forkserver_preload(["earmark.activations.cache"])
    process = context.Process(target=run, args=arguments)
    process.start()
    return process


def finished(*processes: BaseProcess) -> bool:
    for process in processes:
        process.join()
    return all(process.exitcode == 0 for process in processes)


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path):
    """Before any line of the code that writes: one run is killed four times."""
    images = make_images(tmp_path / "images", 40)
    assert finished(started(images, tmp_path / "whole"))
    expected, draw = contents(tmp_path / "whole"), random.Random(0)  # noqa: S311
    assert len(expected) == 11
    shards: set[int] = set()

    for trial in range(16):
        folder = tmp_path / f"cut{trial // 4}"
        process = started(images, folder, draw.randrange(1, 500), run=run_killed)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found = contents(folder)
        assert found == {name: expected[name] for name in found}
        shards.add(len(shard_files(folder)))

    assert len(shards) > 2  # they were cut at different places
    for folder in tmp_path.glob("cut*"):
        assert finished(started(images, folder))
        assert contents(folder) == expected


def test_two_runs_at_once(tmp_path: Path):
    images = make_images(tmp_path / "images", 40)

    assert finished(*(started(images, tmp_path / "both") for _ in range(2)))
    assert finished(started(images, tmp_path / "alone"))

    assert contents(tmp_path / "both") == contents(tmp_path / "alone")
    assert aside_files(tmp_path / "both") == []


def test_clears_what_killed_runs_left_but_not_what_others_write(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)
    [folder] = (tmp_path / "s").iterdir()
    left, fresh = (folder / f".00001.safetensors.{name}" for name in ("0123abcd", "beef"))
    for path in (left, fresh):
        path.write_bytes(b"half")

    cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)

    assert aside_files(tmp_path / "s") == [fresh]


def test_a_person_is_told_what_it_is(images: ImageSet, tmp_path: Path):
    encoding = EncodeConfig(batch_size=2, kept_as="float16")
    cached_activations(make_classifier(), images, tmp_path / "s", encoding=encoding)

    [path] = (tmp_path / "s").glob("*/key.json")
    told = json.loads(path.read_text())

    assert (told["model"], told["dataset"], told["count"]) == ("tiny", "small", IMAGES)
    assert (told["batch_size"], told["precision"], told["kept_as"]) == (2, "float32", "float16")
    assert told["versions"]["torch"] == torch.__version__
    assert told["device"]["threads"] == torch.get_num_threads()


def changed_weight(classifier: Classifier, images: ImageSet) -> dict:
    with torch.no_grad():
        classifier.encoder[0].weight[3, 2, 1, 0] += 1e-6
    return {"classifier": replace(classifier)}


def changed_statistic(classifier: Classifier, images: ImageSet) -> dict:
    classifier.encoder[1].running_mean += 0.5
    return {"classifier": replace(classifier)}


def changed_weights_precision(classifier: Classifier, images: ImageSet) -> dict:
    classifier.encoder.double()
    return {"classifier": replace(classifier)}


def changed_transform(classifier: Classifier, images: ImageSet) -> dict:
    return {"classifier": replace(classifier, transform=ToTensor(scale=128.0))}


def changed_image(classifier: Classifier, images: ImageSet) -> dict:
    write_image(images.path(2), seed=99)
    return {}


def fewer_images(classifier: Classifier, images: ImageSet) -> dict:
    return {"images": replace(images, files=images.files[:-1])}


def other_batch_size(classifier: Classifier, images: ImageSet) -> dict:
    return {"encoding": EncodeConfig(batch_size=4)}


def other_precision(classifier: Classifier, images: ImageSet) -> dict:
    return {"encoding": EncodeConfig(batch_size=2, precision="bfloat16")}


@pytest.mark.parametrize(
    "change",
    [
        changed_weight,
        changed_statistic,
        changed_weights_precision,
        changed_transform,
        changed_image,
        fewer_images,
        other_batch_size,
        other_precision,
    ],
)
def test_whatever_changes_the_values_changes_the_key(
    images: ImageSet, tmp_path: Path, change: Callable[[Classifier, ImageSet], dict]
):
    call = {"classifier": make_classifier(), "images": images, "encoding": BY_TWO}
    cached_activations(cache=tmp_path / "s", **call)
    call |= change(call["classifier"], images)

    stored = cached_activations(cache=tmp_path / "s", **call)

    encoding = call.pop("encoding")
    size, precision = encoding.batch_size, encoding.precision
    expected = encode(**call, batch_size=size, precision=precision)
    assert torch.equal(stored.tensor(), expected)
    assert len(list((tmp_path / "s").iterdir())) == 2


def test_other_threads_and_other_shards_have_other_keys(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    classifier, before = make_classifier(), torch.get_num_threads()
    cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)
    try:
        torch.set_num_threads(before + 1)
        cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(cache, "IMAGES_PER_SHARD", 6)
    cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)

    assert len(list((tmp_path / "s").iterdir())) == 3


def expect_mended(
    classifier: Classifier, images: ImageSet, folder: Path, wrong: Path, why: str
) -> None:
    """Only the wrong shard is made again, and after that no one is warned."""
    before = {path: path.stat().st_ino for path in shard_files(folder)}
    done = []
    with pytest.warns(UserWarning, match=rf"^{wrong} .*{why}.* It is computed again\.$") as told:
        mended = cached_activations(
            classifier, images, folder, encoding=BY_TWO, progress=lambda *n: done.append(n)
        )
    assert len(told) == 1
    assert torch.equal(mended.tensor(), encode(classifier, images, batch_size=2))
    assert {p for p in before if p.stat().st_ino != before[p]} <= {wrong}
    assert done[-1] == (10, 10)
    assert len(done) == (1 if wrong.name == "00002.safetensors" else 2)
    cached_activations(classifier, images, folder, encoding=BY_TWO, progress=lambda *_: 1 / 0)


def test_any_flipped_byte_is_noticed_and_mended(images: ImageSet, tmp_path: Path):
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    expected, path = contents(folder), shard_files(folder)[1]
    whole = path.read_bytes()

    for place in [*range(0, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        expect_mended(classifier, images, folder, path, "")
        assert contents(folder) == expected


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_that_was_cut_off(images: ImageSet, tmp_path: Path, length: int):
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    path = shard_files(folder)[2]
    path.write_bytes(path.read_bytes()[:length])

    expect_mended(classifier, images, folder, path, "is not a file of activations")


@pytest.mark.parametrize(("old", "new"), [(b"[4,6]", b"[6,4]"), (b'"F32"', b'"I32"')])
def test_a_header_that_tells_another_shape(
    images: ImageSet, tmp_path: Path, old: bytes, new: bytes
):
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    path = shard_files(folder)[0]
    whole = path.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))

    expect_mended(classifier, images, folder, path, "is damaged")


@pytest.mark.parametrize("metadata", [None, {"earmark": "[]"}, {"earmark": "{"}])
def test_a_file_that_somebody_else_made(images: ImageSet, tmp_path: Path, metadata: dict | None):
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    path = shard_files(folder)[0]
    save_file({"activations": torch.ones(4, 6)}, path, metadata=metadata)

    expect_mended(classifier, images, folder, path, "")


def test_a_shard_of_another_place(images: ImageSet, tmp_path: Path):
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    first, second, _ = shard_files(folder)
    shutil.copy(second, first)

    expect_mended(classifier, images, folder, first, "of another model, dataset or setting")


def test_a_shard_of_another_model(images: ImageSet, tmp_path: Path):
    mine, other = make_classifier(), make_classifier()
    for name, classifier in (("mine", mine), ("other", other)):
        cached_activations(classifier, images, tmp_path / name, encoding=BY_TWO)
    path = shard_files(tmp_path / "mine")[1]
    shutil.copy(shard_files(tmp_path / "other")[1], path)

    expect_mended(mine, images, tmp_path / "mine", path, "of another model, dataset or setting")


@pytest.mark.parametrize("kept_as", ["float32", "bfloat16", "float16"])
def test_kept_as(images: ImageSet, tmp_path: Path, kept_as: str):
    classifier = make_classifier()
    encoding = EncodeConfig(batch_size=2, kept_as=kept_as)

    stored = cached_activations(classifier, images, tmp_path / "s", encoding=encoding)

    dtype = getattr(torch, kept_as)
    exact = encode(classifier, images, batch_size=2)
    assert [batch.dtype for batch in stored.batches] == [dtype] * 3
    assert stored.tensor().dtype == torch.float32
    assert torch.equal(stored.tensor(), exact.to(dtype).float())
    loaded = [load_file(path)["activations"] for path in shard_files(tmp_path / "s")]
    assert torch.equal(torch.cat(loaded), exact.to(dtype))


def test_numbers_too_large_for_float16(images: ImageSet, tmp_path: Path):
    def transform(image: Image.Image) -> torch.Tensor:
        return ToTensor()(image) * (70000 if image == images.open(7) else 1)

    classifier = make_classifier(nn.Flatten(), transform)
    message = r"overflow float16 for image 7 of small, .*/7\.png: use --activation-dtype bfloat16 "
    with pytest.raises(ValueError, match=message):
        cached_activations(
            classifier,
            images,
            tmp_path / "s",
            encoding=EncodeConfig(batch_size=2, kept_as="float16"),
        )
    for kept_as in ("bfloat16", "float32"):
        encoding = EncodeConfig(batch_size=2, kept_as=kept_as)
        stored = cached_activations(classifier, images, tmp_path / "s", encoding=encoding)
        assert stored.tensor().isfinite().all()


def break_images(images: ImageSet, places: list[int]) -> None:
    for place in places:
        images.path(place).write_bytes(b"no image")


SKIPPING = EncodeConfig(batch_size=2, skip_unreadable=True)


@pytest.mark.parametrize(
    "broken", [[0], [3, 9], [0, 1], [4, 5, 6, 7], [*range(4), 5, 8], [*range(9)]]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_skips_images_that_cannot_be_read(
    images: ImageSet, tmp_path: Path, broken: list[int], workers: int
):
    classifier = make_classifier()
    whole = encode(classifier, images, batch_size=2)
    break_images(images, broken)

    for _ in range(2):
        stored = cached_activations(
            classifier, images, tmp_path / "s", encoding=replace(SKIPPING, workers=workers)
        )
        assert stored.skipped == tuple(broken)
        left = [image for image in range(IMAGES) if image not in broken]
        assert torch.equal(stored.tensor(), whole[left])
        assert len(stored) == len(left)


def test_an_image_that_cannot_be_read(images: ImageSet, tmp_path: Path):
    break_images(images, [6])

    with pytest.raises(ValueError, match=r"^Cannot .*/6\.png .*--skip-unreadable\.$"):
        cached_activations(make_classifier(), images, tmp_path / "s", encoding=BY_TWO)

    assert len(shard_files(tmp_path / "s")) == 1


def test_what_was_skipped_is_not_taken_by_who_would_not_skip(images: ImageSet, tmp_path: Path):
    classifier = make_classifier()
    break_images(images, [2, 5])
    cached_activations(classifier, images, tmp_path / "s", encoding=SKIPPING)

    with pytest.raises(ValueError, match=r"/2\.png.*--skip-unreadable\.$"):
        cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)


def test_no_image_that_can_be_read(images: ImageSet, tmp_path: Path):
    break_images(images, [*range(IMAGES)])

    for _ in range(2):
        with pytest.raises(ValueError, match=r"None of the 10 images of small .*/0\.png"):
            cached_activations(make_classifier(), images, tmp_path / "s", encoding=SKIPPING)


def test_an_image_that_is_gone(images: ImageSet, tmp_path: Path):
    images.path(4).unlink()

    with pytest.raises(ValueError, match=r"4\.png \(No such file.*--skip-unreadable"):
        cached_activations(make_classifier(), images, tmp_path / "s")

    skipping = EncodeConfig(batch_size=2, skip_unreadable=True)
    stored = cached_activations(make_classifier(), images, tmp_path / "s", encoding=skipping)
    assert stored.skipped == (4,)


def test_no_images(tmp_path: Path):
    with pytest.raises(ValueError, match="small has no images"):
        cached_activations(make_classifier(), ImageSet("small", Path(), ()), tmp_path / "s")


def test_writing_to_the_answer_changes_no_file(images: ImageSet, tmp_path: Path):
    stored = cached_activations(make_classifier(), images, tmp_path / "s")
    before = contents(tmp_path / "s")

    for batch in stored.batches:
        batch.zero_()

    assert contents(tmp_path / "s") == before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory")
def test_reading_a_part_takes_the_memory_of_a_part(tmp_path: Path):
    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) // 1024

    shard = Shard(tmp_path / "0.safetensors", "key", range(2**14))
    shard.write(torch.ones(2**14, 2**10), [])  # 64 MiB
    before = resident()

    kept = shard.read()
    some = float(kept.activations[100:200].sum())

    assert some == 100 * 2**10
    assert resident() - before < 16
    assert float(kept.activations.sum()) == 2**24
    assert resident() - before > 48


def test_an_interrupted_write_leaves_nothing(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_activations(make_classifier(), images, tmp_path / "s")

    assert shard_files(tmp_path / "s") == []
    assert aside_files(tmp_path / "s") == []


def test_a_full_disk(images: ImageSet, tmp_path: Path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    classifier = make_classifier(nn.Flatten())  # 12 kB of activations in a shard
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as raised:
            cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert Path(raised.value.filename).name == "00000.safetensors"
    assert aside_files(tmp_path / "s") == []


def test_a_store_that_is_a_file(images: ImageSet, tmp_path: Path):
    (tmp_path / "s").write_text("")

    with pytest.raises(OSError, match="Not a directory") as raised:
        cached_activations(make_classifier(), images, tmp_path / "s")

    assert str(raised.value.filename).startswith(str(tmp_path / "s"))


def test_modes_come_back(images: ImageSet, tmp_path: Path):
    classifier = make_classifier(Slow(0.0))
    classifier.encoder.train()

    cached_activations(classifier, images, tmp_path / "s", encoding=BY_TWO)

    assert classifier.encoder.training


def test_encoded_without_skipping_is_whole():
    one = Activations((torch.arange(6.0).view(2, 3),))

    assert one.tensor() is one.batches[0]
    assert one.skipped == ()


def test_a_shard_that_is_a_pipe_is_computed_again(images: ImageSet, tmp_path: Path):
    """Whoever opened it would wait without an end."""
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    path = shard_files(folder)[1]
    path.unlink()
    os.mkfifo(path)

    expect_mended(classifier, images, folder, path, "a pipe or device")


def test_metadata_that_is_nested_too_deep(images: ImageSet, tmp_path: Path):
    classifier, folder = make_classifier(), tmp_path / "s"
    cached_activations(classifier, images, folder, encoding=BY_TWO)
    path = shard_files(folder)[0]
    save_file({"activations": torch.ones(4, 6)}, path, metadata={"earmark": "[" * 100_000})

    expect_mended(classifier, images, folder, path, "nested too deep")

"""Fuzzer of the readers of files: `python tests/fuzz.py --seconds 300 [READER ...]`.

A valid file is changed at random (bits, bytes, cuts, lengths, hostile words) and read. A
reader may refuse it with a ValueError or an OSError. Any other error, a read of more than
10 seconds, a file written elsewhere, a connection, or a process counts as a failure, and
the file is kept.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

MAX_SECONDS = 10
ALLOWED_ERRORS = (ValueError, OSError)
WORDS = (
    b"9" * 400, b"-1", b"1e999", b"NaN", b"null", b"[" * 3000, b'{"a":' * 2000, b"\x00",
    b"\x1b[2J", b"../../x", b"/etc/passwd", b"/dev/zero", b"\xff\xfe", b"true", b"{}", b"[]",
    b"__import__", b"pretrained", b"trust_remote_code", b"http://localhost:1/", b"\xed\xa0\x80",
)  # fmt: skip

Make = Callable[[Path], list[Path]]
Read = Callable[[Path], object]


def mutate(data: bytes, rng: random.Random) -> bytes:  # noqa: C901
    """Return bytes with one to four random changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        if rng.random() < 0.5:
            at = min(at, rng.randrange(1, 2000))  # headers stand at the start
        match rng.randrange(9):
            case 0 | 1 if out:
                out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
            case 2:
                out[at:at] = rng.choice(WORDS)
            case 3:
                del out[at:]
            case 4:
                del out[at : at + rng.randrange(1, 64)]
            case 5:
                out[at : at + 8] = rng.choice((b"\xff" * 8, b"\x00" * 8, rng.randbytes(8)))
            case 6:
                other = rng.randrange(len(out) + 1)
                out[at:at] = out[other : other + rng.randrange(1, 200)]
            case 7:
                digits = [i for i, byte in enumerate(out[:4000]) if 48 <= byte <= 57]
                if digits:
                    place = rng.choice(digits)
                    out[place : place + 1] = rng.choice((b"-1", b"99999999999", b"0.5", b"0"))
            case _:
                words = rng.choice(WORDS)
                out[at : at + len(words)] = words
    return bytes(out)


def _write_json(path: Path, value: object) -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return [path]


def _make_records(folder: Path) -> list[Path]:
    from helpers.report_fakes import fake_records

    from earmark.records import write_records

    write_records(folder / "records.parquet", fake_records(directions=3)[:400])
    return [folder / "records.parquet"]


def _read_records(folder: Path) -> object:
    from earmark.records import read_records

    return read_records(folder / "records.parquet")


def _make_study(folder: Path) -> list[Path]:
    _make_records(folder)
    missing = [{"quantity": "a", "needs": "b"}]
    scan = {"model": "m", "role": "other", "summary": [], "missing": missing}
    return _write_json(folder / "scan.json", scan)


def _read_study(folder: Path) -> object:
    from earmark.api import SCAN_FILE, Study, _read_scan_file

    _read_scan_file(folder / SCAN_FILE)
    return Study(folder).summary()


def _make_saved(folder: Path) -> list[Path]:
    from earmark import load_model

    load_model("lab:zero-shot").save(folder / "model.safetensors")
    return [folder / "model.safetensors"]


def _read_saved(folder: Path) -> object:
    from earmark import load_model

    return load_model(str(folder / "model.safetensors"))


def _make_checkpoint(folder: Path) -> list[Path]:
    import torch

    state = {"fc.weight": torch.randn(4, 8), "fc.bias": torch.zeros(4), "epoch": 3}
    torch.save({"state_dict": state, "args": {"lr": 0.1}}, folder / "net.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return [folder / "net.pt", folder / "old.pth"]


def _read_checkpoints(folder: Path) -> object:
    from earmark.models.checkpoints import read_state_dict

    for name in ("net.pt", "old.pth"):
        try:
            read_state_dict(folder / name)
        except ALLOWED_ERRORS as error:
            _check_message(error)
    return None


def _make_heads(folder: Path) -> list[Path]:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    np.save(folder / "head.npy", np.eye(4, 8, dtype=np.float32))
    np.savez(folder / "head.npz", weight=np.eye(4, 8, dtype=np.float32))
    save_file({"weight": torch.eye(4, 8), "bias": torch.zeros(4)}, folder / "head.safetensors")
    return [folder / f"head.{suffix}" for suffix in ("npy", "npz", "safetensors")]


def _read_heads(folder: Path) -> object:
    from earmark.models.checkpoints import read_head

    for suffix in ("npy", "npz", "safetensors"):
        try:
            read_head(folder / f"head.{suffix}", normalizes=False)
        except ALLOWED_ERRORS as error:
            _check_message(error)
    return None


def _make_open_clip(folder: Path) -> list[Path]:
    from earmark.models import _torchvision_compat  # noqa: F401, I001
    import open_clip
    from safetensors.torch import save_file

    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    path = folder / "open_clip_config.json"
    mean = [0.5] * 3
    content = {"model_cfg": config, "preprocess_cfg": {"mean": mean, "std": mean, "size": [32, 32]}}
    return [*_write_json(path, content), folder / "open_clip_model.safetensors"]


def _read_open_clip(folder: Path) -> object:
    from earmark import load_model

    return load_model(f"local-dir:{folder}", prompts=None)


def _make_hf(folder: Path) -> list[Path]:
    from earmark.models import _torchvision_compat  # noqa: F401, I001
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, num_labels=4,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return [
        folder / name for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    ]


def _read_hf(folder: Path) -> object:
    from earmark import load_model

    return load_model(f"hf:{folder}")


def _make_timm(folder: Path) -> list[Path]:
    from earmark.models import _torchvision_compat  # noqa: F401, I001
    import timm
    from safetensors.torch import save_file

    state = timm.create_model("test_resnet.r160_in1k", pretrained=False).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "net.safetensors")
    return [folder / "net.safetensors"]


def _read_timm(folder: Path) -> object:
    from earmark import load_model

    return load_model(f"timm:test_resnet,{folder / 'net.safetensors'}")


def _make_pool(folder: Path) -> list[Path]:
    path = folder / "pool.toml"
    path.write_text(
        'title = "Mine"\nalphas = [0.5]\nbaseline = "lab"\n[[shift]]\nname = "a"\nfolder = "b"\n'
        '[cka]\nlayers = ["stem"]\n[finetune]\nepochs = 2\n[[family]]\nbackbone = "B"\n'
        'pretraining = "P"\ngroup = "main"\nzero_shot = "lab:zero-shot"\nfinetuned = '
        '"lab:finetuned"\n[[supervised]]\nbackbone = "B"\nmodel = "lab:supervised"\n'
    )
    return [path]


def _read_pool(folder: Path) -> object:
    from earmark.study.config import load_study_config
    from earmark.study.plan import plan_study

    return plan_study(load_study_config(folder / "pool.toml"))


SHIFT_NAMES = ("imagenet", "imagenetv2", "imagenet-r", "imagenet-sketch", "objectnet", "imagenet-a")


def _make_tables(folder: Path) -> list[Path]:
    with (folder / "a.csv").open("w", newline="") as file:
        rows = [("model", *SHIFT_NAMES), ("x", *[0.5] * 6), ("y", *["40 %"] * 6)]
        csv.writer(file).writerows(rows)
    lines = [{"dataset": f"wds/{n}", "model": "m", "metrics": {"acc1": 0.4}} for n in SHIFT_NAMES]
    (folder / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return [folder / "a.csv", folder / "b.jsonl", *_write_json(folder / "c.json", lines)]


def _read_tables(folder: Path) -> object:
    from earmark.data.accuracy_tables import read_accuracies

    for name in ("a.csv", "b.jsonl", "c.json"):
        try:
            read_accuracies(folder / name)
        except ALLOWED_ERRORS as error:
            _check_message(error)
    return None


def _make_names(folder: Path) -> list[Path]:
    (folder / "names.txt").write_text("n01440764\ttench\nn01443537\tgoldfish\n")
    (folder / "templates.txt").write_text("a photo of a {}\na {}\n")
    _write_json(folder / "names.json", {"a": "tench", "b": ["goldfish"]})
    return [folder / name for name in ("names.txt", "templates.txt", "names.json")]


def _read_names(folder: Path) -> object:
    from earmark.models.zeroshot import load_prompts

    for names in ("names.txt", "names.json"):
        try:
            load_prompts(folder / names, str(folder / "templates.txt"))
        except ALLOWED_ERRORS as error:
            _check_message(error)
    return None


def _make_broden(folder: Path) -> list[Path]:
    from helpers.imagenet_trees import write_broden

    write_broden(folder / "broden1_224", images=6)
    files = sorted((folder / "broden1_224").rglob("*.csv"))
    return files * 3 + sorted((folder / "broden1_224").rglob("*.png"))[:4]


def _read_broden(folder: Path) -> object:
    from earmark.data.broden import read_concepts

    return read_concepts(folder / "broden1_224")


def _make_images(folder: Path) -> list[Path]:
    from PIL import Image

    files: list[Path] = []
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff"):
        path = folder / "images" / "a" / f"x.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((24, 18), 60).convert("RGB").save(path)
        files.append(path)
    return files


def _read_images(folder: Path) -> object:
    from earmark import encode, load_model
    from earmark.data.image_folder import read_unlabeled

    images = read_unlabeled(folder / "images", name="images")
    return encode(_cached_model(load_model), images)


_MODEL: list[Any] = []


def _cached_model(load: Callable[[str], Any]) -> Any:
    if not _MODEL:
        _MODEL.append(load("lab:untrained"))
    return _MODEL[0]


def _make_shards(folder: Path) -> list[Path]:
    (image,) = _make_images(folder)[1:2]
    (folder / "shards").mkdir()
    path = folder / "shards" / "imagenet1k-0.tar"
    with tarfile.open(path, "w") as tar:
        for index in range(4):
            (folder / "cls").write_text(str(index))
            tar.add(image, f"{index:04d}.jpg")
            tar.add(folder / "cls", f"{index:04d}.cls")
    (folder / "shards" / "classnames.txt").write_text("a\nb\nc\nd\n")
    return [path, path, folder / "shards" / "classnames.txt"]


def _read_shards(folder: Path) -> object:
    from earmark import encode, load_model
    from earmark.data.webdataset import read_shards

    images = read_shards(folder / "shards", name="shards", classes=("a", "b", "c", "d"))
    return encode(_cached_model(load_model), images)


def _make_cache(folder: Path) -> list[Path]:
    _make_images(folder)
    _read_cache(folder)
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file())


def _read_cache(folder: Path) -> object:
    from earmark import load_model
    from earmark.activations import cached_activations
    from earmark.data.image_folder import read_unlabeled

    images = read_unlabeled(folder / "images", name="images")
    return cached_activations(_cached_model(load_model), images, folder / "cache")


def _make_runs(folder: Path) -> list[Path]:
    lines = [{"step": i, "loss": 1.0, "validation_accuracy": 0.5} for i in range(4)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return [folder / "log.jsonl"]


def _read_runs(folder: Path) -> object:
    from earmark.training.run_log import read_log

    return read_log(folder)


READERS: dict[str, tuple[Make, Read]] = {
    "records": (_make_records, _read_records),
    "study-folder": (_make_study, _read_study),
    "saved-classifier": (_make_saved, _read_saved),
    "checkpoint": (_make_checkpoint, _read_checkpoints),
    "head": (_make_heads, _read_heads),
    "open_clip-folder": (_make_open_clip, _read_open_clip),
    "hf-folder": (_make_hf, _read_hf),
    "timm-file": (_make_timm, _read_timm),
    "pool": (_make_pool, _read_pool),
    "accuracy-table": (_make_tables, _read_tables),
    "class-names": (_make_names, _read_names),
    "broden": (_make_broden, _read_broden),
    "images": (_make_images, _read_images),
    "webdataset": (_make_shards, _read_shards),
    "activations": (_make_cache, _read_cache),
    "training-log": (_make_runs, _read_runs),
}


class Violation(BaseException):
    """A write elsewhere, a connection or a process, which no reader may make."""


_WATCHED: list[Path] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _WATCHED:
        return
    if event in {"socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.fork"}:
        raise Violation(f"{event}: {args!r}"[:300])
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str | None):
        is_write = bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        path = os.path.abspath(args[0])  # noqa: PTH100 (resolve() would open files)
        is_elsewhere = not path.startswith((str(_WATCHED[0]), "/dev/", "/proc/"))
        is_compiled = any(part in path for part in ("__pycache__", ".nbi", ".nbc"))
        if is_write and is_elsewhere and not is_compiled:
            raise Violation(f"write to {path}")


def _time_out(*_: object) -> None:
    raise Violation(f"no end after {MAX_SECONDS} s")


def _check_message(error: BaseException) -> None:
    text = str(error)
    if len(text) > 20_000 or "\x1b" in text:
        raise Violation(f"message of {len(text)} characters: {text[:100]!r}")


def fuzz(  # noqa: PLR0915 (one loop)
    name: str, seconds: float, seed: int, keep: Path
) -> dict[str, object]:
    """Read changed files of one kind for some seconds; return what happened."""
    make, read = READERS[name]
    rng = random.Random(seed)  # noqa: S311
    root = Path(mkdtemp(prefix=f"fuzz-{name}-"))
    valid, trial = root / "valid", root / "trial"
    valid.mkdir()
    targets = [path.relative_to(valid) for path in make(valid)]
    copytree(valid, trial)
    read(trial)  # the valid files are read
    sys.addaudithook(_audit)
    signal.signal(signal.SIGALRM, _time_out)
    counts = {"inputs": 0, "read": 0, "refused": 0, "failures": 0}
    slowest, end, kinds = 0.0, time.monotonic() + seconds, set[str]()
    while time.monotonic() < end:
        target = rng.choice(targets)
        data = mutate((valid / target).read_bytes(), rng)
        rmtree(trial)
        copytree(valid, trial)
        (trial / target).write_bytes(data)
        counts["inputs"] += 1
        start = time.monotonic()
        signal.alarm(MAX_SECONDS)
        _WATCHED[:] = [root]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(trial)
            counts["read"] += 1
        except ALLOWED_ERRORS as error:
            counts["refused"] += 1
            problem = _find_problem(error)
        except BaseException as error:  # noqa: BLE001 (that is what is looked for)
            problem = "".join(traceback.format_exception(error)[-3:])
        else:
            problem = ""
        finally:
            _WATCHED.clear()
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - start)
        if problem:
            counts["failures"] += 1
            kind = problem.strip().splitlines()[-1][:120]
            if kind not in kinds and len(kinds) < 20:
                kinds.add(kind)
                case = keep / f"{name}-{len(kinds)}"
                case.mkdir(parents=True, exist_ok=True)
                (case / target.name).write_bytes(data)
                (case / "problem.txt").write_text(f"{target}\n{problem}", errors="replace")
    rmtree(root)
    return {"reader": name, **counts, "slowest": round(slowest, 2), "kinds": sorted(kinds)}


def _find_problem(error: Exception) -> str:
    try:
        _check_message(error)
    except Violation as violation:
        return str(violation)
    return ""


def main() -> None:
    """Fuzz each reader in a process of its own, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=[*READERS], metavar="READER")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        (name,) = options.readers
        counts = fuzz(name, options.seconds, options.seed, options.keep)
        print(json.dumps(counts))  # noqa: T201
        return
    settings = ["--seconds", str(options.seconds), "--seed", str(options.seed)]
    for name in options.readers:
        command = [sys.executable, __file__, name, "--here", *settings, "--keep", str(options.keep)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = ran.stderr.strip().splitlines()[-1:]
        died = json.dumps({"reader": name, "died": ran.returncode, "why": reason})
        print(ran.stdout.strip() or died, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

"""Decode workers: what they import."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earmark.data.image_folder import read_unlabeled
from earmark.data.loader import load_batches
from earmark.models.preprocessing import Preprocessing

READ = """
import multiprocessing, os, sys
from pathlib import Path
from earmark.data import loader
from earmark.data.image_folder import read_unlabeled
from earmark.models.preprocessing import Preprocessing

if __name__ == "__main__":  # a spawned worker imports this file
    multiprocessing.get_all_start_methods = lambda: sys.argv[2:]
    transform = Preprocessing(8, (8, 8), (0.0,) * 3, (1.0,) * 3)
    images = read_unlabeled(Path(sys.argv[1]), name="images")
    batches = loader.load_batches(transform, images, [range(1)], 1, workers=1, device="cpu")
    print([batch.indices for batch in batches], os.environ.get("PYTHONSAFEPATH"))
"""
HOSTILE = "open({canary!r}, 'w').close()\nraise SystemExit(1)\n"


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_no_process_imports_from_the_current_folder(tmp_path: Path, method: str):
    strangers, canary = tmp_path / "strangers", tmp_path / "canary"
    (strangers / "photos").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(strangers / "photos" / "0.png")
    for name in ("multiprocessing", "socket", "signal", "warnings", "threading"):
        (strangers / f"{name}.py").write_text(HOSTILE.format(canary=str(canary)))
    script = tmp_path / "read.py"
    script.write_text(READ)
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONSAFEPATH"}

    ran = subprocess.run(
        [sys.executable, script, "photos", method],
        cwd=strangers,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert not canary.exists()
    assert ran.stdout == "[[0]] None\n", ran.stderr


def test_an_image_is_not_resized_to_a_huge_one(tmp_path: Path):
    for name, height in (("a.png", 80), ("b.png", 8)):
        Image.new("RGB", (1, height)).save(tmp_path / name)
    images = read_unlabeled(tmp_path, name="images")
    transform = Preprocessing(2_000, (2, 2), (0.0,) * 3, (1.0,) * 3)

    batches = load_batches(transform, images, [range(2)], 2, workers=0, device="cpu")
    (batch,) = batches

    assert batch.indices == [1]
    assert "320,000,000 with a shorter side of 2,000" in batch.unreadable[0]

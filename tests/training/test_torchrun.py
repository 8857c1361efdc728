"""Two processes under torchrun against one: the same gradient, the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import helpers.training_fakes as fakes
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from earmark.training.run_log import read_log

IMAGES = 21  # five whole batches of four, and one image that is left out


def torchrun(*arguments: object) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(
        command, env=os.environ | threads, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one process, by two, by two in parts, and by two on their own."""
    folder = tmp_path_factory.mktemp("runs")
    fakes.write_images(folder / "pets", IMAGES)
    threads = torch.get_num_threads()
    fakes.run_watched(folder / "pets", folder / "alone")
    torch.set_num_threads(threads)
    torchrun(Path(fakes.__file__), "together", folder / "pets", folder)
    return folder


def furthest(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def weights(run: Path, process: int = 0) -> dict[str, Tensor]:
    # the bias of attention's keys moves all logits of a query alike: its gradient is
    # nothing but rounding, of which AdamW makes steps of the usual length
    found = load_file(run / f"weights-{process}.safetensors")
    (bias,) = [key for key, value in found.items() if value.shape == (3 * fakes.WIDTH,)]
    query, _, value = found[bias].chunk(3)
    return found | {bias: torch.cat([query, value])}


def gradients(run: Path, process: int = 0) -> dict[str, Tensor]:
    return load_file(run / f"gradients-{process}.safetensors")


def test_processes_that_do_not_synchronise_part(runs: Path):
    """What the next test could not see would be no test: each learns from its half."""
    unsynchronised = runs / "unsynchronised"

    assert furthest(weights(unsynchronised, 0), weights(unsynchronised, 1)) > 1e-3
    assert furthest(weights(unsynchronised, 0), weights(runs / "alone")) > 1e-3


@pytest.mark.parametrize("run", ["shared", "in-parts"])
@pytest.mark.parametrize("process", [0, 1])
def test_two_processes_equal_one_after_twenty_steps(runs: Path, run: str, process: int):
    assert furthest(weights(runs / run, process), weights(runs / "alone")) < 1e-4


@pytest.mark.parametrize("run", ["shared", "in-parts"])
@pytest.mark.parametrize("process", [0, 1])
def test_the_first_gradients_are_equal(runs: Path, run: str, process: int):
    ours, alone = gradients(runs / run, process), gradients(runs / "alone")

    assert max(float(part.abs().max()) for part in alone.values()) > 0.01
    assert_close(ours, alone, rtol=1e-5, atol=1e-7)


def test_what_is_written_is_the_same(runs: Path):
    """The log's losses are of whole batches, and all validation images are asked."""
    alone, shared = read_log(runs / "alone"), read_log(runs / "shared")

    assert len(alone) == 24
    for ours, expected in zip(shared, alone, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
    assert len(list((runs / "shared").glob("*.jsonl"))) == 1

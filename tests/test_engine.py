"""Units of work give the same results here and on Ray, each under its index."""

import json
import subprocess
import sys
from operator import neg

import pytest

from earmark import engine
from earmark.engine import map_units

ON_RAY = """
from operator import neg
from earmark.engine import map_units

if __name__ == "__main__":
    print(sorted(map_units(neg, [3, 1, 2], engine="ray")))
"""


def test_units_run_here_in_order():
    assert [*map_units(neg, [3, 1, 2])] == [(0, -3), (1, -1), (2, -2)]


def test_units_run_on_ray_under_their_index():
    ran = subprocess.run(
        [sys.executable, "-c", ON_RAY], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[(0, -3), (1, -1), (2, -2)]"


def test_an_engine_must_exist(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="'local' or 'ray', got 'slurm'"):
        [*map_units(neg, [1], engine="slurm")]
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="Ray is not installed"):
        [*map_units(neg, [1], engine="ray")]


FAULTS = """
import json
import os
import signal
import sys
import time
from operator import neg

import ray

from earmark import engine


def fail(item):
    raise KeyError(f"no {item}")


def die(item):
    os._exit(1)


def kill_raylet(item):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


WORKS = {"gpus": neg, "cores": neg, "fail": fail, "die": die, "raylet": kill_raylet}

if __name__ == "__main__":
    engine._WAIT = 0.5
    ray.init(num_cpus=1, log_to_driver=False)
    for name in sys.argv[1:]:
        os.cpu_count = lambda: 4096 if name == "cores" else 1
        try:
            result = [*engine.map_units(WORKS[name], [1, 2], engine="ray", gpus=name == "gpus")]
        except Exception as error:
            result = [type(error).__name__, str(error)]
        print("RESULT", json.dumps(result))
"""


def errors_on_ray(*names: str) -> list[list[str]]:
    """Return type and message of the error of each work on one cluster of a single core."""
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS, *names], capture_output=True, text=True, check=False
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == len(names), ran.stderr
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


def test_what_a_cluster_can_never_run_is_an_error_and_what_a_unit_raises_too():
    gpus, cores, failed = errors_on_ray("gpus", "cores", "fail")

    there = "no machine of the Ray cluster has as many (1 CPU and 0 GPUs): start Ray with more"
    assert gpus[0] == cores[0] == "ValueError"
    assert f"Each unit asks for 1 CPU and 1 GPU on one machine, and {there}" in gpus[1]
    assert f"Each unit asks for 4096 CPUs and 0 GPUs on one machine, and {there}" in cores[1]
    assert failed == ["KeyError", "'no 1'"]


@pytest.mark.slow
@pytest.mark.parametrize(("work", "error"), [("die", "WorkerCrashed"), ("raylet", "LocalRaylet")])
def test_a_death_on_ray_is_an_error_of_one_line(work: str, error: str):
    ((kind, message),) = errors_on_ray(work)

    assert kind == "OSError"
    assert message.startswith(f"Ray lost a unit of work ({error}")
    assert message.endswith("run the same command again, which resumes, or use --engine local.")
    assert "\n" not in message


def node(cores: float, gpus: float = 0, *, is_alive: bool = True) -> dict[str, object]:
    resources = {"CPU": cores} | ({"GPU": gpus} if gpus else {})
    return {"Alive": is_alive, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "there"),
    [
        ([], "it has none"),
        ([node(8, 1, is_alive=False)], "it has none"),
        ([node(4, 1), node(8), node(8)], "8 CPUs and 0 GPUs; 4 CPUs and 1 GPU"),
        ([node(8, 1)], None),
        ([node(4), node(16, 2)], None),
    ],
)
def test_one_machine_must_have_all_that_a_unit_asks_for(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, object]], there: str | None
):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "nodes", lambda: nodes)

    if there is None:
        engine._check_resources(8, 1)
    else:
        with pytest.raises(ValueError, match=rf"8 CPUs and 1 GPU .* as many \({there}\): start"):
            engine._check_resources(8, 1)


@pytest.mark.parametrize("error", [ConnectionError("no\nhost"), RuntimeError("no"), ValueError()])
def test_a_cluster_that_does_not_start(monkeypatch: pytest.MonkeyPatch, error: Exception):
    ray = pytest.importorskip("ray")

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    match = r"^Ray did not start \((no|ValueError)\): check its cluster and RAY_ADDRESS, or use"
    with pytest.raises(OSError, match=match):
        [*map_units(neg, [1], engine="ray")]

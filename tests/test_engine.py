"""Units of work give the same results here and on Ray, each under its index."""

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

"""What the figures were measured on."""

import os
import platform
import re
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "earmark",
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "scipy",
    "scikit-learn",
    "numba",
    "torch_cka",
)
ALLOCATOR = ("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES")
THREADS = ("OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOMP_", "NUMBA_")


def machine() -> dict[str, str]:
    """The processor, memory, system, libraries, threads and allocator, by name."""
    import torch
    from threadpoolctl import threadpool_info

    pools = {
        f"{one['internal_api']} {one['version'] or ''} {one.get('architecture', '')}"
        f" ({one['num_threads']} threads)"
        for one in threadpool_info()
    }
    mkl = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    return {
        "measured": f"{date.today().isoformat()}, earmark at commit {_commit()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "caches": ", ".join(_caches()) or "not told",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        "BLAS and OpenMP": ", ".join(sorted(" ".join(pool.split()) for pool in pools)),
        "torch": f"{torch.get_num_threads()} threads, {mkl}, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "allocator": " ".join((*platform.libc_ver(), "malloc", *_set(ALLOCATOR))),
        "environment": " ".join(_set(THREADS)) or "nothing set",
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    root = Path(__file__).parent
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    return told.stdout.strip() or "unknown"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", listed.read_text()) if listed.exists() else None
    return found[1] if found else platform.processor() or "not told"


def _caches() -> list[str]:
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    return [
        f"L{_read(one / 'level')} {_read(one / 'type').lower()} {_read(one / 'size')}"
        for one in folders
    ]


def _read(file: Path) -> str:
    return file.read_text().strip()


def _memory() -> str:
    listed = Path("/proc/meminfo")
    if not listed.exists():
        return "not told"
    return f"{int(listed.read_text().split()[1]) / 2**20:.1f} GiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _set(prefixes: tuple[str, ...]) -> list[str]:
    return [f"{name}={value}" for name, value in os.environ.items() if name.startswith(prefixes)]

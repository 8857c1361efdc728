"""thingsvision in a process of its own, whose environment holds the libraries it needs."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from earmark.data.image_set import ImageSet
from earmark.models.classifier import Classifier

WORKER = Path(__file__).with_name("thingsvision_worker.py")


class Extractor:
    """A worker that extracts the features of one set of images whenever it is asked to."""

    def __init__(
        self, python: Path, model: Classifier, images: ImageSet, asked: Mapping[str, Any]
    ) -> None:
        self._folder = TemporaryDirectory()
        folder = Path(self._folder.name)
        weights = {k: v.contiguous() for k, v in model.encoder.state_dict().items()}
        save_file(weights, folder / "weights.safetensors")
        places = {
            "weights": str(folder / "weights.safetensors"),
            "images": str(images.root),
            "out": str(folder / "out"),
            "pixels": model.transform(images.open(0)).shape[-1],
        }
        self._peak: int | None = None
        self._saved = folder / "features.npy"
        self._worker = subprocess.Popen(  # noqa: S603 (the interpreter that was given)
            [python, "-I", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._tell(json.dumps({**asked, **places}))

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.communicate()
        self._folder.cleanup()

    def features(self) -> NDArray[np.float32]:
        """Extracted once more."""
        self._tell(str(self._saved))
        if self._worker.stdout is None or not (answer := self._worker.stdout.readline()):
            raise OSError("thingsvision's process ended: run its worker to see why.")
        self._peak = int(answer)
        return np.load(self._saved)

    def peak(self) -> int | None:
        """Bytes at the peak of the latest extraction, beyond what was held before."""
        return self._peak

    def _tell(self, line: str) -> None:
        if self._worker.stdin:
            self._worker.stdin.write(f"{line}\n")
            self._worker.stdin.flush()

"""What determines a study's records: their key holds it, so that none is ever stale."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256

import numpy as np
import torch

from ..activations import Encoding
from ..activations.keys import device_state
from ..data.images import ImageSet
from ..models.classifier import Classifier
from ..signatures.robustness import Baseline
from .sets import Sets

MEASURING = 2  # to be raised when earmark itself measures other values from the same


def key_of(what: str, **parts: object) -> str:
    """One hash of all that determines a piece of work.

    Args:
        what: The kind of work.
        **parts: What it depends on, as JSON can hold it.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> key_of("scan", seed=0) == key_of("scan", seed=1)
        False
    """
    known = {"what": what, "measuring": MEASURING, **parts}
    return sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def key_of_model(classifier: Classifier) -> dict[str, object]:
    """What fixes a classifier's predictions, and what it is called.

    Args:
        classifier: Any.

    Returns:
        Names, and hashes of its encoder and its head.
    """
    head = classifier.head
    values = [head.weight] if head.bias is None else [head.weight, head.bias]
    hashed = sha256(f"{head.normalizes} {classifier.classes}".encode())
    for value in values:
        hashed.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return {
        "name": classifier.name,
        "role": classifier.role,
        "backbone": classifier.backbone,
        "pretraining": classifier.pretraining,
        "encoder": classifier.fingerprint,
        "head": hashed.hexdigest(),
    }


def key_of_sets(sets: Sets) -> dict[str, object]:
    """What fixes the images, their labels and their concepts.

    Args:
        sets: Any.

    Returns:
        Hashes.
    """
    labelled = (sets.imagenet, *sets.shifts)
    known: dict[str, object] = {one.name: _key_of_images(one) for one in labelled}
    if sets.concepts is not None:
        hashed = sha256(repr(sets.concepts.concepts).encode())
        for places in sets.concepts.positives:
            hashed.update(np.asarray(places, dtype=np.int64).tobytes() + b";")
        images = _key_of_images(sets.concepts.images)
        known["concepts"] = [images, hashed.hexdigest()]
    return known


def _key_of_images(images: ImageSet) -> list[str]:
    labels = b"" if images.labels is None else np.asarray(images.labels).tobytes()
    said = f"{images.classes} {images.counts_as}".encode() + labels
    return [images.fingerprint(), sha256(said).hexdigest()]


def key_of_settings(encoding: Encoding, device: str) -> dict[str, object]:
    """What else the bits of activations depend on.

    Args:
        encoding: How they are computed and kept.
        device: Where.

    Returns:
        The settings, and the versions of what computes.
    """
    from importlib.metadata import version

    used = ("earmark", "torch", "numpy", "scipy", "numba", "pillow")
    return {
        "encoding": asdict(encoding) | {"workers": None},
        "device": device_state(torch.device(device)),
        "versions": {name: version(name) for name in used},
    }


def key_of_lines(lines: Sequence[Baseline]) -> list[list[object]]:
    """The lines that effective robustness is measured from."""
    return [
        [line.name, line.slope, line.intercept, *line.id_range, line.models]
        for line in lines
    ]

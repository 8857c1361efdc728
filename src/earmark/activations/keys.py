"""All that the bits of activations depend on, and its hash."""

import json
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import PIL
import torch

from ..data.images import ImageSet
from ..models.classifier import Classifier
from .encoding import Encoding, first_weight

_FORMAT = 1  # to be raised when earmark itself computes other values from the same
_NAMES = ("model", "dataset")  # for a person: the same weights under another name are equal


def describe(
    classifier: Classifier,
    images: ImageSet,
    encoding: Encoding,
    shard: int,
    fingerprint: str,
) -> dict[str, object]:
    """What is encoded and how, as JSON can hold it.

    Whether images that cannot be read are skipped is left out: a shard says which were.

    Args:
        classifier: The model.
        images: What it is shown.
        encoding: How activations are computed and kept.
        shard: How many images a shard holds.
        fingerprint: The classifier's.

    Returns:
        The names for a person, and what values depend on.
    """
    return {
        "model": classifier.name,
        "dataset": images.name,
        "weights and preprocessing": fingerprint,
        "images": images.fingerprint(),
        "count": len(images),
        "batch_size": encoding.batch_size,
        "shard": shard,
        "precision": encoding.precision,
        "kept_as": encoding.kept_as,
        "format": _FORMAT,
        "device": device_state(first_weight(classifier.encoder).device),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
    }


def digest(about: Mapping[str, object]) -> str:
    """SHA-256 over what values depend on, of what `describe` tells.

    Args:
        about: As `describe` returns it.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> digest({"model": "a", "count": 3}) == digest({"model": "b", "count": 3})
        True
    """
    kept = {name: value for name, value in about.items() if name not in _NAMES}
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def device_state(device: torch.device) -> dict[str, object]:
    """What sums are done on; on the CPU other numbers of threads gave other bits."""
    if device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        return {
            "type": "cpu",
            "capability": capability,
            "threads": torch.get_num_threads(),
            "mkldnn": torch.backends.mkldnn.enabled,
            "float32": torch.get_float32_matmul_precision(),
        }
    if device.type == "cuda":
        return {
            "type": "cuda",
            "name": torch.cuda.get_device_name(device),
            "cudnn": torch.backends.cudnn.version(),
            "benchmark": torch.backends.cudnn.benchmark,
            "float32": _float32(),
        }
    return {"type": device.type}


def _float32() -> list[str]:
    """How far convolutions and products of float32 are rounded on the way (TF32)."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # reading the older names raises once these were set
        return [str(cudnn.conv.fp32_precision), str(matmul.fp32_precision)]
    return [str(cudnn.allow_tf32), str(matmul.allow_tf32)]

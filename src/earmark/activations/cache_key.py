"""Hash of all that the bits of activations depend on."""

import json
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import PIL
import torch

from ..data.image_set import ImageSet
from ..models.classifier import Classifier
from .encoding import EncodeConfig, reference_parameter

_FORMAT_VERSION = 1  # raise it when earmark computes other values from the same inputs
_DISPLAY_FIELDS = ("model", "dataset")  # names for a person: not part of the hash


def cache_key_fields(
    classifier: Classifier,
    images: ImageSet,
    encoding: EncodeConfig,
    shard: int,
    fingerprints: tuple[str, str],
) -> dict[str, object]:
    """Return the classifier's and the dataset's names, and all that activations depend on."""
    # `shard` is the number of images in a shard; `fingerprints` are the classifier's and the
    # images'. `skip_unreadable` is left out, since each shard records which images it skipped.
    return {
        "model": classifier.name,
        "dataset": images.name,
        "weights and preprocessing": fingerprints[0],
        "images": fingerprints[1],
        "count": len(images),
        "batch_size": encoding.batch_size,
        "shard": shard,
        "precision": encoding.precision,
        "kept_as": encoding.kept_as,
        "format": _FORMAT_VERSION,
        "device": numerics_fingerprint(reference_parameter(classifier.encoder).device),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
    }


def cache_key(key_fields: Mapping[str, object]) -> str:
    """Return the SHA-256 of the result of `cache_key_fields`, but for the two names.

    >>> cache_key({"model": "a", "count": 3}) == cache_key({"model": "b", "count": 3})
    True
    """
    hashed = {name: value for name, value in key_fields.items() if name not in _DISPLAY_FIELDS}
    return sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


def numerics_fingerprint(device: torch.device) -> dict[str, object]:
    """Return the device's properties that decide the last bits of results."""
    if device.type == "cpu":
        return {
            "type": "cpu",
            "capability": torch.backends.cpu.get_cpu_capability(),
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
            "float32": _tf32_modes(),
        }
    return {"type": device.type}


def _tf32_modes() -> list[str]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # reading the older names raises once these were set
        return [str(cudnn.conv.fp32_precision), str(matmul.fp32_precision)]
    return [str(cudnn.allow_tf32), str(matmul.allow_tf32)]

"""Keys of records: hashes of everything that determines them, so that none is stale."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256

import numpy as np
import torch

from ..activations import EncodeConfig
from ..activations.cache_key import numerics_fingerprint
from ..data.image_set import ImageSet
from ..models.classifier import Classifier
from ..signatures.effective_robustness import Baseline
from .eval_sets import EvalSets

RECORD_VERSION = 8  # raised when earmark records something else for the same inputs


def record_key(kind: str, **inputs: object) -> str:
    """Return one hash of everything that determines a piece of work."""
    fields = {"what": kind, "measuring": RECORD_VERSION, **inputs}
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def model_key(classifier: Classifier) -> dict[str, object]:
    """Return the names of a classifier and the hashes of its encoder and head."""
    head = classifier.head
    values = [head.weight] if head.bias is None else [head.weight, head.bias]
    hashed = sha256(f"{head.normalizes} {head.precision} {classifier.classes}".encode())
    for value in values:
        hashed.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    names = ("name", "role", "backbone", "pretraining")
    labels = {name: getattr(classifier, name) for name in names}
    return {**labels, "encoder": classifier.fingerprint, "head": hashed.hexdigest()}


def eval_sets_key(eval_sets: EvalSets) -> dict[str, object]:
    """Return hashes of the images, their labels and their concepts."""
    eval_sets = eval_sets if eval_sets.fingerprints else eval_sets.with_fingerprints()
    hashes: dict[str, object] = {
        images.name: _images_key(images, eval_sets) for images in eval_sets.labeled_sets
    }
    if eval_sets.concepts is not None:
        digest = sha256(repr(eval_sets.concepts.concepts).encode())
        for positives in eval_sets.concepts.positives:
            digest.update(np.asarray(positives, dtype=np.int64).tobytes() + b";")
        for category, mask in eval_sets.concepts.annotated.items():
            digest.update(category.encode() + np.packbits(mask).tobytes() + b";")
        images = _images_key(eval_sets.concepts.images, eval_sets)
        hashes["concepts"] = [images, digest.hexdigest()]
    return hashes


def _images_key(images: ImageSet, eval_sets: EvalSets) -> list[str]:
    labels = b"" if images.labels is None else np.asarray(images.labels).tobytes()
    meaning = f"{images.classes} {images.class_to_label}".encode() + labels
    return [eval_sets.fingerprints[images.name], sha256(meaning).hexdigest()]


def settings_key(encoding: EncodeConfig, device: str) -> dict[str, object]:
    """Return what else the bits of activations depend on: settings, device, versions."""
    from importlib.metadata import version

    used = ("earmark", "torch", "numpy", "scipy", "numba", "pillow")
    return {
        "encoding": asdict(encoding) | {"workers": None},
        "device": numerics_fingerprint(torch.device(device)),
        "versions": {name: version(name) for name in used},
    }


def baselines_key(baselines: Sequence[Baseline]) -> list[list[object]]:
    """Return the numbers of the baselines that effective robustness is measured from."""
    return [
        [line.name, line.slope, line.intercept, *line.id_range, line.models] for line in baselines
    ]

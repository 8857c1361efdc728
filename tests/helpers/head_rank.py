"""The smallest singular value that is no rounding, in plain numpy."""

import numpy as np

EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}


def rounding_limit(weight: np.ndarray, stored: str) -> float:
    """What rounding of the entries, and products in float32, can make of a weight."""
    classes, features = weight.shape
    rms = np.sqrt((weight**2).mean())
    entries = 2 * EPS[stored] / np.sqrt(12) * rms * (np.sqrt(classes) + np.sqrt(features))
    products = np.sqrt(max(classes, features)) * EPS["float32"] * np.linalg.norm(weight, 2)
    return max(entries, products)

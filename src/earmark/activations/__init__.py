"""Activations: what an encoder makes of each image, computed once and kept."""

from .encoding import Encoding, encode
from .store import Encoded, stored_activations

__all__ = ["Encoded", "Encoding", "encode", "stored_activations"]

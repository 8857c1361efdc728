"""Activations of images: the encoder's outputs, computed once and cached on disk."""

from .cache import Activations, cached_activations
from .encoding import EncodeConfig, encode

__all__ = ["Activations", "EncodeConfig", "cached_activations", "encode"]

"""A small generated world, seeded, in which the whole study runs with no download.

Its images are drawn from named factors (`factors`, `draws`, `drawing`), its captions say
those factors in words (`captions`), and its sets are written to disk in the layouts of
ImageNet, its shifts and Broden (`concepts`, `writing`). It proves nothing of real models:
it is where every part of the study meets real training, real shifts and known truth.
"""

from .captions import VOCABULARY, captions, prompts
from .drawing import render
from .draws import draw_candidates, draw_concepts, draw_id, draw_shift, draw_world
from .factors import (
    CLASS_FOLDERS,
    CLASSES,
    COLOURS,
    SCENES,
    SHAPES,
    SIZES,
    STYLES,
    TEXTURES,
    Factors,
)
from .writing import COUNTS, FOLDERS, write_lab

__all__ = [
    "CLASSES",
    "CLASS_FOLDERS",
    "COLOURS",
    "COUNTS",
    "FOLDERS",
    "SCENES",
    "SHAPES",
    "SIZES",
    "STYLES",
    "TEXTURES",
    "VOCABULARY",
    "Factors",
    "captions",
    "draw_candidates",
    "draw_concepts",
    "draw_id",
    "draw_shift",
    "draw_world",
    "prompts",
    "render",
    "write_lab",
]

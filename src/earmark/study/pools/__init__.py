"""Which models are studied together: pools, read from TOML and checked before any work."""

from .checking import pool_problems
from .reading import POOLS, pool_text, pool_toml, read_pool
from .schema import Cka, Control, Family, Overrides, Pool, Supervised
from .sizes import STUDY_IMAGES, ModelSize, model_size

__all__ = [
    "POOLS",
    "STUDY_IMAGES",
    "Cka",
    "Control",
    "Family",
    "ModelSize",
    "Overrides",
    "Pool",
    "Supervised",
    "model_size",
    "pool_problems",
    "pool_text",
    "pool_toml",
    "read_pool",
]

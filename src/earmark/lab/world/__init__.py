"""A small generated world with the layout of ImageNet, its shifts and Broden.

Its images are rendered from named factors, its captions name those factors, and all follows
from a seed, so that a study can run without a download. It proves nothing of real models.
"""

from .captions import VOCABULARY as VOCABULARY
from .captions import make_captions as make_captions
from .captions import make_prompts as make_prompts
from .export import DATASET_FOLDERS as DATASET_FOLDERS
from .export import DEFAULT_IMAGE_COUNTS as DEFAULT_IMAGE_COUNTS
from .export import write_drawn_shifts as write_drawn_shifts
from .export import write_lab as write_lab
from .factors import CLASS_FOLDERS as CLASS_FOLDERS
from .factors import CLASSES as CLASSES
from .factors import COLORS as COLORS
from .factors import SCENES as SCENES
from .factors import SHAPES as SHAPES
from .factors import SIZES as SIZES
from .factors import STYLES as STYLES
from .factors import TEXTURES as TEXTURES
from .factors import Factors as Factors
from .render import render as render
from .sampling import LAB_SHIFTS as LAB_SHIFTS
from .sampling import sample_candidates as sample_candidates
from .sampling import sample_concepts as sample_concepts
from .sampling import sample_drawn_shift as sample_drawn_shift
from .sampling import sample_id as sample_id
from .sampling import sample_shift as sample_shift
from .sampling import sample_sources as sample_sources
from .sampling import sample_world as sample_world

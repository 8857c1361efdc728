"""Captions and class prompts of the lab's images."""

import re
from functools import cache
from itertools import chain, compress
from string import Formatter

import numpy as np

from .factors import COLORS, SCENES, SHAPES, SIZES, STYLES, TEXTURES, Factors

_STYLE_WORDS = {
    "photo": ("photo", "photograph", "picture"),
    "sketch": ("sketch", "drawing", "pencil drawing"),
    "painting": ("painting", "canvas", "oil painting"),
    "negative": ("negative", "inverted image"),
    "cartoon": ("cartoon", "comic"),
}
_SIZE_WORDS = {
    "small": ("small", "tiny", "little"),
    "medium": ("medium", "middling"),
    "large": ("large", "big", "huge"),
}
_SCENE_WORDS = {
    "desert-s": ("in the desert", "on sand dunes"),
    "field-s": ("in a field", "over green grass"),
    "forest-s": ("in the forest", "among trees"),
    "kitchen-s": ("in the kitchen", "before kitchen tiles"),
    "mountain-s": ("in the mountains", "before snowy mountains"),
    "night-s": ("at night", "under the stars"),
    "ocean-s": ("on the ocean", "at sea"),
    "street-s": ("in the street", "on a city street"),
}
# A segment between bars is dropped if the caption omits its factor.
_CAPTION_TEMPLATES = (
    "a {style} of|a|{size}|{colors}|{texture}|{shape}|{scene}",
    "a {style} of|a|{texture}|{shape}|in {colors}|{scene}",
    "a|{size}|{texture}|{shape}|in {colors}|{scene}|as a {style}",
    "{scene}|a|{size}|{colors}|{shape}|{texture}|{style}",
    "{colors}|{texture}|{shape}|{size}|{scene}|{style}",
    "a|{colors}|{texture}|{shape}|{scene}|{style}",
)
_COLOR_PAIR_TEMPLATES = ("{} and {}", "{} with {}", "{1} on {0}")  # of fill and accent
_GENERIC_NOUN = "object"
# Colors, scenes and styles tell images apart easily: named more often, they would keep a
# model from learning the shapes.
_MENTION_PROBABILITY = {
    "style": 0.3, "size": 0.3, "colors": 0.4, "texture": 0.95, "shape": 0.95, "scene": 0.35,
}  # fmt: skip
_PROMPT_TEMPLATES = (
    "a {}", "a photo of a {}", "a photograph of a {}", "a picture of a {}", "a sketch of a {}",
    "a pencil drawing of a {}", "an oil painting of a {}", "a negative of a {}",
    "a cartoon of a {}", "a small {}", "a medium {}", "a large {}",
    "a {} in the desert", "a {} in a field", "a {} among trees", "a {} in the kitchen",
    "a {} in the mountains", "a {} at night", "a {} on the ocean", "a {} in the street",
)  # fmt: skip


def make_captions(factors: Factors, *, seed: int) -> list[str]:
    """Return a caption for each image, with random template, synonyms and omissions."""
    random, n = np.random.default_rng([seed, *b"captions"]), len(factors)
    probabilities = list(_MENTION_PROBABILITY.values())
    mentions = random.random((n, len(probabilities))) < probabilities
    choices = random.integers(60, size=(n, 5))  # every list's length divides 60
    captions: list[str] = []
    for image, choice in enumerate(choices.tolist()):
        words = _choose_words(factors, image, choice)
        words = {name: words[name] for name in compress(_MENTION_PROBABILITY, mentions[image])}
        template = _pick(_CAPTION_TEMPLATES, choice[0])
        captions.append(_fill_template(template, {"shape": _GENERIC_NOUN} | words))
    return captions


def make_prompts(name: str) -> list[str]:
    """Return twenty prompts for a class such as ``striped circle``."""
    return [_fix_articles(template.format(name)) for template in _PROMPT_TEMPLATES]


def _fill_template(template: str, words: dict[str, str]) -> str:
    segments = template.split("|")
    parts = (part for part in segments if _template_fields(part) <= words.keys())
    return _fix_articles(" ".join(parts).format(**words))


def _choose_words(factors: Factors, image: int, choice: list[int]) -> dict[str, str]:
    fill, accent = (
        COLORS[color[image]].removesuffix("-c") for color in (factors.fill, factors.accent)
    )
    texture = TEXTURES[factors.texture[image]]
    pair = _pick(_COLOR_PAIR_TEMPLATES, choice[1]).format(fill, accent)
    return {
        "style": _pick(_STYLE_WORDS[STYLES[factors.style[image]]], choice[2]),
        "size": _pick(_SIZE_WORDS[SIZES[factors.size[image]]], choice[3]),
        "colors": fill if texture == "plain" else pair,  # a plain object has no accent
        "texture": texture,
        "shape": SHAPES[factors.shape[image]],
        "scene": _pick(_SCENE_WORDS[SCENES[factors.scene[image]]], choice[4]),
    }


def _pick(words: tuple[str, ...], choice: int) -> str:
    return words[choice % len(words)]


@cache
def _template_fields(segment: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(segment) if name}


def _fix_articles(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def _build_vocabulary() -> tuple[str, ...]:
    names = (*SHAPES, *TEXTURES, *(name.removesuffix("-c") for name in COLORS))
    synonyms = chain(*_STYLE_WORDS.values(), *_SIZE_WORDS.values(), *_SCENE_WORDS.values())
    templates = (*_CAPTION_TEMPLATES, *_COLOR_PAIR_TEMPLATES, *_PROMPT_TEMPLATES)
    texts = " ".join(("an", _GENERIC_NOUN, *names, *synonyms, *templates))
    return tuple(sorted(set(re.sub(r"{\w*}|\|", " ", texts).split())))


VOCABULARY = _build_vocabulary()

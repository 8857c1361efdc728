"""Words for the lab's images: captions to learn from, prompts to ask with."""

import re
from functools import cache
from itertools import chain, compress
from string import Formatter

import numpy as np

from .factors import COLOURS, SCENES, SHAPES, SIZES, STYLES, TEXTURES, Factors

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
# A part between bars is left out where the image's caption does not say its factor.
_PHRASES = (
    "a {style} of|a|{size}|{colours}|{texture}|{shape}|{scene}",
    "a {style} of|a|{texture}|{shape}|in {colours}|{scene}",
    "a|{size}|{texture}|{shape}|in {colours}|{scene}|as a {style}",
    "{scene}|a|{size}|{colours}|{shape}|{texture}|{style}",
    "{colours}|{texture}|{shape}|{size}|{scene}|{style}",
    "a|{colours}|{texture}|{shape}|{scene}|{style}",
)
_PAIRS = ("{} and {}", "{} with {}", "{1} on {0}")  # of fill and accent
_NAMELESS = "object"
# How often a caption says each factor. Colours, scenes and styles tell images apart at a
# glance: were they said as often, a model would learn them and hardly look at the shape.
_SAID = {
    "style": 0.3,
    "size": 0.3,
    "colours": 0.4,
    "texture": 0.95,
    "shape": 0.95,
    "scene": 0.35,
}
_PROMPTS = (
    "a {}",
    "a photo of a {}",
    "a photograph of a {}",
    "a picture of a {}",
    "a sketch of a {}",
    "a pencil drawing of a {}",
    "an oil painting of a {}",
    "a negative of a {}",
    "a cartoon of a {}",
    "a small {}",
    "a medium {}",
    "a large {}",
    "a {} in the desert",
    "a {} in a field",
    "a {} among trees",
    "a {} in the kitchen",
    "a {} in the mountains",
    "a {} at night",
    "a {} on the ocean",
    "a {} in the street",
)


def captions(factors: Factors, *, seed: int) -> list[str]:
    """Say in words what images show, each image's caption in a phrasing drawn by chance.

    Any factor may go unsaid: the shape and the texture in one caption of twenty, the
    others in most. The accent of a plain object, which cannot be seen, is never said.

    Args:
        factors: What the images show.
        seed: Not negative; settles phrasings, synonyms and what goes unsaid.

    Returns:
        One caption per image, in lower case, of words from ``VOCABULARY``.

    Example:
        >>> from earmark.data.lab import draw_world
        >>> captions(draw_world(1, seed=0), seed=0)
        ['a white and purple arrow chequered negative']
    """
    random = np.random.default_rng([seed, *b"captions"])
    said = random.random((len(factors), len(_SAID))) < list(_SAID.values())
    choices = random.integers(60, size=(len(factors), 5))  # every list's length divides 60
    answers: list[str] = []
    for image, (keep, choice) in enumerate(
        zip(said.tolist(), choices.tolist(), strict=True)
    ):
        words = _words(factors, image, choice)
        heard = {name: words[name] for name in compress(_SAID, keep)}
        answers.append(_caption(_pick(_PHRASES, choice[0]), {"shape": _NAMELESS} | heard))
    return answers


def prompts(name: str) -> list[str]:
    """Phrasings of a class, with the sizes, styles and scenes that it may come in.

    Args:
        name: A class, such as ``striped circle``.

    Returns:
        Twenty phrases of words from ``VOCABULARY``.

    Example:
        >>> prompts("striped circle")[1]
        'a photo of a striped circle'
    """
    return [_articles(phrase.format(name)) for phrase in _PROMPTS]


def _caption(phrase: str, words: dict[str, str]) -> str:
    parts = (part for part in phrase.split("|") if _factors(part) <= words.keys())
    return _articles(" ".join(parts).format(**words))


def _words(factors: Factors, image: int, choice: list[int]) -> dict[str, str]:
    """The words for one image's factors, with a synonym of each picked by ``choice``."""
    fill, accent = (
        COLOURS[colour[image]].removesuffix("-c")
        for colour in (factors.fill, factors.accent)
    )
    texture = TEXTURES[factors.texture[image]]
    pair = _pick(_PAIRS, choice[1]).format(fill, accent)
    return {
        "style": _pick(_STYLE_WORDS[STYLES[factors.style[image]]], choice[2]),
        "size": _pick(_SIZE_WORDS[SIZES[factors.size[image]]], choice[3]),
        "colours": fill if texture == "plain" else pair,
        "texture": texture,
        "shape": SHAPES[factors.shape[image]],
        "scene": _pick(_SCENE_WORDS[SCENES[factors.scene[image]]], choice[4]),
    }


def _pick(words: tuple[str, ...], choice: int) -> str:
    return words[choice % len(words)]


@cache
def _factors(part: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(part) if name}


def _articles(phrase: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", phrase)


def _vocabulary() -> tuple[str, ...]:
    """Every word of every table above; "an" stands for "a" before a vowel."""
    names = (*SHAPES, *TEXTURES, *(name.removesuffix("-c") for name in COLOURS))
    synonyms = chain(*_STYLE_WORDS.values(), *_SIZE_WORDS.values(), *_SCENE_WORDS.values())
    phrases = " ".join(("an", _NAMELESS, *names, *synonyms, *_PHRASES, *_PAIRS, *_PROMPTS))
    return tuple(sorted(set(re.sub(r"{\w*}|\|", " ", phrases).split())))


VOCABULARY = _vocabulary()

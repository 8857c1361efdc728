"""Model families: one object for each library that models are loaded from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .._plugins import iter_plugins, plugin_name

if TYPE_CHECKING:
    from torch import nn

    from .classifier import Classifier
    from .size import ModelSize

ENTRY_POINT_GROUP = "earmark.models"
OWN_FAMILY = "own"  # of models that a user's own code builds


def lazy_function(function: str) -> Callable[..., Any]:
    """Return a function that imports ``"module:function"`` when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return resolve_name(function)(*args, **kwargs)

    return call


_build_preprocessing = lazy_function(f"{__package__}.preprocessing:Preprocessing")


@dataclass(frozen=True)
class IdForm:
    """One form of a family's ids, such as ``torchvision:NAME[,TAG|FILE]``."""

    # The prefix ends at the last colon that is not FILE.py's. After it stands NAME, REPO (on a hub,
    # which is not asked before loading), FOLDER, REPO|FOLDER or FILE.py:FUNCTION; after a comma
    # stand the weights: FILE, TAG or TAG|FILE.
    text: str

    @property
    def prefix(self) -> str:
        """The start of all ids of this form, such as ``torchvision:``."""
        head, colon, _ = self.text.replace(".py:", ".py/").rpartition(":")
        return head + colon

    @property
    def model(self) -> str:
        """The placeholders between prefix and comma, such as ``NAME``."""
        return self.text.removeprefix(self.prefix).partition(",")[0].rstrip("[")

    @property
    def weights(self) -> str:
        """The placeholders after the comma, such as ``TAG|FILE``, or ""."""
        return self.text.partition(",")[2].rstrip("]")


@dataclass(frozen=True)
class Family:
    """Library of models: the forms of its ids, and how its models are loaded and rebuilt.

    A package adds a family by an entry point of the group ``earmark.models`` that names
    such an object. The object must be cheap to import: functions of `lazy_function` import
    the library when they are called.

    Attributes:
        name: The family's own name, which saved classifiers hold.
        title: The library's name in messages.
        ids: The forms of its ids, as `IdForm` reads them.
        load: Return the `Classifier` for a model's name (without the prefix ``name:``) and,
            if the id has them, its weights. Where a user chooses between the averaged and the
            plain weights of a file, it gets the keyword ``weights``: "ema" or "plain".
        build_encoder: Return an encoder with random weights in evaluation mode, for the
            ``architecture`` of an `EncoderSpec`.
        packages: Distributions that the encoders run on; fingerprints hold their versions.
        install: The command that installs them.
        build_transform: Return the transform whose fields are given as keywords.
        known_names: Return the names that `load` takes, as NAME or ``NAME,TAG``; empty if
            they cannot be listed.
        measure: Return the `ModelSize` of an architecture; may be None.
        build_random: Return an encoder with random weights, its ``architecture`` and its
            transform, for an architecture's name; None if no model can be trained from scratch.
        example: Architecture that help texts name as an example.
        needs_weights: Whether an id must name weights besides the architecture.
        folder_file: Name of a file that every folder with a model of this family contains.
            The last form of the family's ids must then take a FOLDER.
    """

    name: str
    title: str
    ids: tuple[str, ...]
    load: Callable[..., "Classifier"]
    build_encoder: Callable[[Mapping[str, Any]], "nn.Module"]
    packages: tuple[str, ...] = ()
    install: str = ""
    build_transform: Callable[..., Any] = _build_preprocessing
    known_names: Callable[[], Iterable[str]] = tuple
    measure: "Callable[[str], ModelSize] | None" = None
    build_random: Callable[[str], tuple[Any, Mapping[str, Any], Any]] | None = None
    example: str = ""
    needs_weights: bool = False
    folder_file: str = ""

    @property
    def forms(self) -> tuple[IdForm, ...]:
        """The forms of its ids."""
        return tuple(IdForm(text) for text in self.ids)

    def require_packages(self) -> None:
        """Raise a ValueError if one of the packages is not installed."""
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                raise ValueError(
                    f"Models of {self.title} need the package {package}: "
                    f"{self.install or f'pip install {package}'}."
                ) from None

    def find_problem(self, name: str, tag: str = "", *, untrained: bool = False) -> str:
        """Return why `load` would not know a name, with the nearest names, or ""."""
        known_names = dict.fromkeys(self.known_names())
        if not known_names:
            return ""
        # open_clip also reads its older spellings: ViT-B/32, and tags in capitals
        if name not in known_names:
            name = name.replace("/", "-")
        if f"{name},{(plain := tag.lower().replace('-', '_'))}" in known_names:
            tag = plain
        full_name = f"{name},{tag}" if tag else name
        if name not in known_names or full_name not in known_names:
            return f"{self.title} has no {full_name!r}; {suggest(full_name, known_names)}"
        if tag or untrained or not self.needs_weights:
            return ""
        tagged = [full for full in known_names if full.startswith(f"{name},")]
        choices = ", ".join([*tagged, f"{name},FILE"])
        return f"{name} is an architecture of {self.title} without weights: use {choices}"


def suggest(name: str, known_names: Iterable[str]) -> str:
    """Return a phrase that lists the names nearest to an unknown one."""
    candidates = [full for full in known_names if ("," in full) == ("," in name)]
    nearest = get_close_matches(name, candidates, n=3, cutoff=0.5) or candidates[:5]
    return f"the nearest are {', '.join(nearest)}"


def _functions(module: str, *names: str) -> dict[str, Any]:
    return {name: lazy_function(f"{__package__}.{module}:{name}") for name in names}


_ALL_FUNCTIONS = ("build_encoder", "known_names", "measure", "build_random")

FAMILIES = (
    Family(
        name="open_clip",
        title="open_clip",
        ids=("MODEL,TAG|FILE", "hf-hub:REPO", "local-dir:FOLDER"),
        load=lazy_function(f"{__package__}.open_clip_models:load_open_clip"),
        **_functions("open_clip_models", *_ALL_FUNCTIONS),
        packages=("open_clip_torch", "timm"),  # some of its towers are timm's
        example="ViT-B-16",
        needs_weights=True,
        folder_file="open_clip_config.json",
    ),
    Family(
        name="timm",
        title="timm",
        ids=("timm:NAME[,FILE]", "timm:hf-hub:REPO[,FILE]"),
        load=lazy_function(f"{__package__}.timm_models:load_timm"),
        **_functions("timm_models", *_ALL_FUNCTIONS),
        packages=("timm",),
        example="timm:resnet50",
    ),
    Family(
        name="torchvision",
        title="torchvision",
        ids=("torchvision:NAME[,TAG|FILE]",),
        load=lazy_function(f"{__package__}.torchvision_models:load_torchvision"),
        **_functions("torchvision_models", *_ALL_FUNCTIONS),
        packages=("torchvision",),
        example="torchvision:resnet50",
    ),
    Family(
        name="hf",
        title="transformers",
        ids=("hf:REPO|FOLDER",),
        load=lazy_function(f"{__package__}.hf_models:load_hf"),
        **_functions("hf_models", "build_encoder"),
        packages=("transformers",),
        install='pip install "earmark[hf]"',
        folder_file="config.json",
    ),
    Family(
        name=OWN_FAMILY,
        title="your own code",
        ids=("own:FILE.py:FUNCTION[,FILE]",),
        load=lazy_function(f"{__package__}.own_code:load_own"),
        **_functions("own_code", "build_encoder"),
    ),
)
"""The built-in families; `families` adds those of installed packages."""


@cache
def families() -> Mapping[str, Family]:
    """Return all families by name: `FAMILIES`, then those of installed packages."""
    by_name = {family.name: family for family in FAMILIES}
    for point, family in iter_plugins(ENTRY_POINT_GROUP):
        name = plugin_name(point)
        if not isinstance(family, Family):
            raise ValueError(f"The plug-in {name} is a {type(family).__name__}: give a Family.")
        prefixes = {form.prefix for other in by_name.values() for form in other.forms}
        shared = prefixes & {form.prefix for form in family.forms}
        if family.name in by_name or shared:
            raise ValueError(
                f"The model family {family.name!r} of {name} has the name or an id of another "
                "family: uninstall one of the two."
            )
        by_name[family.name] = family
    return MappingProxyType(by_name)


def get_family(name: str) -> Family:
    """Return the family of a name; a ValueError if none is installed."""
    if (family := families().get(name)) is None:
        raise ValueError(
            f"the model family {name!r} is not installed; installed are {', '.join(families())}"
        )
    return family


def describe_model_ids() -> str:
    """Return the forms of all model ids, as help texts list them."""
    forms = [
        form.text if form.prefix else f"{form.text} of {family.title}"
        for family in _importable_families()
        for form in family.forms
    ]
    return f"{', '.join(forms)}, or a path"


def example_architectures(*, trainable: bool = False) -> str:
    """Return one architecture of each family; with ``trainable``, only trainable ones."""
    examples = [
        family.example
        for family in _importable_families()
        if family.example and (family.build_random or not trainable)
    ]
    return ", ".join(examples)


def _importable_families() -> Sequence[Family]:
    try:
        return tuple(families().values())
    except ValueError:  # a faulty package; loading a model reports it
        return FAMILIES

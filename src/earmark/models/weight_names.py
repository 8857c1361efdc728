"""Names of weights: prefixes of wrappers, and the libraries whose names they are."""

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import takewhile

from torch import Tensor, nn

from .._text import first_names

# Attributes under which training code keeps a model: DistributedDataParallel and
# AveragedModel (module), torch.compile (_orig_mod), modules of Lightning.
_WRAPPERS = {"module", "_orig_mod", "model", "net", "network", "backbone"}
_CLIP_WRAPPERS = _WRAPPERS | {"image_encoder", "clip", "clip_model"}  # also WiSE-FT's
_ALWAYS_STRIPPED = ("module.", "_orig_mod.")  # of no architecture
_ADAPTER = re.compile(r"(^|\.)lora_(A|B|embedding_A|embedding_B|magnitude_vector)(\.|$)")
_QUANTIZED = re.compile(r"(^|\.)(qweight|qzeros|SCB|absmax|zero_point|_packed_params)(\.|$)")
_ARCHITECTURE = "name the architecture they were trained with"
_LAYOUTS = (
    (
        re.compile(
            r"(^|\.)(vision_model|text_model|embedder|encoder\.layer\.\d+"
            r"|embeddings\.(cls_token|class_embedding|patch_embeddings?|position_embeddings?))\."
            r"|(^|\.)embeddings\.cls_token$"
        ),
        "their names are those of transformers: put the file into a folder with its config.json "
        "and preprocessor_config.json, and give hf:FOLDER",
    ),
    (
        re.compile(r"(^|\.)(visual|resblocks|text\.transformer)\."),
        f"{_ARCHITECTURE}, as ARCHITECTURE,FILE of open_clip, such as ViT-B-16,FILE",
    ),
    (
        re.compile(r"(^|\.)(conv_proj|encoder\.layers\.encoder_layer_\d+|features\.\d+)\."),
        f"{_ARCHITECTURE}, as torchvision:NAME,FILE",
    ),
    (
        re.compile(r"(^|\.)(blocks\.\d+|stages\.\d+|patch_embed|conv_stem)\."),
        f"{_ARCHITECTURE}, as timm:NAME,FILE",
    ),
    (
        re.compile(r"(^|\.)(conv1|layer1\.\d+)\."),
        f"{_ARCHITECTURE}, as timm:NAME,FILE or torchvision:NAME,FILE",
    ),
)


def strip_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the prefixes of wrappers that all share, and AveragedModel's count."""
    weights = {name: state[name] for name in state if name.rpartition(".")[2] != "n_averaged"}
    for prefix in _ALWAYS_STRIPPED:
        if weights and all(name.startswith(prefix) for name in weights):
            return strip_wrappers({name[len(prefix) :]: weights[name] for name in weights})
    return weights


def fit_names(
    state: Mapping[str, Tensor], own_names: Collection[str], *, source: object
) -> dict[str, Tensor]:
    """Return the weights below the wrapper that holds the most of a module's names."""
    # What stands outside of it, such as the weights of a loss, is left out with a warning.
    own = frozenset(own_names)
    counts = Counter(
        prefix for name in state for prefix, rest in _iter_wrapped(name) if rest in own
    )
    best = min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default="")
    return select_below(state, best, source=source)


def select_below(state: Mapping[str, Tensor], prefix: str, *, source: object) -> dict[str, Tensor]:
    """Return the weights whose names start with a prefix, without it; warn about the others."""
    selected = {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}
    if others := [name for name in state if not name.startswith(prefix)]:
        warnings.warn(
            f"{len(others)} weights of {source} outside of {prefix!r} are left out "
            f"({first_names(others)}): if they are the head, give it with --head.",
            stacklevel=5,
        )
    return selected


def find_clip_prefix(names: Iterable[str], part: str) -> str | None:
    """Return the shortest prefix of wrappers before a part of CLIP such as ``visual.``."""
    wrapped = re.compile(rf"((?:(?:{'|'.join(sorted(_CLIP_WRAPPERS))})\.)*){re.escape(part)}")
    prefixes = {match[1] for name in names if (match := wrapped.match(name))}
    return min(prefixes, key=len, default=None)


def rename_head(state: dict[str, Tensor], head: str, *, source: object) -> dict[str, Tensor]:
    """Return weights with the one linear layer at the place of a head under the head's name."""
    # Of nn.Sequential(nn.Dropout(), nn.Linear(...)) in place of fc, fc.1 becomes fc. What stands
    # between several layers is not in the file.
    if f"{head}.weight" in state:
        return state
    inner = re.compile(rf"{re.escape(head)}\.\d+\.weight")
    layers = [name[:-7] for name in state if inner.fullmatch(name) and state[name].ndim == 2]
    parent = head.rpartition(".")[0]
    if parent and f"{parent}.weight" in state and state[f"{parent}.weight"].ndim == 2:
        layers.append(parent)
    if len(layers) > 1:
        raise ValueError(
            f"The head of {source} has {len(layers)} layers ({first_names(layers)}), and no file "
            "holds what is computed between them: build the model in Python and give it to "
            "earmark.Classifier.from_module."
        )
    own = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    renamed = {f"{head}.{name.rpartition('.')[2]}": state[name] for name in own if name in state}
    return {name: state[name] for name in state if name not in own} | renamed


def count_rows(
    state: Mapping[str, Tensor], head: str, linear: nn.Module, *, model_name: str
) -> int | None:
    """Return the number of rows of the weight for a head, or None if there is none."""
    # The width is compared before a model of so many rows is built.
    own, weight = linear.get_parameter("weight"), state.get(f"{head}.weight")
    if weight is None or weight.ndim < 2:
        return None
    if weight.shape[1:].numel() != (width := own.shape[1:].numel()):
        raise ValueError(
            f"These are not the weights of {model_name}: {head}.weight is {tuple(weight.shape)}, "
            f"and its head reads {width} features; {find_layout_remedy(state.keys())}."
        )
    return len(weight)


def find_foreign_weights(names: Iterable[str]) -> str:
    """Return which weights are not those of a whole model in floats, with the remedy, or ""."""
    for name in names:
        if _ADAPTER.search(name):
            return (
                f"a LoRA adapter ({name}): merge it into its base model with merge_and_unload() "
                "of peft, write that with save_pretrained() and give hf:FOLDER"
            )
        if _QUANTIZED.search(name):
            return f"quantized weights ({name}): give those before quantization"
    return ""


def find_layout_remedy(names: Collection[str]) -> str:
    """Return which command reads weights of such names, as far as the names tell."""
    if names and all(name.startswith(("encoder.", "head.")) for name in names):
        return "a classifier that earmark saved is given by its path alone"
    for pattern, remedy in _LAYOUTS:
        if any(pattern.search(name) for name in names):
            return remedy
    return _ARCHITECTURE


def unwrap_name(name: str) -> str:
    """Return a name without any prefix of wrappers."""
    return [*_iter_wrapped(name)][-1][1]


def iter_endings(name: str) -> Iterator[str]:
    """Yield a name, and what follows each of its dots."""
    words = name.split(".")
    return (".".join(words[start:]) for start in range(len(words)))


def find_shared_prefix(names: Collection[str]) -> str:
    """Return what all names start with, up to a dot, or ""."""
    words = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda column: len({*column}) == 1, words)
    return "".join(f"{column[0]}." for column in shared)


def _iter_wrapped(name: str) -> Iterator[tuple[str, str]]:
    """Yield each split of a name after a prefix of wrappers, the empty one first."""
    prefix, rest = "", name
    while True:
        yield prefix, rest
        first, dot, after = rest.partition(".")
        if not dot or first not in _WRAPPERS:
            return
        prefix, rest = f"{prefix}{first}.", after

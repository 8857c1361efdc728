"""A model's id or file, to a `Classifier`."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .checkpoints import WEIGHTS_ENDINGS
from .classifier import Classifier
from .hub import one_line
from .lab import LAB_MODELS, load_lab
from .saved import is_saved, load_classifier

if TYPE_CHECKING:
    from .zeroshot import Prompts


def load_model(
    name: str,
    *,
    architecture: str | None = None,
    prompts: "Prompts | Literal['imagenet'] | None" = "imagenet",
    device: Any = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Classifier:
    """Load a model by its id, or from a file.

    Ids are

    - ``ViT-B-16,openai``: any architecture and tag of open_clip; a file of weights may
      stand in the place of the tag; ``hf-hub:REPO`` and ``local-dir:FOLDER`` as open_clip
      has them;
    - ``timm:NAME``, ``torchvision:NAME``, each alone with its default weights, or with a
      comma and a tag (torchvision) or a file of weights;
    - ``hf:REPO`` or ``hf:FOLDER``: transformers' CLIP, SigLIP, DINOv2 and ViT towers and
      image classifiers;
    - ``lab:NAME``, a tower that ships with earmark: zero-shot, finetuned, supervised,
      untrained;
    - the path of a classifier that earmark saved, of a folder as ``local-dir:`` or ``hf:``
      read it, or of a file of weights whose architecture is given.

    Args:
        name: The id or the path.
        architecture: Where ``name`` is a file of weights, what they are of: the part of an
            id before the comma, such as ``ViT-B-16`` or ``timm:resnet50``.
        prompts: What a model with a text tower and no head of its own tells apart; None
            leaves it without a head.
        device: Where the encoder and the text tower are put, such as ``cuda``.
        cache: A folder to keep zero-shot heads in; None makes them each time.
        progress: Called with the texts done and those in all.

    Returns:
        The classifier, in evaluation mode; its head is on the CPU, and has no rows where
        the model has none.

    Raises:
        ValueError: If there is no such model, its weights cannot be had or do not fit, or
            the device cannot be used.
        FileNotFoundError: If a file is missing.

    Example:
        >>> load_model("lab:zero-shot").role
        'zero-shot'
    """
    if architecture:
        _check_file(name)
        name = f"{architecture},{name}"
    classifier = _placed(_load(name), device)
    if classifier.classes or classifier.text is None or prompts is None:
        return classifier
    from .zeroshot import imagenet_prompts, zero_shot

    wanted = imagenet_prompts() if isinstance(prompts, str) else prompts
    return zero_shot(classifier, wanted, cache=cache, progress=progress)


def _load(name: str) -> Classifier:
    family, colon, rest = name.partition(":")
    first, comma, second = rest.partition(",")
    checkpoint = second if comma else None
    match family if colon else "":
        case "lab":
            return load_lab(rest)
        case "timm":
            from .timm import load_timm

            return load_timm(first, checkpoint)
        case "torchvision":
            from .torchvision import load_torchvision

            return load_torchvision(first, checkpoint)
        case "hf":
            from .huggingface import load_hf

            return load_hf(rest)
        case "hf-hub" | "local-dir":
            from .openclip import load_openclip

            return load_openclip(name)
        case _:
            return _load_path(Path(name)) if Path(name).exists() else _load_tag(name)


def _load_path(path: Path) -> Classifier:
    if path.is_dir():
        if (path / "open_clip_config.json").is_file():
            return _load(f"local-dir:{path}")
        if (path / "config.json").is_file():
            return _load(f"hf:{path}")
        raise ValueError(
            f"The folder {path} holds no model: neither open_clip_config.json nor "
            "transformers' config.json is in it."
        )
    if path.suffix == ".safetensors" and is_saved(path):
        return load_classifier(path)
    raise ValueError(
        f"{path} holds weights, but not of what: give the architecture, as in "
        f"--architecture ViT-B-16 or ViT-B-16,{path}."
    )


def _load_tag(name: str) -> Classifier:
    architecture, comma, tag = name.partition(",")
    if not comma:
        _check_file(name)
        raise ValueError(_unknown(architecture))
    from .openclip import load_openclip

    return load_openclip(architecture, tag)


def _check_file(name: str) -> None:
    """What looks like a path must be one."""
    if (name.endswith(WEIGHTS_ENDINGS) or "/" in name) and not Path(name).exists():
        raise FileNotFoundError(f"No file {name}: check the path.")


def _unknown(name: str) -> str:
    from . import mixed_install  # noqa: F401 # pyright: ignore[reportUnusedImport]

    import open_clip  # isort: skip

    if tags := open_clip.list_pretrained_tags_by_model(name):
        return (
            f"{name} is an architecture of open_clip without its weights: choose "
            f"{', '.join(f'{name},{tag}' for tag in tags)}, or {name},FILE."
        )
    known = [",".join(pair) for pair in open_clip.list_pretrained()]
    known += [f"lab:{model}" for model in LAB_MODELS]
    near = get_close_matches(name, known, n=3, cutoff=0.3)
    return (
        f"No model {name!r}{f' (nearest: {chr(32).join(near)})' if near else ''}: give "
        "MODEL,TAG of open_clip, timm:NAME, torchvision:NAME, hf:REPO, lab:NAME or a path."
    )


def _placed(classifier: Classifier, device: Any) -> Classifier:
    try:
        classifier.encoder.to(device)
        if classifier.text is not None:
            classifier.text.tower.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"Cannot put {classifier.name} on the device {device!r} "
            f"({one_line(error)}): choose another, such as cpu."
        ) from error
    return classifier

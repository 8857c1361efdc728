"""Loading of models by id or from files."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._quiet import one_line
from .classifier import Classifier
from .family import describe_model_ids, families, get_family
from .model_id import ModelId, parse_model_id
from .serialization import is_earmark_file, load_classifier

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

    - ``ViT-B-16,openai``: an architecture and a tag of open_clip, or a file of weights in
      place of the tag; also ``hf-hub:REPO`` and ``local-dir:FOLDER``;
    - ``timm:NAME`` and ``torchvision:NAME``, with their default weights, or with a comma
      and a tag (torchvision) or a file of weights;
    - ``hf:REPO`` or ``hf:FOLDER``: CLIP, SigLIP, DINOv2, ViT and image classifiers of transformers;
    - ``lab:NAME``, a model that ships with earmark: zero-shot, finetuned, supervised, untrained;
    - those of other installed packages;
    - the path of a classifier saved by earmark, of a folder that ``local-dir:`` or ``hf:``
      reads, or of a file of weights, with ``architecture``.

    Args:
        name: The id or the path.
        architecture: The architecture of a file of weights: the part of an id before the
            comma, such as ``ViT-B-16`` or ``timm:resnet50``.
        prompts: The classes of the zero-shot head that a model with a text tower and no
            head gets; None makes no head.
        device: The device of the encoder and the text tower, such as ``cuda``.
        cache: A folder where zero-shot heads are cached; None caches none.
        progress: Called with the number of texts encoded and the total.

    Returns:
        The classifier, in evaluation mode. Its head is on the CPU, and has no rows if the
        model has none.

    Raises:
        ValueError: If there is no such model, its weights cannot be downloaded or do not
            fit, or the device cannot be used.
        FileNotFoundError: If a file is missing.

    Example:
        >>> load_model("lab:zero-shot").role
        'zero-shot'
    """
    model_id = parse_model_id(f"{architecture},{name}" if architecture else name)
    classifier = _move_to_device(_load(model_id), device)
    if classifier.classes or classifier.text_tower is None or prompts is None:
        return classifier
    from .zeroshot import imagenet_prompts, with_zero_shot_head

    wanted = imagenet_prompts() if isinstance(prompts, str) else prompts
    return with_zero_shot_head(classifier, wanted, cache=cache, progress=progress)


def _load(model_id: ModelId) -> Classifier:
    if model_id.file and not Path(model_id.file).exists():
        raise FileNotFoundError(f"No file {model_id.file}: check the path.")
    if not model_id.family and model_id.file:
        return _load_path(Path(model_id.file))
    if problem := find_name_problem(model_id):
        raise ValueError(f"{problem}.")
    family = get_family(model_id.family)
    family.require_packages()
    weights = [model_id.weights] if model_id.weights else []
    return family.load(model_id.model, *weights)


def _load_path(path: Path) -> Classifier:
    if path.is_dir():
        return _load_folder(path)
    if path.suffix == ".safetensors" and is_earmark_file(path):
        return load_classifier(path)
    raise ValueError(
        f"{path} holds weights of an unknown architecture: give it, as in "
        f"--architecture ViT-B-16 or ViT-B-16,{path}."
    )


def _load_folder(path: Path) -> Classifier:
    marked = [family for family in families().values() if family.folder_file]
    for family in marked:
        if (path / family.folder_file).is_file():
            return _load(parse_model_id(f"{family.forms[-1].prefix}{path}"))
    raise ValueError(
        f"The folder {path} holds no model: it has no file "
        f"{' or '.join(family.folder_file for family in marked)}."
    )


def find_name_problem(model_id: ModelId) -> str:
    """Return why no model has this id, as far as names tell without the network, or ""."""
    if not model_id.family:
        return (
            f"there is no model family {model_id.prefix!r} (in {model_id}): an id is "
            f"{describe_model_ids()}"
        )
    if model_id.on_hub or not model_id.name:
        return ""
    problem = get_family(model_id.family).find_problem(
        model_id.model, model_id.tag, untrained=bool(model_id.file)
    )
    if problem and not (model_id.prefix or model_id.tag):
        others = [
            f"{other.forms[0].prefix}{model_id.name}"
            for other in families().values()
            if other.name != model_id.family and model_id.name in [*other.known_names()]
        ]
        problem = f"{problem}; or give {', '.join(others)}" if others else problem
    return problem


def _move_to_device(classifier: Classifier, device: Any) -> Classifier:
    try:
        classifier.encoder.to(device)
        if classifier.text_tower is not None:
            classifier.text_tower.tower.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"Cannot put {classifier.name} on the device {device!r} "
            f"({one_line(error)}): choose another, such as cpu."
        ) from error
    return classifier

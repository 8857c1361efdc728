"""Loading of models by id or from files."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._io import check_regular_file
from ._quiet import one_line
from .classifier import Classifier
from .family import OWN_FAMILY, describe_model_ids, families, get_family
from .model_id import ModelId, parse_model_id
from .serialization import is_earmark_file, load_classifier

if TYPE_CHECKING:
    from .checkpoints import WeightsKind
    from .own_code import ModelFrom, OwnCode
    from .zeroshot import Prompts

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FILE_SUFFIXES = {".bin", ".ckpt", ".npz", ".pkl", ".pt", ".pth", ".safetensors", ".tar"}


def load_model(  # noqa: PLR0913
    name: str,
    *,
    architecture: str | None = None,
    weights: "WeightsKind | None" = None,
    model_from: "ModelFrom" = None,
    prompts: "Prompts | Literal['imagenet'] | None" = "imagenet",
    device: Any = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Classifier:
    """Load a model by its id, or from a file.

    Ids are

    - ``ViT-B-16-quickgelu,openai``: an architecture and a tag of open_clip, or a file of weights in
      place of the tag; also ``hf-hub:REPO`` and ``local-dir:FOLDER``;
    - ``timm:NAME`` and ``torchvision:NAME``, with their default weights, or with a comma
      and a tag (torchvision) or a file of weights;
    - ``hf:REPO`` or ``hf:FOLDER``: CLIP, SigLIP, DINOv2, ViT and image classifiers of transformers;
    - ``lab:NAME``, a model that ships with earmark: zero-shot, finetuned, supervised, untrained;
    - those of other installed packages;
    - ``FILE.py:FUNCTION`` or ``FILE.py:FUNCTION,WEIGHTS``: the model that your own function
      returns, with ``model_from``;
    - the path of a classifier saved by earmark, of a folder that ``local-dir:`` or ``hf:``
      reads, or of a file of weights, with ``architecture``.

    Args:
        name: The id or the path.
        architecture: The architecture of a file of weights: the part of an id before the
            comma, such as ``ViT-B-16`` or ``timm:resnet50``.
        model_from: Functions of your own code that may run, as ``FILE.py:FUNCTION``: one, or
            several in a list. Such a function takes no arguments and returns a
            ``torch.nn.Module`` or a `Classifier`. With one function, ``name`` can be a file
            of its weights. No id and no file makes other code run.
        weights: The weights to take of a file that holds averaged ones ("ema") beside
            those of the last step ("plain"). None takes what the family's own library
            takes, with a warning that says which.
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
    codes = _read_model_from(model_from)
    model_id = find_model_id(name, architecture=architecture, codes=codes)
    classifier = _move_to_device(_load(model_id, weights, codes), device)
    if prompts is None:
        return classifier
    if classifier.classes or classifier.text_tower is None:
        from .head_extraction import check_head

        check_head(classifier.head, model_name=classifier.name)
        return classifier
    from .zeroshot import imagenet_prompts, with_zero_shot_head

    wanted = imagenet_prompts() if isinstance(prompts, str) else prompts
    return with_zero_shot_head(classifier, wanted, cache=cache, progress=progress)


def _read_model_from(model_from: "ModelFrom") -> "tuple[OwnCode, ...]":
    if model_from is None:
        return ()
    from .own_code import read_model_from

    return read_model_from(model_from)


def find_model_id(
    name: str, *, architecture: str | None = None, codes: "Sequence[OwnCode]" = ()
) -> ModelId:
    """Return the id of a model; a file of weights is of an architecture, or of own code."""
    if architecture:
        model_id = parse_model_id(f"{architecture},{name}")
        if codes and model_id.family != OWN_FAMILY:
            raise ValueError(
                f"--architecture {architecture} and --model-from {codes[0]} both say what {name} "
                "is: give one of them."
            )
        return model_id
    model_id = parse_model_id(name)
    path = Path(model_id.file)
    if not codes or model_id.family or not path.is_file() or is_earmark_file(path):
        return model_id
    if len(codes) > 1:
        listed = " or ".join(f"{code},{name}" for code in codes)
        raise ValueError(f"{name} may be of several functions: give {listed}.")
    return parse_model_id(f"{OWN_FAMILY}:{codes[0]},{name}")


def _load(
    model_id: ModelId, weights: "WeightsKind | None" = None, codes: "Sequence[OwnCode]" = ()
) -> Classifier:
    if model_id.file and not Path(model_id.file).exists():
        meant = _find_meant_ids(model_id)
        remedy = f"check the path, or give {', '.join(meant)}" if meant else "check the path"
        raise FileNotFoundError(f"No file {model_id.file}: {remedy}.")
    if weights and not (model_id.name and model_id.file):
        raise ValueError(
            f"{model_id} is no file of weights that may hold averaged ones: leave out "
            f"--weights {weights}."
        )
    if not model_id.family and model_id.file:
        return _load_path(Path(model_id.file), codes)
    if problem := find_name_problem(model_id):
        raise ValueError(f"{problem}.")
    family = get_family(model_id.family)
    family.require_packages()
    places = [model_id.weights] if model_id.weights else []
    options: dict[str, Any] = {"weights": weights} if weights else {}
    if family.name == OWN_FAMILY:
        options["model_from"] = codes
    return family.load(model_id.model, *places, **options)


def _load_path(path: Path, codes: "Sequence[OwnCode]") -> Classifier:
    if path.is_dir():
        return _load_folder(path)
    check_regular_file(path)
    if is_earmark_file(path):
        return load_classifier(path, codes=codes)
    from .checkpoints import read_state_dict
    from .weight_names import find_layout_remedy

    state = read_state_dict(path)
    raise ValueError(
        f"{path} holds weights of an unknown architecture: give it, as in "
        f"--architecture ViT-B-16 or ViT-B-16,{path}; {find_layout_remedy(state)}; or give the "
        "function of your own code that builds it, as --model-from FILE.py:FUNCTION."
    )


def _load_folder(path: Path) -> Classifier:
    from .hf_files import check_no_adapter

    check_no_adapter(path)
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
    if problem and (meant := _find_meant_ids(model_id)):
        problem = f"{problem.partition(';')[0]}; check the name, or give {', '.join(meant)}"
    return problem


def _find_meant_ids(model_id: ModelId) -> list[str]:
    """Return the ids that one with a wrong prefix, or without any, may stand for."""
    text = str(model_id).removeprefix(model_id.prefix)
    name, comma, _ = text.partition(",")
    has_file = bool(model_id.name) and bool(model_id.file) and Path(model_id.file).exists()
    meant: list[str] = []
    for family in families().values():
        known = {} if family.name == model_id.family else dict.fromkeys(family.known_names())
        if family.needs_weights and not comma:
            architecture = f"{text.replace('/', '-')},"
            meant += [full for full in known if full.startswith(architecture)][:1]
        elif text in known or (has_file and name in known):
            meant.append(f"{family.forms[0].prefix}{text}")
    is_file = Path(text).suffix in _FILE_SUFFIXES
    return meant or ([] if comma or is_file else _find_repository_ids(text))


def _find_repository_ids(text: str) -> list[str]:
    """Return the ids of a repository on the hub, if a text may name one."""
    if not _REPOSITORY.fullmatch(text):
        return []
    forms = [(family, form) for family in families().values() for form in family.forms]
    ids = [
        (form.prefix, f"{form.prefix}{text} of {family.title}")
        for family, form in forms
        if "REPO" in form.model
    ]
    owner = f"{text.partition('/')[0]}:"
    return [id_ for _, id_ in sorted(ids, key=lambda pair: not pair[0].startswith((owner, "hf:")))]


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

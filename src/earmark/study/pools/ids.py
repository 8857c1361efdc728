"""Which part of a model's id is a file, told without loading the model."""

from pathlib import Path


def split_file(name: str, base: Path = Path()) -> tuple[str, str]:
    """Split an id of `earmark.load_model` before the file or the folder that it names.

    Args:
        name: The id.
        base: The folder that relative paths start from.

    Returns:
        What stands before the path, and the path, which is empty where the id names none.

    Example:
        >>> split_file("ViT-B-16,openai")
        ('ViT-B-16,openai', '')
        >>> split_file("timm:resnet50,mine/last.pt")
        ('timm:resnet50,', 'mine/last.pt')
    """
    family, colon, rest = name.partition(":")
    match family if colon else "":
        case "lab" | "hf-hub":
            return name, ""
        case "local-dir":
            return "local-dir:", rest
        case "hf":
            folder = rest.startswith((".", "/")) or (base / rest).exists()
            return ("hf:", rest) if folder else (name, "")
        case "timm" | "torchvision":
            return _after_comma(name, base)
        case _:
            whole = (base / name).exists() or ("," not in name and _is_path(name, base))
            return ("", name) if whole else _after_comma(name, base)


def located(name: str, base: Path) -> str:
    """An id as `earmark.load_model` takes it from any working directory.

    Args:
        name: The id.
        base: The folder that relative paths start from.

    Returns:
        The id, its file under ``base`` unless its path is absolute.

    Example:
        >>> located("RN50,ours.pt", Path("/checkpoints"))
        'RN50,/checkpoints/ours.pt'
    """
    before, file = split_file(name, base)
    return f"{before}{base / file}" if file else name


def _after_comma(name: str, base: Path) -> tuple[str, str]:
    before, comma, second = name.partition(",")
    if comma and (name.startswith("timm:") or _is_path(second, base)):
        return f"{before},", second
    return name, ""


def _is_path(text: str, base: Path) -> bool:
    """Whether it has an ending or a folder, which no tag of a library has, or is there."""
    path = Path(text)
    return bool(path.suffix) or len(path.parts) > 1 or (base / path).exists()

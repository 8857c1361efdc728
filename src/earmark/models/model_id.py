"""Model ids, read without loading the model."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from .family import OWN_FAMILY, Family, IdForm, families

_CODE = re.compile(r"[^,]*\.py:\w+(,.*)?")  # FILE.py:FUNCTION[,FILE] without the prefix


@dataclass(frozen=True)
class ModelId:
    """Parts of a model id such as ``timm:NAME,FILE``, or of a path; ``str`` joins them."""

    family: str = ""  # "" of a path, or where no family is known
    prefix: str = ""  # such as "timm:"
    name: str = ""  # up to the comma
    tag: str = ""  # the published weights after the comma
    file: str = ""  # the file or folder of the weights, after the comma or alone
    on_hub: bool = False  # whether `name` is a repository, whose existence is not known

    def __str__(self) -> str:
        """Return the id."""
        return self.prefix + ",".join(filter(None, (self.name, self.tag or self.file)))

    @property
    def model(self) -> str:
        """The model as its library names it, without weights of another place."""
        own = self.prefix.removeprefix(f"{self.family}:")
        return own + (self.name or self.file)

    @property
    def weights(self) -> str:
        """The tag, or the file where it is not the model itself."""
        return self.tag or (self.file if self.name else "")

    def resolve(self, base: Path) -> "ModelId":
        """Return the same id with a relative path taken from a folder."""
        resolved = replace(self, file=str(base / self.file)) if self.file else self
        if self.family == OWN_FAMILY:
            resolved = replace(resolved, name=str(base / self.name))
        return resolved


def parse_model_id(text: str, base: Path = Path()) -> ModelId:
    """Read a model id or a path; relative paths start from ``base``."""
    # Both `family` and `file` are empty if no family has such ids.
    family, form = _find_form(text)
    if not form.prefix and _CODE.fullmatch(text) and not (base / text).exists():
        return parse_model_id(f"{OWN_FAMILY}:{text}", base)
    rest = text.removeprefix(form.prefix)
    if not form.prefix:
        if (base / text).exists() or ("," not in text and _is_path(text, base)):
            return ModelId(file=text)
        if ":" in text.partition(",")[0]:  # of no family that is installed
            prefix, colon, rest = text.partition(":")
            return ModelId(prefix=prefix + colon, name=rest)
    is_folder = rest.startswith((".", "/")) or (base / rest).exists()
    if form.model == "FOLDER" or ("FOLDER" in form.model and is_folder):
        return ModelId(family.name, form.prefix, file=rest)
    parts = ModelId(family.name, form.prefix, rest, on_hub="REPO" in form.model)
    name, _, weights = rest.partition(",")
    if not (form.weights and weights):
        return parts
    is_file = form.weights == "FILE" or ("FILE" in form.weights and _is_path(weights, base))
    return replace(parts, name=name, **{"file" if is_file else "tag": weights})


def _find_form(text: str) -> tuple[Family, IdForm]:
    """Return the form with the longest prefix; open_clip's ids may have none."""
    return max(
        (
            (family, form)
            for family in families().values()
            for form in family.forms
            if text.startswith(form.prefix)
        ),
        key=lambda pair: len(pair[1].prefix),
    )


def _is_path(text: str, base: Path) -> bool:
    return bool(Path(text).suffix) or "/" in text or (base / text).exists()

"""Sentences on the preprocessing of the images of each model."""

from collections.abc import Mapping

from ..._text import first_names
from ..results_grid import FamilyRow, ResultsGrid


def preprocessing_sentences(grid: ResultsGrid) -> list[str]:
    """Return what is done to each image, or if models differ, for which models."""
    by_text: dict[str, list[str]] = {}
    for model, text in _find_preprocessing(grid).items():
        by_text.setdefault(text, []).append(model)
    if len(by_text) == 1:
        return [f"Of each image: {next(iter(by_text))}."]
    return [f"For {first_names(models)}: {text}." for text, models in by_text.items()]


def preprocessing_caution(grid: ResultsGrid) -> str:
    """Return a sentence on the families whose models do not see the same pixels, or ""."""
    texts = _find_preprocessing(grid)
    families = [row.label for row in grid.rows if _is_mixed(row, texts)]
    if not families:
        return ""
    return (
        f"The models of {first_names(families)} differ in preprocessing (see the end of this "
        "page), so that they do not see the same pixels: part of their differences may be due to "
        "that."
    )


def _find_preprocessing(grid: ResultsGrid) -> Mapping[str, str]:
    """Return the preprocessing of each model whose records say it."""
    firsts = ((model, records[0]) for (model, _), records in grid.record_index.items())
    return {model: record.preprocessing for model, record in firsts if record.preprocessing}


def _is_mixed(row: FamilyRow, texts: Mapping[str, str]) -> bool:
    return len({texts[model] for model in row.models.values() if model in texts}) > 1

"""Layer-wise CKA of two models, from their ids to a CSV file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ..._io import atomic_write
from ..._progress import ProgressCallback, no_progress
from ..._text import format_csv
from ...models.factory import load_model
from ...models.own_code import OwnCode
from .compare import LayerCKAConfig, LayerCKAResult, compare_layers, find_comparison_sets

CSV_FILE = "cka.csv"


@dataclass(frozen=True)
class ModelComparison:
    """CKA of two models on each dataset, and the CSV file if one was written."""

    results: Sequence[LayerCKAResult]
    path: Path | None = None

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each pair of layers and dataset."""
        return [
            {
                "first": result.first,
                "second": result.second,
                "dataset": result.dataset,
                **asdict(row),
            }
            for result in self.results
            for row in result.rows
        ]

    def skipped_modules(self) -> list[str]:
        """Return a text for each reason for which modules were not compared."""
        counts = Counter(reason for _, _, reason in self.results[0].skipped)
        texts: list[str] = []
        for model, module, reason in self.results[0].skipped:
            # A block that returns the output of its last part has been compared.
            if (n := counts.pop(reason, 0)) and not reason.startswith("returns what"):
                others = f", as {n - 1} others do" if n > 1 else ""
                texts.append(f"{module} in {model} {reason}{others}")
        return texts

    def as_json(self) -> str:
        """Return the rows and the skipped modules as JSON."""
        skipped = [
            {"model": model, "module": module, "reason": reason}
            for model, module, reason in self.results[0].skipped
        ]
        return json.dumps({"rows": self.rows(), "skipped": skipped}, indent=2)


def compare_models(  # noqa: PLR0913
    first: str,
    second: str,
    data: Path,
    *,
    layers: str | Sequence[str] = "*",
    config: LayerCKAConfig | None = None,
    out: Path | None = None,
    model_from: tuple[OwnCode, ...] = (),
    device: str = "cpu",
    progress: ProgressCallback = no_progress,
) -> ModelComparison:
    """Load two models, compare their layers on each dataset, and write a CSV file."""
    load = partial(load_model, model_from=model_from, prompts=None, device=device)
    x, y = load(first), load(second)
    image_sets = find_comparison_sets(x, y, data, exclude=[out] if out else [])
    compare = partial(compare_layers, x, y, layers=layers, config=config, progress=progress)
    results = [compare(images) for images in image_sets]
    comparison = ModelComparison(results, out / CSV_FILE if out else None)
    if comparison.path:
        rows = comparison.rows()
        with atomic_write(comparison.path) as tmp_path:
            text = format_csv([*rows[0]], ([*row.values()] for row in rows))
            tmp_path.write_text(text, encoding="utf-8", newline="")
    return comparison

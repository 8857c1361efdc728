"""A study's own baseline of effective robustness, fitted on models that it measures."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from .._text import first_names
from ..records import Record
from ..signatures.effective_robustness import Baseline, fit_baseline
from .baselines import AvailableBaselines, baseline_records
from .records.accuracy import join_notes

MIN_FIT_MODELS = 3
MIN_MODELS = 10
"""Number of models below which effective robustness above such a baseline has a note."""


@dataclass(frozen=True)
class PoolBaseline:
    """Baseline of a study; each of its models is compared with the baseline of the others."""

    name: str
    accuracies: Mapping[str, tuple[float, float]]  # on the ID images and the shifts, by model
    other_records: tuple[Record, ...] = ()  # accuracies of models outside of the pool

    @classmethod
    def from_records(
        cls, name: str, records: Mapping[str, Sequence[Record]], *, other_models: Sequence[str]
    ) -> "PoolBaseline":
        """Take the accuracies of each model: a record of the ID images, one of the shifts."""
        all_accuracies = {model: (r[0].value, r[1].value) for model, r in records.items()}
        accuracies = {m: pair for m, pair in all_accuracies.items() if all(0 < a < 1 for a in pair)}
        if without_logit := [model for model in records if model not in accuracies]:
            warnings.warn(
                f"The baseline {name} is fitted without {first_names(without_logit)}: accuracies "
                "of 0 and 1, on the images or on the mean of the shifts, have no logit.",
                stacklevel=4,
            )
        if len(accuracies) < MIN_FIT_MODELS:
            raise ValueError(
                f"The baseline {name} needs {MIN_FIT_MODELS} models with accuracies between 0 and "
                f"1, and has {len(accuracies)}: give [baseline] others, or more images."
            )
        others = [record for model in other_models for record in records[model]]
        baseline = cls(name, accuracies, tuple(others))
        baseline.fit()  # an error comes before any other work
        return baseline

    def fit(self, left_out: Collection[str] = ()) -> Baseline:
        """Fit the baseline on all models but some; a ValueError says why there is none."""
        pairs = [pair for model, pair in self.accuracies.items() if model not in left_out]
        x, y = ([pair[side] for pair in pairs] for side in (0, 1))
        return fit_baseline(x, y, name=self.name)

    def leave_out(self, *models: str) -> AvailableBaselines:
        """Return the baseline without the models whose robustness is measured from it."""
        left_out, line = self.accuracies.keys() & {*models}, self.fit()
        records = (*baseline_records(line), *self.other_records)
        others = "the model itself" if len(models) == 1 else "the models that it is made of"
        notes = [f"the baseline fitted without {others}" if left_out else ""]
        if line.n < MIN_MODELS:
            notes.append(f"a baseline of {line.n} models only, r {line.pearson_r:.2f}")
        try:
            baseline = self.fit(left_out)
        except ValueError as error:
            return AvailableBaselines(records=records, missing=f"another baseline: {error}")
        return AvailableBaselines((baseline,), records, note=join_notes(*notes))


def add_robustness_note(records: Sequence[Record], note: str) -> list[Record]:
    """Return records with a note at each effective robustness."""
    return [
        replace(record, note=join_notes(record.note, note))
        if record.quantity.endswith("effective_robustness")
        else record
        for record in records
    ]

"""The lines that effective robustness is measured from, and their records."""

from collections.abc import Sequence

import numpy as np

from ..data.imagenet import SHIFTS, imagenet_wnids
from ..data.images import ImageSet
from ..data.lab import CLASS_FOLDERS
from ..results import Record
from ..signatures.robustness import PAPER_BASELINE, Baseline, fit_baseline
from .lab_towers import lab_baselines
from .observatory import MATCHED_LINE, find_line


def lines_for(
    classes: Sequence[str], shifts: Sequence[ImageSet]
) -> tuple[tuple[Baseline, ...], list[Record]]:
    """The lines that a model's accuracy on these shifts can be compared with.

    The paper's and the testbed's lines are of ImageNet and all its five shifts. Beside the
    paper's, which was fitted with ImageNet-V2 threshold-0.7, stands the testbed's line of
    the same variant as the images.

    Args:
        classes: Of the model's head.
        shifts: The sets that it was measured on.

    Returns:
        The lines, the first of them the one that pruning is shown against; none where
        the shifts are others, or not all there. And their records.
    """
    names = [one.name for one in shifts]
    if names == list(SHIFTS) and tuple(classes) == CLASS_FOLDERS:
        line, records = lab_line()
        return (line,), records
    v2 = {"v2": MATCHED_LINE, "v2-threshold0.7": "testbed"}
    if set(classes) != set(imagenet_wnids()) or names[1:] != list(SHIFTS[1:]):
        return (), []
    if names[0] not in v2:
        return (), []
    lines = (PAPER_BASELINE, find_line(v2[names[0]]).baseline)
    return lines, [record for line in lines for record in line_records(line)]


def lab_line() -> tuple[Baseline, list[Record]]:
    """The lab's own line, and the records that draw it: its models and the line itself.

    Returns:
        The line, fitted to the shipped accuracies of the lab's baselines; the records.
    """
    records: list[Record] = []
    for model in lab_baselines():
        shifts = [model.accuracy[name] for name in SHIFTS]
        for dataset, value, n in (
            ("imagenet", model.accuracy["imagenet"], model.images["imagenet"]),
            ("shifts", float(np.mean(shifts)), sum(model.images[name] for name in SHIFTS)),
        ):
            records.append(
                Record(
                    model=f"lab:{model.name}",
                    backbone="lab baseline",
                    pretraining="",
                    role="other",
                    quantity="accuracy",
                    value=value,
                    dataset=dataset,
                    setting="baseline",
                    n=n,
                )
            )
    imagenet = [record.value for record in records if record.dataset == "imagenet"]
    shifts = [record.value for record in records if record.dataset == "shifts"]
    line = fit_baseline(imagenet, shifts, name="lab")
    return line, [*records, *line_records(line)]


def line_records(line: Baseline) -> list[Record]:
    """A line as records, so that tables can name it and figures draw it.

    Args:
        line: Any baseline.

    Returns:
        Its slope, intercept, correlation and range.
    """
    numbers = {
        "baseline_slope": (line.slope, line.slope_interval),
        "baseline_intercept": (line.intercept, line.intercept_interval),
        "baseline_r": (line.pearson_r, None),
        "baseline_id_low": (line.id_range[0], None),
        "baseline_id_high": (line.id_range[1], None),
    }
    return [
        Record(
            model="",
            backbone="",
            pretraining="",
            role="other",
            quantity=quantity,
            value=value,
            item=line.name,
            low=interval[0] if interval else None,
            high=interval[1] if interval else None,
            n=line.n,
        )
        for quantity, (value, interval) in numbers.items()
    ]

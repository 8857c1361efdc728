"""Conversion of records of format 1, whose `setting` and `item` held sentences."""

from typing import Any

_DATASETS = {
    "v2": "imagenetv2",
    "v2-threshold0.7": "imagenetv2-threshold0.7",
    "v2-top-images": "imagenetv2-top-images",
    "r": "imagenet-r",
    "sketch": "imagenet-sketch",
    "a": "imagenet-a",
}
_VARIANTS = {
    "centred": "centered",
    "gauge-fixed": "class-centered",
    "standardised": "standardized",
    "singular, gauge-fixed": "singular-centered",
}
_BASIS_VARIANTS = {"rank(W)": "rank", "both": "both-orientations"}
_CONTROLS = {
    "chance": "null",
    "beyond chance": "excess",
    "surviving": "fdr",
    "held out": "held-out",
    "": "",
}
_OF_CONCEPTS = ("unique_concepts", "polysemanticity")
_OF_BASIS = (*_OF_CONCEPTS, "best_average_precision", "top_concept")
_MIN_POSITIVES = 20


def convert_row(row: dict[str, Any]) -> dict[str, Any]:
    """Convert one row of format 1 to the fields of `Record`."""
    row = dict(row)
    setting, item, x = row.pop("setting"), row.pop("item"), row.pop("x")
    quantity = row["quantity"].removesuffix("_checked")
    is_control = quantity != row["quantity"]
    row |= {"quantity": quantity, "dataset": _DATASETS.get(row["dataset"], row["dataset"])}
    if quantity in _OF_BASIS:
        row |= _split_basis(setting)
        if quantity in _OF_CONCEPTS:
            row |= {"threshold": x} | (_split_control(item) if is_control else {})
            return row
        return row | {"item": item, "coordinate": x}
    if quantity.startswith("baseline_"):
        return row | {"baseline": item, "coordinate": x}
    if quantity == "effective_robustness":
        return row | {"baseline": setting, "item": item, "coordinate": x}
    row["variant"] = _VARIANTS.get(setting, setting)
    if quantity == "pruned_effective_robustness":
        return row | {"baseline": item, "coordinate": x}
    return row | {"item": item, "coordinate": x}


def _split_basis(setting: str) -> dict[str, Any]:
    basis, _, rest = setting.partition(", ")
    if basis == "random":
        return {"basis": basis, "seed": int(rest.removeprefix("seed ") or 0)}
    return {"basis": basis, "variant": _BASIS_VARIANTS.get(rest, rest)}


def _split_control(item: str) -> dict[str, Any]:
    if item.startswith("width "):
        return {"control": "width", "width": int(item.removeprefix("width "))}
    if item == "floor" or item.startswith("floor, "):
        control = item.removeprefix("floor").removeprefix(", ")
        return {"control": _CONTROLS[control], "min_positives": _MIN_POSITIVES}
    return {"control": _CONTROLS[item]}

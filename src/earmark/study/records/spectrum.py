"""Records of the spectrum of the representation."""

from functools import partial

from ...records import Record
from ...signatures.spectrum import Spectrum, read_spectrum
from .accuracy import Batches


def spectrum_records(row: partial[Record], dataset: str, activations: Batches) -> list[Record]:
    """Record RankMe and the slope of the power law, raw and centered, with its R²."""
    spectrum = read_spectrum(activations)
    row = partial(row, dataset=dataset, n=spectrum.images)
    variants = {"": False} | ({"centered": True} if spectrum.rank(centered=True) else {})
    return [
        record
        for variant, centered in variants.items()
        for record in _variant_records(partial(row, variant=variant), spectrum, centered=centered)
    ]


def _variant_records(row: partial[Record], spectrum: Spectrum, *, centered: bool) -> list[Record]:
    ratio = f"{spectrum.images / spectrum.features:.3g} images per feature"
    note = f"no interval: few images bias it low, and resampling them more so; {ratio}"
    value = spectrum.rankme(centered=centered)
    records = [row(quantity="rankme", value=value, note=note)]
    try:
        slope = spectrum.slope(centered=centered)
    except ValueError:  # of too few nonzero eigenvalues
        return records
    first, last = slope.ranks
    fit = f"ranks {first} to {last}, {ratio}"
    note = f"no interval: few images make it too steep; {fit}"
    records.append(row(quantity="spectrum_slope", value=slope.alpha, note=note))
    if slope.r_squared == slope.r_squared:
        note = f"no interval: of the fit to the eigenvalues; {fit}"
        records.append(row(quantity="spectrum_fit", value=slope.r_squared, note=note))
    return records

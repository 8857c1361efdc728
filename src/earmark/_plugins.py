"""Entry points of other packages: signatures, datasets and model families."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points


def iter_plugins(group: str) -> Iterator[tuple[EntryPoint, object]]:
    """Yield each entry point of a group with the object that it names.

    Raises:
        ValueError: If one cannot be imported; the message names its package.
    """
    for point in entry_points(group=group):
        try:
            yield point, point.load()
        except Exception as error:
            raise ValueError(
                f"The plug-in {plugin_name(point)} cannot be loaded "
                f"({type(error).__name__}: {error}): update or uninstall it."
            ) from error


def plugin_name(point: EntryPoint) -> str:
    """Return the package and the name of an entry point."""
    package = point.dist.name if point.dist else point.module
    return f"{package} ({point.group}: {point.name})"

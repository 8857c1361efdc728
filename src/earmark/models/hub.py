"""Other libraries, while they load: kept quiet, and their failures told in one line."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

_TALKATIVE = ("timm", "huggingface_hub", "transformers", "torch.hub")


@contextmanager
def quiet() -> Generator[None]:
    """Hold back warnings and what is logged below the level of errors.

    Example:
        >>> with quiet():
        ...     logging.getLogger("timm").warning("some key was unexpected")
    """
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def downloading(what: str, *, instead: str) -> Generator[None]:
    """Tell in one line that weights could not be had.

    Args:
        what: Whose weights they are.
        instead: How to give them from a local file.

    Raises:
        ValueError: In place of the library's own error.

    Example:
        >>> with downloading("timm:resnet50", instead="timm:resnet50,PATH"):
        ...     raise OSError("no route to host")
        Traceback (most recent call last):
        ...
        ValueError: The weights of timm:resnet50 could not be downloaded (no route to host);
        where there is no network, give a local copy as timm:resnet50,PATH.
    """
    try:
        with quiet():
            yield
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"The weights of {what} could not be downloaded ({reason.rstrip('.')}); where "
            f"there is no network, give a local copy as {instead}."
        ) from error

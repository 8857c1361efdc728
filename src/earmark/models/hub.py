"""Other libraries, while they load: kept quiet, and their failures told in one line."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch

_TALKATIVE = ("timm", "huggingface_hub", "transformers", "torch.hub")
_LONGEST = 200


def one_line(error: Exception) -> str:
    r"""What an error says, however many lines it takes, in one that is not too long.

    Args:
        error: Of any kind.

    Returns:
        Its message, or its kind where it has none.

    Example:
        >>> one_line(ValueError("No weights:\n  head.bias")), one_line(MemoryError())
        ('No weights: head.bias', 'MemoryError')
    """
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."


@contextmanager
def quiet() -> Generator[None]:
    """Hold back warnings and what is logged, and leave the random numbers as they are.

    Errors that libraries log by their own names reach the handlers that a program has set.

    Example:
        >>> with quiet():
        ...     logging.getLogger("timm").warning("some key was unexpected")
        ...     logging.error("open_clip logs by no name")
    """
    with _silenced_root(), _at_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.random.fork_rng(devices=[]):
            yield


@contextmanager
def _silenced_root() -> Generator[None]:
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # or else logging gives the root a handler of its own
    root.addFilter(_nothing)
    try:
        yield
    finally:
        root.removeFilter(_nothing)
        root.removeHandler(handler)


def _nothing(_: logging.LogRecord) -> bool:
    return False


@contextmanager
def _at_errors() -> Generator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
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
        reason = one_line(error).rstrip(".")
        raise ValueError(
            f"The weights of {what} could not be downloaded ({reason}); where there is no "
            f"network, give a local copy as {instead}."
        ) from error

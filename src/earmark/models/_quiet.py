"""Suppressed output of other libraries, and their errors in one line."""

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import torch

from .._text import replace_control_characters

_NOISY_LOGGERS = ("timm", "huggingface_hub", "transformers", "torch.hub")
_MAX_LENGTH = 200


def one_line(error: BaseException) -> str:
    """Return an error's message as one line of limited length, or its type's name."""
    line = replace_control_characters(" ".join(str(error).split())) or type(error).__name__
    return line if len(line) <= _MAX_LENGTH else f"{line[: _MAX_LENGTH - 4]} ..."


@contextmanager
def quiet() -> Generator[None]:
    """Suppress warnings and log records, and restore the random state afterwards."""
    # Errors that libraries log under their own names still reach a program's handlers.
    with _log_errors_only(), _catch_panics(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.random.fork_rng(devices=[]):
            yield


@contextmanager
def _catch_panics() -> Generator[None]:
    """Turn a panic of Rust code, which is no Exception, into an error."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"a library panicked: {one_line(error)}") from error


def _reject_record(_: logging.LogRecord) -> bool:
    return False


@contextmanager
def _log_errors_only() -> Generator[None]:
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # or else logging gives the root a handler of its own
    root.addFilter(_reject_record)
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        root.removeFilter(_reject_record)
        root.removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def download_errors(model_name: str, *, alternative: str) -> Generator[None]:
    """Turn a library's error into a one-line ValueError that names a local alternative."""
    try:
        with quiet():
            yield
    except (OSError, RuntimeError) as error:
        reason = one_line(error).rstrip(".")
        raise ValueError(
            f"The weights of {model_name} could not be downloaded ({reason}); without a "
            f"network, give a local copy as {alternative}."
        ) from error
    except ValueError:
        raise
    except Exception as error:  # libraries raise errors of any type for damaged files
        raise ValueError(
            f"{model_name} could not be read ({one_line(error).rstrip('.')}): download it again, "
            f"or give a local copy as {alternative}."
        ) from error

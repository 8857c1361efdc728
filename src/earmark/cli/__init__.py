"""The command ``earmark``: each subcommand calls the library and prints the result."""

import os
import platform
import shlex
import sys
import traceback
import warnings
from errno import ENOSPC
from tempfile import mkstemp
from typing import Annotated

import typer

from ._malloc import keep_freed_memory
from .audit import audit
from .check import check
from .cka import cka
from .console import print_error, print_line, show_warning
from .er import er
from .merge import interpolate, prune, soup
from .rank import estimate, rank
from .report import demo, report
from .scan import scan
from .study import study
from .train import finetune, train

_MAX_LENGTH = 300  # characters of a message of which nothing is known

app = typer.Typer(
    name="earmark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure signatures of robustness in vision models, with controls for each of them.",
)

_EXAMPLES = {
    demo: "--out lab-study",
    er: "--model '*,openai' --sort imagenet",
    scan: "ViT-B-16-quickgelu,openai --data data --out vit",
    study: "paper-v1 --plan",
    check: "data --fix-list faults.tsv",
    report: "earmark-demo",
    audit: "--paper",
    estimate: "tuned/model.safetensors --data data --target photos",
    rank: "a.safetensors b.safetensors --data data --target photos",
    finetune: "ViT-B-16-quickgelu,openai --data data --out tuned --device cuda",
    train: "RN50 --data data --out rn50 --device cuda",
    interpolate: "ViT-B-16-quickgelu,openai tuned/model.safetensors --alpha 0.5 --out between",
    soup: "a.safetensors b.safetensors --greedy --data held-out --out soup",
    prune: "ViT-B-16-quickgelu,openai --keep .2 --data data --out pruned",
    cka: "ViT-B-16-quickgelu,openai tuned/model.safetensors --data data --layers '*.resblocks.?'",
}
for command, example in _EXAMPLES.items():
    app.command(epilog=f"Example: earmark {command.__name__} {example}")(command)


def _print_version(is_asked: bool) -> bool:
    import earmark

    if is_asked:
        print_line(f"earmark {earmark.__version__}")
        raise typer.Exit
    return is_asked


@app.callback()
def _global_options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command; an error is printed in one line, with exit code 1."""
    # Waiting threads of OpenMP would spin, and slow a decomposition a hundredfold on a busy
    # machine. It must be set before torch starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    warnings.showwarning = show_warning
    warnings.filterwarnings("ignore", "Image size", RuntimeWarning)  # our own limit is an error
    try:
        app()
    except SystemExit as exit_:
        if exit_.code == 130:
            print_error("interrupted", "run the same command again to resume")
        raise
    except KeyboardInterrupt:
        raise
    except OSError as error:
        print_error("error", _describe_os_error(error))
        sys.exit(1)
    except ValueError as error:
        print_error("error", error)
        sys.exit(1)
    except BaseException as error:  # noqa: BLE001 - panics of Rust code are no Exception
        print_error("error", _describe_unknown_error(error))
        sys.exit(1)


def _describe_unknown_error(error: BaseException) -> str:
    """Return an error in a line with the place of a log, which is written here."""
    message = " ".join(f"{error}".split())
    message = message if len(message) <= _MAX_LENGTH else f"{message[:_MAX_LENGTH]} ..."
    described = f"{type(error).__name__}: {message}" if message else type(error).__name__
    try:
        place = f"The full log is in {_write_log(error)}; please report it."
    except OSError as refused:
        place = f"A full log could not be written ({refused})."
    return f"earmark failed unexpectedly ({described}). {place}"


def _write_log(error: BaseException) -> str:
    """Write the command, the versions and the traceback to a new temporary file."""
    import earmark

    lines = [
        f"command: {shlex.join(sys.argv)}",
        f"earmark {earmark.__version__}, Python {sys.version}, {platform.platform()}",
        "".join(traceback.format_exception(error)),
    ]
    descriptor, path = mkstemp(prefix="earmark-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join(lines))
    return path


def _describe_os_error(error: OSError) -> str:
    """Return what the system refused, for which file, and the remedy."""
    file = f": {error.filename}" if error.filename else ""
    remedy = "; give a path that can be used" if error.filename else ""
    if error.errno == ENOSPC or "No space left" in str(error):
        remedy = "; free some space there, then run the same command again"
    return f"{error.strerror or error}{file}{remedy}"

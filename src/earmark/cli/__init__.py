"""The command ``earmark``: each subcommand calls the library and prints the result."""

import os
import sys
import warnings
from errno import ENOSPC

import typer

from ._malloc import keep_freed_memory
from .audit import audit
from .check import check
from .cka import cka
from .console import print_error, show_warning
from .er import er
from .merge import interpolate, prune, soup
from .report import demo, report
from .scan import scan
from .study import study
from .train import finetune, train

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
    scan: "ViT-B-16,openai --data data --out vit",
    study: "paper-v1 --plan",
    check: "data --fix-list faults.tsv",
    report: "earmark-demo",
    audit: "--paper",
    finetune: "ViT-B-16,openai --data data --out tuned --device cuda",
    train: "RN50 --data data --out rn50 --device cuda",
    interpolate: "ViT-B-16,openai tuned/model.safetensors --alpha 0.5 --out between",
    soup: "a.safetensors b.safetensors --greedy --data held-out --out soup",
    prune: "ViT-B-16,openai --keep .2 --data data --out pruned",
    cka: "ViT-B-16,openai tuned/model.safetensors --data data --layers '*.resblocks.?'",
}
for command, example in _EXAMPLES.items():
    app.command(epilog=f"Example: earmark {command.__name__} {example}")(command)


def main() -> None:
    """Run the command; an error is printed in one line, with exit code 1."""
    # Waiting threads of OpenMP would spin, and slow a decomposition a hundredfold on a busy
    # machine. It must be set before torch starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    warnings.showwarning = show_warning
    try:
        app()
    except SystemExit as exit_:
        if exit_.code == 130:
            print_error("interrupted", "run the same command again to resume")
        raise
    except OSError as error:
        print_error("error", _describe_os_error(error))
        sys.exit(1)
    except ValueError as error:
        print_error("error", error)
        sys.exit(1)


def _describe_os_error(error: OSError) -> str:
    """Return what the system refused, for which file, and the remedy."""
    file = f": {error.filename}" if error.filename else ""
    remedy = "; give a path that can be used" if error.filename else ""
    if error.errno == ENOSPC or "No space left" in str(error):
        remedy = "; free some space there, then run the same command again"
    return f"{error.strerror or error}{file}{remedy}"

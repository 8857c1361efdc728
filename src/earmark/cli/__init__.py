"""The command ``earmark``: a thin command each."""

import os
import sys
import warnings
from errno import ENOSPC

import typer

from .allocator import keep_freed_memory
from .audits import audit
from .checks import check
from .merging import interpolate, prune, soup
from .observatory import er
from .scans import scan
from .similarities import cka
from .studies import demo, report, study
from .terminal import complain, warn
from .training import finetune, train

app = typer.Typer(
    name="earmark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Marks said to tell robust vision models from fragile ones, and how far each can "
    "be believed.",
)


app.command(epilog="Example: earmark demo --out lab-study")(demo)
app.command(epilog="Example: earmark er --model '*,openai' --sort imagenet")(er)
app.command(epilog="Example: earmark scan ViT-B-16,openai --data data --out vit")(scan)
app.command(epilog="Example: earmark study paper-v1 --plan")(study)
app.command(epilog="Example: earmark check data --fix-list faults.tsv")(check)
app.command(epilog="Example: earmark report earmark-demo")(report)
app.command(epilog="Example: earmark audit --paper")(audit)
app.command(
    epilog="Example: earmark finetune ViT-B-16,openai --data data --out tuned --device cuda"
)(finetune)
app.command(epilog="Example: earmark train RN50 --data data --out rn50 --device cuda")(
    train
)
app.command(
    epilog="Example: earmark interpolate ViT-B-16,openai tuned/model.safetensors "
    "--alpha 0.5 --out between"
)(interpolate)
app.command(
    epilog="Example: earmark soup a.safetensors b.safetensors --greedy --data held-out "
    "--out soup"
)(soup)
app.command(
    epilog="Example: earmark prune ViT-B-16,openai --keep .2 --data data --out pruned"
)(prune)
app.command(
    epilog="Example: earmark cka ViT-B-16,openai tuned/model.safetensors --data data "
    "--layers '*.resblocks.?'"
)(cka)


def main() -> None:
    """Run the command; what goes wrong is said in one line, with exit code 1."""
    # Waiting threads of OpenMP would spin, and slow a decomposition a hundredfold on a busy
    # machine. It must be set before torch starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    warnings.showwarning = warn
    try:
        app()
    except SystemExit as ended:
        if ended.code == 130:
            complain("interrupted", "run the same command again to go on from here")
        raise
    except OSError as error:
        complain("error", _told(error))
        sys.exit(1)
    except ValueError as error:
        complain("error", error)
        sys.exit(1)


def _told(error: OSError) -> str:
    """What the system refused, where, and what to do about it."""
    where = f": {error.filename}" if error.filename else ""
    remedy = "; give a path that can be used" if error.filename else ""
    if error.errno == ENOSPC or "No space left" in str(error):
        remedy = "; free some room there, then run the same command again"
    return f"{error.strerror or error}{where}{remedy}"

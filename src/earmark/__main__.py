"""``python -m earmark`` is the command ``earmark``."""

from .cli import main

main()

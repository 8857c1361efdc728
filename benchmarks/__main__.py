"""``python -m benchmarks``: measure, and write one table."""

import sys

from .running import main

sys.exit(main())

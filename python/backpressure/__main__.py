"""``python -m backpressure``: the `backpressure` command, where its script is not on the path."""

from __future__ import annotations

import sys

from backpressure.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""No command prints a password."""

from __future__ import annotations

import json
from typing import Any

from backpressure._watch.masking import masked_tree

__all__ = ["print_json"]


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value for scripts."""
    print(json.dumps(masked_tree(value), indent=indent), flush=True)

"""No command prints a password: queues may be named by URLs that hold one, and so may keys, values and errors."""

from __future__ import annotations

import json
from typing import Any

from backpressure._model.arguments import masked

__all__ = ["masked_tree", "print_json"]


def masked_tree(value: Any) -> Any:
    """Return a value of JSON with all its texts masked, names of fields too."""
    if isinstance(value, dict):
        return {masked(name): masked_tree(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked_tree(one) for one in value]
    return masked(value) if isinstance(value, str) else value


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value for scripts."""
    print(json.dumps(masked_tree(value), indent=indent), flush=True)

"""No look shows a password: queues may be named by URLs that hold one, and so may keys, values and errors."""

from __future__ import annotations

from typing import Any

from backpressure._model.arguments import masked

__all__ = ["masked_tree"]


def masked_tree(value: Any) -> Any:
    """Return a value of JSON with all its texts masked, names of fields too."""
    if isinstance(value, dict):
        return {masked(name): masked_tree(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [masked_tree(one) for one in value]
    return masked(value) if isinstance(value, str) else value

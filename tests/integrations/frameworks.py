"""Looks for the frameworks that hooks are tested with. Under ``CI=true`` a missing one fails."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def required(name: str) -> Any:
    """Return a framework's module, or skip the module that asks."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            raise
        pytest.skip(f"{missing.name} is not installed", allow_module_level=True)

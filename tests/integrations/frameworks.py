"""Looks for the frameworks that hooks are tested with. Under ``CI=true``, and by `make matrix`, a missing one fails."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

#: What cannot be installed beside the others. Its tests are run by `make matrix` alone, which the CI calls for these.
APART = {"arq"}  # wants redis below 6


def required(name: str) -> Any:
    """Return a framework's module, or skip the module that asks."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        in_ci = os.environ.get("CI", "").lower() in {"1", "true"}
        if os.environ.get("BACKPRESSURE_MATRIX") or (in_ci and name not in APART):
            raise
        pytest.skip(f"{missing.name} is not installed", allow_module_level=True)

"""What PyInstaller must be told of this package. It asks by the entry point ``pyinstaller40``."""

from __future__ import annotations

from pathlib import Path

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """Return the directory with the hooks."""
    return [str(Path(__file__).parent)]

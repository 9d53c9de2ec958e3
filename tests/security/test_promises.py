"""Files that `SECURITY.md` names exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_named_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    named = set(re.findall(r"`((?:tests|docs)/[^` ]+)`", text)) | set(re.findall(r"\]\(([^)]+)\)", text))
    assert len(named) >= 8
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    assert "#![forbid(unsafe_code)]" in (ROOT / "rust/core/src/lib.rs").read_text("utf-8")

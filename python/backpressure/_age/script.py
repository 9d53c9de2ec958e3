"""The script that shares a queue's budget, which Redis and Valkey run: its text, its digest, and the key of a queue."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from backpressure import _age

__all__ = ["budget_key", "source", "source_sha1"]


@functools.cache
def source() -> str:
    """Return the text for ``SCRIPT LOAD``."""
    return (resources.files(_age) / "script.lua").read_text("utf-8")


@functools.cache
def source_sha1() -> str:
    """Return the digest for ``EVALSHA``, in hexadecimal digits."""
    return _sha1(source())


def budget_key(queue_name: str) -> str:
    """Return the one key that holds a queue's budget, ``bp:{<queue>}:age``.

    The queue's name is the hash tag, which decides the key's slot in a cluster. A name with braces would end the tag
    early, or be none: its SHA-1 stands for it.
    """
    tag = _sha1(queue_name) if "{" in queue_name or "}" in queue_name else queue_name
    return f"bp:{{{tag}}}:age"


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

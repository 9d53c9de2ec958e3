"""Who this process is among all that do the same: a name of its own, and its place in a row of them all."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket

__all__ = ["instance_id", "is_among", "new_id"]

_HOST_CHARS = 64
# By process id: a forked child is another process, and gets another name.
_ids: dict[int, str] = {}


def instance_id() -> str:
    """Return the name of this process, ``<host>-<pid>-<nonce>``: the same as long as it lives."""
    pid = os.getpid()
    return _ids.get(pid) or _ids.setdefault(pid, new_id(pid))


def new_id(pid: int) -> str:
    """Return a name that no other process has, of printable ASCII characters."""
    host = "".join(char if "!" <= char <= "~" else "?" for char in socket.gethostname())[:_HOST_CHARS]
    return f"{host or 'host'}-{pid}-{secrets.token_hex(4)}"


def is_among(name: str, share: float) -> bool:
    """Tell whether a process is among the first `share` of all, from 0 to 1; a larger share only adds some."""
    place = int(hashlib.sha256(name.encode()).hexdigest()[:13], 16)  # 52 bits, which a float holds exactly
    return place < share * 2.0**52

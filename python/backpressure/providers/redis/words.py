"""Translates Celery's words in Redis URLs into redis-py's: users paste the broker URL that they have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_our_words"]

_SENTINELS = re.compile(r"sentinel://", re.IGNORECASE)
_SOCKET = re.compile(r"(?:redis|valkey)\+socket://", re.IGNORECASE)
_ANOTHER = re.compile(r";\s*(?:redis|rediss|sentinel|valkey)(?:\+\w+)?://", re.IGNORECASE)
_CERT_REQS = re.compile(r"(?:CERT_)?(none|optional|required)", re.IGNORECASE)

# Words that Celery's transport takes, as options or in the URL, and that do not say where the server is.
_CELERYS = frozenset(
    {
        "ack_emulation",
        "credential_provider",
        "fanout_patterns",
        "fanout_prefix",
        "global_keyprefix",
        "master_name",
        "min_other_sentinels",
        "polling_interval",
        "priority_steps",
        "queue_order_strategy",
        "sentinel_kwargs",
        "sep",
        "unacked_index_key",
        "unacked_key",
        "unacked_mutex_key",
        "unacked_restore_limit",
        "visibility_timeout",
    }
)


def in_our_words(url: str, refuse: Callable[[str], object]) -> str:
    """Return `url` in this library's words; where it has none for Celery's, `refuse` is told why, and raises."""
    address, mark, query = url.partition("?")
    service = ""
    words = []
    for word in filter(None, query.split("&")):
        name, _, value = word.partition("=")
        if name == "virtual_host":
            words.append(f"db={value.removeprefix('%2F').strip('/')}")
        elif name == "ssl_cert_reqs":
            known = _CERT_REQS.fullmatch(value)
            if known is None:
                refuse("has another ssl_cert_reqs than none, optional or required")
            else:
                words.append(f"{name}={known[1].lower()}")
        elif name == "master_name" and _SENTINELS.match(address):
            service = value
        elif name in _CELERYS:
            refuse(f"has {name} after the '?', which is for Celery: make the provider by from_celery(app)")
        else:
            words.append(word)
    if _SENTINELS.match(address):
        address = _sentinels(address, service, refuse)
    elif _ANOTHER.search(address):
        refuse("names several brokers: give the one that jobs are sent to")
    elif socket := _SOCKET.match(address):
        address = f"unix://{address[socket.end() :]}"
    return address + mark + "&".join(words)


def _sentinels(address: str, service: str, refuse: Callable[[str], object]) -> str:
    if not service:
        refuse(
            "names sentinels and no service: give redis+sentinel://host:port,host:port/service/db, add "
            "?master_name=service, or make the provider by from_celery(app)"
        )
    credentials, hosts, database = "", [], ""
    for each in re.split(r";\s*(?=[\w+]+://)", address):
        start = _SENTINELS.match(each)
        if start is None:
            refuse("names sentinels beside something else: begin each with sentinel://")
            continue
        authority, _, path = each[start.end() :].partition("/")
        user, at, host = authority.rpartition("@")
        credentials, database = credentials or user + at, database or path
        hosts.append(host)
    return f"redis+sentinel://{credentials}{','.join(hosts)}/{service}/{database or 0}"

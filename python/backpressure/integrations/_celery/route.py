"""Finds the queue that a Celery message reaches in the route that Celery has merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["queue_of"]


def queue_of(amqp: Any, route: dict[str, Any]) -> str:
    """Return the name of the queue that a route leads to, as ``AMQP.send_task_message`` reads it.

    An exchange with a routing key has precedence over the queue. Where the app knows no queue that is bound to them,
    the routing key counts as the name of another service's queue.
    """
    queue: Any = route.get("queue")
    exchange: Any = route.get("exchange")
    key: Any = route.get("routing_key")
    if isinstance(queue, str):
        queue = amqp.queues[queue]
    if queue is None:
        queue = amqp.default_queue
    kind = route.get("exchange_type") or getattr(queue.exchange, "type", None) or "direct"
    if kind == "direct" and not (exchange and key):
        return str(queue.name)
    own = exchange is None
    exchange_name = queue.exchange.name if own else getattr(exchange, "name", exchange)
    key = key or (queue.routing_key if own else "")
    bound = [other.name for other in tuple(amqp.queues.values()) if _is_bound(other, exchange_name, key)]
    if queue.name in bound or (own and not bound):
        return str(queue.name)
    return str(bound[0] if bound else key or exchange_name)


def _is_bound(queue: Any, exchange_name: str, key: str) -> bool:
    return any(
        exchange.name == exchange_name and _matches(exchange.type, pattern or "", key)
        for exchange, pattern in _bindings(queue)
    )


def _bindings(queue: Any) -> Iterator[tuple[Any, str]]:
    for binding in (queue, *(queue.bindings or ())):
        if binding.exchange is not None:
            yield binding.exchange, binding.routing_key


def _matches(kind: str, pattern: str, key: str) -> bool:
    if kind == "topic":
        return _words_match(pattern.split("."), key.split("."))
    return kind == "fanout" or pattern == key


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[count:]) for count in range(len(words) + 1))
    return bool(words) and pattern[0] in {"*", words[0]} and _words_match(pattern[1:], words[1:])

"""Where budgets are kept: runs the script of the age law for several queues at once, in Redis or Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError

from backpressure._age.protocol import decode
from backpressure._age.script import source, source_sha1
from backpressure._age.state import State
from backpressure.providers.redis.connected import Connected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from backpressure._age.protocol import Answer
    from backpressure._model.errors import StatsUnavailableError

__all__ = ["BudgetStore"]

# Replies after which a cluster's client is to learn anew where keys lie.
_MOVED = (MovedError, AskError, ClusterDownError)


class BudgetStore(Connected):
    """Keeps budgets in one Redis, Valkey, Cluster or Sentinel service. Thread-safe."""

    _what = "budget"

    def exchange(self, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Answer | StatsUnavailableError]:
        """Run the script on each key with its arguments; return an answer or an error for each key.

        One round trip for each server, and two more where a server does not know the script yet.
        """
        answers: dict[str, Answer | StatsUnavailableError] = {}
        try:
            for client, keys in self._routes(calls):
                try:
                    answers.update(self._ask(client, {key: calls[key] for key in keys}))
                except Exception as error:  # noqa: BLE001 - a socket closed under redis-py shows as anything
                    self._stale_slots = True
                    answers.update(dict.fromkeys(keys, self._failure(error)))
        except Exception as error:  # noqa: BLE001 - no node of a cluster tells where keys lie
            self._forget()
            failure = self._failure(error)
            answers.update((key, failure) for key in calls if key not in answers)
        return answers

    def look(self, keys: Iterable[str]) -> dict[str, tuple[State | None, int] | StatsUnavailableError]:
        """Read states without taking part; return each with the server's clock in milliseconds, or an error."""
        looks: dict[str, tuple[State | None, int] | StatsUnavailableError] = {}
        wanted = dict.fromkeys(keys)
        try:
            for client, named in self._routes(wanted):
                pipeline = client.pipeline(transaction=False)
                pipeline.execute_command("TIME")
                for key in named:
                    pipeline.execute_command("GET", key)
                (seconds, microseconds), *values = pipeline.execute()
                now_ms = seconds * 1_000 + microseconds // 1_000
                looks.update((key, (State.of(value), now_ms)) for key, value in zip(named, values, strict=True))
        except Exception as error:  # noqa: BLE001 - as in `exchange`
            failure = self._failure(error)
            looks.update((key, failure) for key in wanted if key not in looks)
        return looks

    def _ask(self, client: Any, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Answer | StatsUnavailableError]:
        replies = self._run(client, calls)
        unknown = [key for key, reply in replies.items() if isinstance(reply, NoScriptError)]
        if unknown:
            client.execute_command("SCRIPT LOAD", source())
            replies |= self._run(client, {key: calls[key] for key in unknown})
        return {key: self._answer(reply) for key, reply in replies.items()}

    @staticmethod
    def _run(client: Any, calls: Mapping[str, Sequence[int | str]]) -> dict[str, Any]:
        pipeline = client.pipeline(transaction=False)
        for key, arguments in calls.items():
            pipeline.execute_command("EVALSHA", source_sha1(), 1, key, *arguments)
        return dict(zip(calls, pipeline.execute(raise_on_error=False), strict=True))

    def _answer(self, reply: Any) -> Answer | StatsUnavailableError:
        if isinstance(reply, _MOVED):
            self._stale_slots = True
        if isinstance(reply, Exception):
            return self._failure(reply)
        try:
            return decode(reply)
        except (ValueError, TypeError) as error:
            return self._failure(error)

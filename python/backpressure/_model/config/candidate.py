"""The settings of a candidate: a second policy, of which is only counted what it would do.

They are written as they would be to enforce it, and laid over the real ones in the same way. This file says which
settings a candidate may have: those by which the backlog decides.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backpressure._model.arguments import shown
from backpressure._model.config.age import AgeConfig
from backpressure._model.config.fields import NONE_TEXT, converted
from backpressure._model.errors import ConfigurationError

if TYPE_CHECKING:
    import attrs

__all__ = ["candidate_table", "unfit"]

_NONE = "none"
_POLICY = ("thresholds", "curve", "age")
_OF_AGE = ("memory", "target")
_TABLE = 'give a table of settings, or "none"'


def candidate_table() -> Any:
    """Return a field that holds the settings of a candidate, or ``None``."""
    return converted(_to_settings, default=None, hash=False, metadata={NONE_TEXT: _NONE})


def _to_settings(value: object, _owner: object, field: attrs.Attribute[Any]) -> Mapping[str, Any] | None:
    if value is None or value == _NONE:
        return None
    if not isinstance(value, Mapping):
        problem = f"{field.name} is {shown(value)}: {_TABLE}"
        raise ConfigurationError(problem, field=field.name, value=value)
    # Its own copy, so that nobody changes a configuration that holds.
    return {name: copy.deepcopy(settings) for name, settings in value.items()} or None


def unfit(candidate: Mapping[str, Any]) -> Iterator[ConfigurationError]:
    """Yield a fault for each setting that no candidate has; paths begin below it."""
    yield from _unfit_parts(candidate, "", (*_POLICY, "queues"))
    queues = candidate.get("queues")
    for name, parts in queues.items() if isinstance(queues, Mapping) else ():
        if isinstance(parts, Mapping):
            yield from _unfit_parts(parts, f"queues.{json.dumps(str(name), ensure_ascii=False)}.", _POLICY)


def _unfit_parts(parts: Mapping[str, Any], path: str, known: tuple[str, ...]) -> Iterator[ConfigurationError]:
    for part, value in parts.items():
        if part not in known:
            told = f"{', '.join(known[:-1])} or {known[-1]}"
            yield _fault(f"{path}{part}", value, f"a candidate has no such part: give {told}")
    age = parts.get("age")
    if isinstance(age, AgeConfig):
        age = {"target": age.target}
    for name, value in age.items() if isinstance(age, Mapping) else ():
        if name == "target" and value not in (None, _NONE):
            rule = (
                "how long jobs would wait depends on which of them go, so no candidate can be judged by it beside the "
                "real policy: replay a recording"
            )
            yield _fault(f"{path}age.target", value, rule)
        elif name not in _OF_AGE:
            yield _fault(f"{path}age.{name}", value, 'it decides nothing here: give memory, or "none" as target')


def _fault(path: str, value: object, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{path} is {shown(value)}: {rule}", field=path, value=value)

"""A configuration that operators have pushed: settings that each process lays over its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from backpressure._fleet.entries import VERSION, EntryError, check_mac, mac_of, opened, plain, whole
from backpressure._fleet.keys import CONFIG
from backpressure._fleet.texts import MAX_AUTHOR, MAX_REASON
from backpressure._model.config.root import BackpressureConfig
from backpressure._model.errors import ConfigurationError

__all__ = ["WHOLE", "Pushed", "check_pushable", "laid_over"]

#: A share of all.
WHOLE = 1_000
_MAX_SETTINGS = 16_384
_MAX_BYTES = 65_536

# What a running process cannot change, or must not by this way.
_FIXED: Mapping[str, str] = {
    "circuit": "breakers keep the settings that they were made with: restart the processes",
    "max_queues": "tables keep their size: restart the processes",
    "fleet": "a process belongs to the fleet that its own configuration names",
    "recovery.manual_override": "a switch has to end by itself: use backpressure override",
    "recovery.emergency_mode": "a switch has to end by itself: use backpressure emergency",
    "polling.enabled": "a fleet is read by polls",
}
_FIXED_OF_QUEUES: Mapping[str, str] = {
    "circuit": _FIXED["circuit"],
    **dict.fromkeys(("url", "layout", "key", "group", "options"), "providers are made once: restart the processes"),
}


@attrs.frozen(kw_only=True)
class Pushed:
    """Settings for a part of a fleet.

    Attributes:
        n: the revision: grows with each entry.
        share_permille: for how many of a thousand processes; the same ones come first, whatever is pushed.
        settings: what is laid over the configuration of each; empty: its own alone.
        others_n, others: likewise, what holds for the other processes; 0 is their own configuration.
        by, reason: who wants it, and why.
    """

    n: int
    share_permille: int
    settings: Mapping[str, Any]
    by: str
    reason: str
    others_n: int = 0
    others: Mapping[str, Any] = attrs.field(factory=dict)

    def of(self, member_id: str) -> tuple[int, Mapping[str, Any]]:
        """Return the revision and the settings that hold for a process."""
        place = int(hashlib.sha256(member_id.encode()).hexdigest()[:8], 16) % WHOLE
        return (self.n, self.settings) if place < self.share_permille else (self.others_n, self.others)

    def whole(self) -> tuple[int, Mapping[str, Any]]:
        """Return the revision and the settings that hold for most: what stays where another is tried with a share."""
        return (self.n, self.settings) if self.share_permille == WHOLE else (self.others_n, self.others)

    def encode(self, fleet: str, key: bytes | None = None) -> str:
        """Return what is written into the field."""
        settings, others = _text(self.settings), _text(self.others)
        told: dict[str, Any] = {
            "v": VERSION,
            "n": self.n,
            "share": self.share_permille,
            "by": self.by,
            "reason": self.reason,
            "settings": settings,
            "others_n": self.others_n,
            "others": others,
        }
        if key is not None:
            told["mac"] = mac_of(key, *self._signed(fleet, settings, others))
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    def _signed(self, fleet: str, *texts: str) -> tuple[object, ...]:
        digests = (hashlib.sha256(text.encode()).hexdigest() for text in texts)
        numbers = self.share_permille, self.n, self.others_n
        return VERSION, fleet, CONFIG, *numbers, self.by, self.reason, *digests

    @classmethod
    def decode(cls, raw: bytes | str, fleet: str, key: bytes | None = None) -> Pushed:
        """Return what the field says.

        Raises:
            EntryError: nothing that is understood, or nothing that was signed with `key`.
        """
        told = opened(CONFIG, raw, _MAX_BYTES)
        texts = [told.get(name) for name in ("settings", "others")]
        settings, others = map(_parsed, texts)
        share = whole(CONFIG, told, "share")
        if settings is None or others is None or not 1 <= share <= WHOLE:
            raise EntryError(f"field {CONFIG!r} of the fleet holds no settings: push them with backpressure")
        pushed = cls(
            n=whole(CONFIG, told, "n"),
            share_permille=share,
            settings=settings,
            by=plain(CONFIG, told, "by", MAX_AUTHOR),
            reason=plain(CONFIG, told, "reason", MAX_REASON),
            others_n=whole(CONFIG, told, "others_n"),
            others=others,
        )
        check_mac(CONFIG, told, key, *pushed._signed(fleet, *map(str, texts)))
        return pushed

    def to_dict(self) -> dict[str, Any]:
        """Return it for scripts and pages."""
        return attrs.asdict(self)


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _parsed(text: object) -> dict[str, Any] | None:
    """Return the settings that a text holds; ``None`` if it holds none, or too many."""
    if not isinstance(text, str) or len(text) > _MAX_SETTINGS:
        return None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def laid_over(settings: Mapping[str, Any], own: BackpressureConfig) -> BackpressureConfig:
    """Return a configuration with pushed settings over it.

    Raises:
        ConfigurationError: they are faulty, change what only a new process can change, or are too many; its ``faults``
            and its message hold all that is wrong.
    """
    faults = [
        ConfigurationError(f"{path} cannot be pushed: {_FIXED[path]}", field=path)
        for path in _FIXED
        if _has(settings, path)
    ]
    queues = settings.get("queues")
    for name, parts in queues.items() if isinstance(queues, Mapping) else ():
        for part in _FIXED_OF_QUEUES.keys() & (parts if isinstance(parts, Mapping) else ()):
            path = f"queues.{json.dumps(name, ensure_ascii=False)}.{part}"
            faults.append(ConfigurationError(f"{path} cannot be pushed: {_FIXED_OF_QUEUES[part]}", field=path))
    if faults:
        _refuse(faults)
    config = BackpressureConfig.from_mapping(settings, own) if settings else own
    length = len(_text(settings))
    if length > _MAX_SETTINGS:
        raise ConfigurationError(
            f"settings have {length:,} characters: push at most {_MAX_SETTINGS:,}, for every process reads them with "
            "every poll",
            field=CONFIG,
        )
    return config


def check_pushable(settings: object, over: BackpressureConfig | None = None) -> dict[str, Any]:
    """Return settings if running processes can take them whose own configuration is `over`, or else the defaults.

    Raises:
        ConfigurationError: they cannot, see `laid_over`.
    """
    if not isinstance(settings, Mapping):
        raise ConfigurationError("a configuration is a mapping: give tables of settings", field=CONFIG)
    laid_over(settings, over or BackpressureConfig())
    return dict(settings)


def _has(settings: Mapping[str, Any], path: str) -> bool:
    section, _, name = path.partition(".")
    if not name:
        return section in settings
    inner = settings.get(section)
    return isinstance(inner, Mapping) and name in inner


def _refuse(faults: list[ConfigurationError]) -> NoReturn:
    if len(faults) == 1:
        raise faults[0]
    raise ConfigurationError("\n".join(map(str, faults)), field=faults[0].field, faults=tuple(faults))

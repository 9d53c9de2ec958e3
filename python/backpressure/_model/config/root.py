"""The whole configuration, and what single queues have of their own."""

import functools
import json
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

import attrs

from backpressure._model.arguments import validate_queue_name
from backpressure._model.budget import budget_of
from backpressure._model.config.age import AgeConfig
from backpressure._model.config.candidate import candidate_table, unfit
from backpressure._model.config.circuit import CircuitConfig
from backpressure._model.config.fields import (
    PASSWORD,
    Section,
    checked,
    converted,
    fail,
    instance,
    integer,
    is_number,
    optional,
)
from backpressure._model.config.fleet import FleetConfig
from backpressure._model.config.patterns import lineage, patterns_of
from backpressure._model.config.polling import PollingConfig
from backpressure._model.config.recovery import RecoveryStrategy
from backpressure._model.config.three_zone import BacklogThresholds, CurveConfig
from backpressure._model.errors import BackpressureError, ConfigurationError
from backpressure._model.half_built import repr_when_half_built
from backpressure._model.hidden import hides_arguments

__all__ = ["BackpressureConfig", "QueueConfig", "queue_table"]

_MODES = 'give "enforce" or "observe"'
_SHARES = "give a number from 0 to 1"
_TEXTS = "give a text"
_URLS = (
    'give the URL of a server, without a password: put one with a password into an environment variable, and give "$" '
    "and the name of that"
)
_OPTIONS = (
    'give a table of names and values, and for a secret "$" and the name of an environment variable that holds it'
)
_SECRET = re.compile(r"password|secret|token|authorization|api.?key", re.IGNORECASE)


def _is_mode(value: object) -> bool:
    return value in ("enforce", "observe")


def _is_share(value: object) -> bool:
    return is_number(value) and 0 <= value <= 1  # type: ignore[operator]  # it is a number


def _is_text(value: object) -> bool:
    return value is None or (isinstance(value, str) and bool(value.strip()))


def _is_url(value: object) -> bool:
    return value is None or (_is_text(value) and not PASSWORD.search(str(value)))


def _is_options(value: object) -> bool:
    return value is None or (isinstance(value, Mapping) and all(_is_option(name, value[name]) for name in value))


def _is_option(name: object, value: object) -> bool:
    if isinstance(value, Mapping):
        return isinstance(name, str) and _is_options(value)
    return isinstance(name, str) and (not _SECRET.search(name) or str(value).startswith("$"))


@repr_when_half_built
@attrs.frozen(kw_only=True)
class QueueConfig(Section):
    """What one queue has of its own, or all queues that a pattern matches; ``None`` means what lies below. Immutable.

    Args:
        thresholds: its windows.
        curve: its delays.
        circuit: its breaker.
        age: how long its jobs may wait; without a target the shared one does not hold for it.
        mode: ``"enforce"`` or ``"observe"``, whatever holds for other queues.
        enforce_share: the share of all processes that enforce, whatever holds for other queues.
        url: the server that holds it. `backpressure.providers.from_config` says which there are. ``"$NAME"`` stands for
            the environment variable of that name, which must hold a URL with a password.
        layout: how it is kept there: ``"rq"``, ``"celery"``, ``"list"``, ``"zset"``, ``"stream"`` and so on.
        key: what the server calls it; ``{queue}`` stands for its name, which is the default.
        group: the consumer group of a stream or topic.
        options: further arguments of the layout, or of the provider.

    Raises:
        ConfigurationError: a part is of another class, or a value is impossible.

    Example:
        >>> config = BackpressureConfig(queues={"email-queue": QueueConfig(circuit=CircuitConfig(failure_threshold=9))})
        >>> config.circuit_of("email-queue").failure_threshold, config.circuit_of("other").failure_threshold
        (9, 5)
    """

    thresholds: BacklogThresholds | None = optional(BacklogThresholds)
    curve: CurveConfig | None = optional(CurveConfig)
    circuit: CircuitConfig | None = optional(CircuitConfig)
    age: AgeConfig | None = optional(AgeConfig)
    mode: Literal["enforce", "observe"] | None = checked(None, lambda value: value is None or _is_mode(value), _MODES)
    enforce_share: float | None = checked(None, lambda value: value is None or _is_share(value), _SHARES)
    url: str | None = checked(None, _is_url, _URLS)
    layout: str | None = checked(None, _is_text, _TEXTS)
    key: str | None = checked(None, _is_text, _TEXTS)
    group: str | None = checked(None, _is_text, _TEXTS)
    options: Mapping[str, Any] | None = checked(None, _is_options, _OPTIONS, hash=False)


_NOTHING = QueueConfig()


def queue_table(kind: type[QueueConfig]) -> Any:
    """Return a field that holds a `kind` for each of some queues."""

    def convert(value: object, owner: object, field: "attrs.Attribute[Any]") -> Mapping[str, QueueConfig]:
        try:
            queues = dict(value)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise fail(owner, field.name, value, f"give a mapping of queue names to {kind.__name__}") from None
        for name, settings in queues.items():
            try:
                validate_queue_name(name)
            except BackpressureError as error:
                raise fail(owner, field.name, name, str(error)) from None
            if not isinstance(settings, kind):
                raise fail(owner, f'{field.name}."{name}"', settings, f"give a {kind.__name__}")
        return MappingProxyType(queues)

    return converted(convert, factory=dict, hash=False)


def _shed_at_fits(it: Any) -> bool | ConfigurationError:
    if wrong := it.curve.misplaced(it.thresholds.low_priority):
        return ConfigurationError(wrong, field="curve", value=it.curve.shed_at)
    return True


def _shed_at_fits_each(it: Any) -> bool | ConfigurationError:
    patterns = patterns_of(it.queues)
    for name in it.queues:
        sections = [it.queues[above] for above in lineage(it.queues, patterns, name)]
        thresholds = next((one.thresholds for one in sections if one.thresholds), it.thresholds)
        curve = next((one.curve for one in sections if one.curve), it.curve)
        if (thresholds, curve) != (it.thresholds, it.curve) and (wrong := curve.misplaced(thresholds.low_priority)):
            path = f"queues.{json.dumps(name, ensure_ascii=False)}"
            return ConfigurationError(f"{path}.{wrong}", field="queues", value=curve.shed_at)
    return True


def _drain_can_be_seen(it: Any) -> bool | ConfigurationError:
    wrong = _hides_drain(it.age, it.polling)
    return ConfigurationError(wrong, field="age", value=it.age.target) if wrong else True


def _drain_can_be_seen_of_each(it: Any) -> bool | ConfigurationError:
    for name, own in it.queues.items():
        if own.age is not None and (wrong := _hides_drain(own.age, it.polling)):
            path = f"queues.{json.dumps(name, ensure_ascii=False)}"
            return ConfigurationError(f"{path}.{wrong}", field="queues", value=own.age.target)
    return True


def _candidate_fits(it: Any) -> bool | ConfigurationError:
    if it.candidate is None:
        return True
    try:
        real = BackpressureConfig(**{field.name: getattr(it, field.name) for field in _REAL})
    except ConfigurationError:
        return True  # other rules say what is wrong with it
    try:
        faults = tuple(unfit(it.candidate))
        if not faults:
            BackpressureConfig.from_mapping(it.candidate, real)
    except ConfigurationError as error:
        faults = error.faults or (error,)
    if not faults:
        return True
    lines = "\n".join(f"candidate.{fault}" for fault in faults)
    return ConfigurationError(lines, field="candidate", value=faults[0].value)


def _candidate_is_polled(it: Any) -> bool | str:
    return it.candidate is None or it.polling.enabled or "needs polling.enabled, for it is judged once per poll"


def _fleet_is_polled(it: Any) -> bool | ConfigurationError:
    if it.fleet.name is None or it.polling.enabled:
        return True
    wrong = f"fleet.name is {it.fleet.name!r}: needs polling.enabled, for polls read what operators want"
    return ConfigurationError(wrong, field="fleet", value=it.fleet.name)


def _hides_drain(age: AgeConfig, polling: PollingConfig) -> str:
    """Return why what workers do cannot be seen as well as the target of `age` needs it, or an empty text."""
    budget = budget_of(age)
    if budget is None:
        return ""
    if not polling.enabled:
        return f"age.target is {age.target}: needs polling.enabled, for its budget is asked for in the background"
    oldest_ms = round((polling.busy_interval + polling.timeout) * 1_000, 6)
    if oldest_ms <= budget.oldest_sample_ms:
        return ""
    return (
        f"age.target is {age.target}: needs statistics of at most {budget.oldest_sample_ms / 1_000:g} s, which may be "
        f"{oldest_ms / 1_000:g} s old: lower polling.busy_interval and polling.timeout"
    )


@repr_when_half_built
@attrs.frozen(kw_only=True)
class BackpressureConfig(Section):
    """Complete configuration; every part has defaults. Immutable.

    Args:
        thresholds: bounds of the zones, in waiting jobs.
        curve: delays and shedding between them.
        circuit: breakers.
        polling: how statistics are read.
        recovery: what happens without them, and switches.
        age: how long jobs may wait, for the age law in the place of the table of `thresholds` and `curve`.
        fleet: the fleet whose operators switch this process too; by default none.
        mode: ``"observe"`` decides, counts and logs but never delays or sheds.
        enforce_share: with ``"enforce"``, the share of all processes that do so, from 0 to 1; the others observe. A
            larger one only adds processes.
        candidate: settings of a second policy, as they would be written to enforce it, of which is only counted what
            it would do: see the guide's page on a gradual start.
        max_queues: how many queues get state of their own; the rest share a fallback.
        queues: settings of single queues, since one window cannot fit all, and of patterns such as ``"mail-*"``.

    Raises:
        ConfigurationError: a value is impossible; its ``field`` is the dotted path.

    Example:
        >>> config = BackpressureConfig(polling=PollingConfig(interval="2s", timeout="1s"), max_queues=50)
        >>> config.polling.interval
        2.0
    """

    thresholds: BacklogThresholds = instance(BacklogThresholds, BacklogThresholds())
    curve: CurveConfig = instance(CurveConfig, CurveConfig())
    circuit: CircuitConfig = instance(CircuitConfig, CircuitConfig())
    polling: PollingConfig = instance(PollingConfig, PollingConfig())
    recovery: RecoveryStrategy = instance(RecoveryStrategy, RecoveryStrategy())
    age: AgeConfig = instance(AgeConfig, AgeConfig())
    fleet: FleetConfig = instance(FleetConfig, FleetConfig())
    mode: Literal["enforce", "observe"] = checked("enforce", _is_mode, _MODES)
    enforce_share: float = checked(1.0, _is_share, _SHARES)
    candidate: Mapping[str, Any] | None = candidate_table()
    max_queues: int = integer(1_000, 1)
    queues: Mapping[str, QueueConfig] = queue_table(QueueConfig)

    _rules = (
        ("curve", _shed_at_fits),
        ("queues", _shed_at_fits_each),
        ("age", _drain_can_be_seen),
        ("queues", _drain_can_be_seen_of_each),
        ("fleet", _fleet_is_polled),
        ("candidate", _candidate_is_polled),
        ("candidate", _candidate_fits),
    )

    def of(self, queue_name: str) -> QueueConfig:
        """Return what `queue_name` has of its own: by its name, then by patterns, the most specific first.

        A section lies over the most specific pattern that matches all that it is for. In a pattern ``*`` stands for any
        text, also none. Of two patterns that with more other characters is more specific, else the one given first.

        Example:
            >>> config = BackpressureConfig.from_mapping({"queues": {
            ...     "mail-*": {"mode": "observe", "layout": "rq"}, "mail-eu": {"mode": "enforce"}}})
            >>> config.of("mail-eu").mode, config.of("mail-eu").layout, config.of("mail-us").mode
            ('enforce', 'rq', 'observe')
        """
        sections = [self.queues[name] for name in lineage(self.queues, self._patterns, queue_name)]
        if len(sections) < 2:
            return sections[0] if sections else _NOTHING
        parts = [field.name for field in attrs.fields(type(sections[0]))]
        given = {name: [getattr(section, name) for section in sections] for name in parts}
        return type(sections[0])(
            **{name: next((value for value in values if value is not None), None) for name, values in given.items()}
        )

    @functools.cached_property
    def _patterns(self) -> tuple[str, ...]:
        return patterns_of(self.queues)

    def thresholds_of(self, queue_name: str) -> BacklogThresholds:
        """Return the thresholds that hold for `queue_name`."""
        return self.of(queue_name).thresholds or self.thresholds

    def curve_of(self, queue_name: str) -> CurveConfig:
        """Return the curve that holds for `queue_name`."""
        return self.of(queue_name).curve or self.curve

    def circuit_of(self, queue_name: str) -> CircuitConfig:
        """Return the breaker settings that hold for `queue_name`."""
        return self.of(queue_name).circuit or self.circuit

    def age_of(self, queue_name: str) -> AgeConfig:
        """Return how long jobs may wait in `queue_name`; with a target, the age law holds for it."""
        return self.of(queue_name).age or self.age

    def mode_of(self, queue_name: str) -> Literal["enforce", "observe"]:
        """Return whether the advice on `queue_name` is enforced or only observed."""
        return self.of(queue_name).mode or self.mode

    def enforce_share_of(self, queue_name: str) -> float:
        """Return the share of all processes that enforce the advice on `queue_name`; 0 where it is only observed."""
        if self.mode_of(queue_name) == "observe":
            return 0.0
        own = self.of(queue_name).enforce_share
        return self.enforce_share if own is None else own

    def with_candidate(self) -> "BackpressureConfig | None":
        """Return the configuration that enforces the candidate; ``None`` without one.

        Example:
            >>> config = BackpressureConfig(candidate={"curve": {"shed_permille": 500}})
            >>> config.curve.shed_permille, config.with_candidate().curve.shed_permille
            (800, 500)
        """
        if self.candidate is None:
            return None
        return BackpressureConfig.from_mapping(self.candidate, attrs.evolve(self, candidate=None))

    @classmethod
    @hides_arguments
    def from_mapping(cls, mapping: Mapping[str, Any], base: "BackpressureConfig | None" = None) -> Self:
        """Return `base`, or else the defaults, with nested tables of settings laid over it.

        What a queue sets goes over its own setting in `base` if it has that part, else over the shared one as loaded.

        Raises:
            ConfigurationError: settings are unknown or impossible; its ``faults`` and its message hold all of them.

        Example:
            >>> config = BackpressureConfig.from_mapping({"polling": {"interval": "2s", "timeout": "1s"}})
            >>> config.polling.timeout
            1.0
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_mapping(cls, mapping, base)

    @classmethod
    @hides_arguments
    def from_django(cls, settings: Mapping[str, Any], base: "BackpressureConfig | None" = None) -> Self:
        """Return `base`, or else the defaults, with a table from Django's settings laid over it.

        Names of settings are upper-case, as Django's own are, or lower-case; names of queues are taken as they are.
        Django is not imported.

        Raises:
            ConfigurationError: as from `from_mapping`, or a setting is given in both cases.

        Example:
            >>> BACKPRESSURE = {"MODE": "observe", "QUEUES": {"Mail": {"CIRCUIT": {"FAILURE_THRESHOLD": 9}}}}
            >>> config = BackpressureConfig.from_django(BACKPRESSURE)  # settings.BACKPRESSURE
            >>> config.mode, config.circuit_of("Mail").failure_threshold
            ('observe', 9)
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_django(cls, settings, base)

    @classmethod
    @hides_arguments
    def from_file(cls, path: str | os.PathLike[str], base: "BackpressureConfig | None" = None) -> Self:
        """Return `base`, or else the defaults, with a UTF-8 ``.toml`` or ``.json`` file of at most 1 MiB laid over it.

        Raises:
            ConfigurationError: as from `from_mapping`, or the file cannot be read.
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_file(cls, path, base)

    @classmethod
    @hides_arguments
    def from_env(cls, environ: Mapping[str, str] | None = None, base: "BackpressureConfig | None" = None) -> Self:
        """Return `base`, or else the defaults, with variables such as ``BACKPRESSURE_POLLING__INTERVAL=5s`` over it.

        `environ` defaults to that of the process. Two underscores go one level down; case is ignored. Queues are one
        JSON object in ``BACKPRESSURE_QUEUES``. ``BACKPRESSURE_ENGINE``, ``BACKPRESSURE_CONSOLE_TOKEN`` and
        ``BACKPRESSURE_TEST_*`` are no settings.

        Raises:
            ConfigurationError: as from `from_mapping`.

        Example:
            >>> config = BackpressureConfig.from_env({"BACKPRESSURE_RECOVERY__FALLBACK_MODE": "permissive"})
            >>> str(config.recovery.fallback_mode)
            'permissive'
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.from_env(cls, environ, base)

    def evolve(self, changes: Mapping[str, Any]) -> Self:
        """Return a changed copy.

        Paths are dotted, queue names quoted: ``queues."email-queue".curve.red_max_delay``. Values may be tables or
        objects of this module, too; of two changes to one setting the later counts.

        Raises:
            ConfigurationError: as from `from_mapping`.

        Example:
            >>> config = BackpressureConfig().evolve({"thresholds.low_priority.red_max": 2_000})
            >>> config.thresholds.low_priority
            BacklogWindow(green_max=100, yellow_max=500, red_max=2000)
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.evolve(self, changes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything ready for JSON and `from_mapping`: seconds (long ones as text), scales as text.

        All but ``excluded_exceptions`` and ``is_failure``, which only code can hold.
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        return loading.to_dict(self)

    def validate(self) -> None:
        """Check every value again, as building the configuration did.

        Raises:
            ConfigurationError: as from `from_mapping`.
        """
        from backpressure._model.config import loading  # noqa: PLC0415 - cattrs is slow to load

        loading.validate(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy does not pickle; the plain dict it shows does.
        values = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        return (_rebuild, (type(self), values | {"queues": dict(self.queues)}))


_REAL = tuple(field for field in attrs.fields(BackpressureConfig) if field.name != "candidate")


def _rebuild(cls: type[BackpressureConfig], values: dict[str, Any]) -> BackpressureConfig:
    return cls(**values)

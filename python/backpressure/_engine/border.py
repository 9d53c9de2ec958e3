"""The border between engines and controllers: what each may ask of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from backpressure._age.lease import AnyLease
    from backpressure._age.tenants import AnyTenants
    from backpressure._engine.laws.age import Judged
    from backpressure._engine.settings import CircuitSettings, EngineSettings
    from backpressure._engine.totals import Totals
    from backpressure._model.arguments import MaxWait
    from backpressure._model.decision import Answer, ThrottleDecision
    from backpressure._model.tenant import AnyTenant
    from backpressure._model.vocabulary import Priority, Reason, Zone

__all__ = ["Breaker", "Engine", "EngineModule", "Gate", "Host", "Ticket"]

T = TypeVar("T")


class Ticket(Protocol):
    """Permission to do one piece of work; comes back with its result."""

    @property
    def generation(self) -> int:
        """Generation of the breaker that issued it."""
        ...

    @property
    def probe(self) -> bool:
        """Whether it holds a half-open circuit's lease."""
        ...

    @property
    def issued_ns(self) -> int:
        """Instant at which it was given out."""
        ...


class Breaker(Protocol):
    """One queue's circuit breaker; instants are monotonic nanoseconds, states those of `CircuitState`."""

    @property
    def word(self) -> int:
        """The 64-bit word that transitions read."""
        ...

    @property
    def last_failure(self) -> str | None:
        """What failed when the last failure counted: the class of its error, where that is known."""
        ...

    @property
    def last_failure_ns(self) -> int | None:
        """Instant of the last failure that counted."""
        ...

    @property
    def last_probe_ns(self) -> int | None:
        """Instant of the last probe."""
        ...

    def state(self) -> int: ...
    def retry_at_ns(self, word: int) -> int | None: ...
    def try_acquire(self) -> Ticket | None: ...
    def record(
        self, ok: bool | None, ticket: Ticket | None = None, began_ns: int | None = None, failure: str | None = None
    ) -> None: ...
    def hasten(self) -> None: ...
    def force_open(self, until_ns: int | None = None) -> None: ...
    def force_close(self) -> None: ...
    def reset(self) -> None: ...


class Gate(Protocol):
    """An engine's calls for one priority and queue. Made without reading or creating anything."""

    def suggest(self) -> ThrottleDecision:
        """See `Engine.suggest_throttle`."""
        ...

    def run(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """See `Engine.run`; all keyword arguments are for the work."""
        ...

    def suggest_for(self, tenant: AnyTenant) -> ThrottleDecision:
        """As `suggest`, on behalf of a tenant."""
        ...

    def run_for(self, tenant: AnyTenant, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """As `run`, on behalf of a tenant."""
        ...


class Host(Protocol):
    """What an engine asks of the controller it belongs to. Everything here is off the hot path."""

    #: Reads the injected clock; ``None`` makes the engine read the system's itself.
    now_ns: Callable[[], int] | None

    def answer(
        self,
        priority: Priority,
        queue_name: str,
        delay_ns: int,
        shed: bool,
        reason: Reason,
        backlog: int | None,
        zone: Zone | None,
        retry_at_ns: int | None,
    ) -> Answer:
        """Build the public value of an answer, of which the engine makes decisions. Its time is now.

        Args:
            delay_ns: nanoseconds to wait; where the job is shed by load, those that it would have waited.
            shed: whether the job is refused.
            backlog, zone: waiting jobs of the sample that it was made from, and their zone; ``None`` without a sample.
            retry_at_ns: instant of the next probe of a circuit that refuses; ``None`` where that is not known.
        """
        ...

    def peeked(
        self,
        priority: Priority,
        queue_name: str,
        delay_ns: int,
        shed: bool,
        reason: Reason,
        backlog: int | None,
        zone: Zone | None,
        retry_at_ns: int | None,
    ) -> Answer:
        """As `answer`, for a caller that only looks: nothing is noted of it."""
        ...

    def outlined(
        self, zone: Zone | None, delay_ns: int, shed: bool, reason: Reason, probe_ns: int | None
    ) -> dict[str, Any]:
        """Put what was seen into words, without a value of it.

        `probe_ns` is the time to the next probe of a circuit that refuses; for the rest see `answer`.
        """
        ...

    def observed(self, answer: Answer) -> Answer:
        """Build what observe mode makes of an answer: a go that carries it."""
        ...

    def not_running(self) -> Exception:
        """Return the error for a call outside of start() and stop()."""
        ...

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> T:
        """Run a job that may have to wait: by `Engine.plan`, `Engine.admit` and `Engine.record`."""
        ...

    def suggest_for(self, priority: Priority | str, queue_name: str, tenant: AnyTenant) -> ThrottleDecision:
        """Decide and admit on behalf of a tenant, whose job nothing lies ready for: by `Engine.decide_for`."""
        ...

    def run_within(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run`, with every keyword argument for the work."""
        ...

    def run_for(
        self,
        priority: Priority | str,
        queue_name: str,
        max_wait: MaxWait,
        patient: bool,
        tenant: AnyTenant,
        work: Callable[..., T],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> T:
        """As `run_within`, on behalf of a tenant."""
        ...

    def is_plain(self, kind: type) -> bool:
        """Tell whether a value of this type is an outcome; if it is none, it is always told by `report_success`.

        Asked once about a type, more or less: the answer is remembered.
        """
        ...

    def report_success(self, decision: ThrottleDecision, value: object) -> None:
        """Take what the work of a job returned that the engine ran itself; raises where that only promises."""
        ...

    def report_error(self, decision: ThrottleDecision, error: BaseException, began_ns: int) -> None:
        """Take what the work of a job raised that the engine ran itself, having begun at `began_ns` or before."""
        ...

    def read(self, queue_name: str, wait: bool) -> Reason | None:
        """Read a queue on the caller's path.

        Either the engine is given the sample (or `read_failed`) before this returns ``None``, or this call is to be
        answered with the returned reason. With ``wait=False`` a caller that finds a read under way does not wait.
        """
        ...

    def check_poller(self) -> bool:
        """Look after the poller: samples have not been renewed in time.

        ``True`` asks the caller to read its queue first, as at first sight: in a forked child, and after the process
        was suspended, nobody can have read.
        """
        ...

    def hurry(self, queue_name: str) -> None:
        """More jobs were let in since a queue's sample than its advice is good for: it is to be read soon."""
        ...

    def judge(self, queue_name: str, priority: Priority) -> Judged:
        """Ask the budget of a queue whose age is held for one job. Its answer counts as acted upon.

        It may raise whatever makes the caller wait outside of the engine and ask again.
        """
        ...

    def foresee(self, queue_name: str, priority: Priority) -> Judged:
        """Tell what `judge` would say of a caller that does not wait, without any effect."""
        ...

    def circuit_changed(self, queue_name: str, old: int, new: int) -> None:
        """A breaker changed its state, or was forced or released; its words before and after."""
        ...

    def zone_changed(self, queue_name: str, priority: Priority, old: Zone, new: Zone) -> None:
        """A queue's backlog lies in another zone of a priority's window; before the first look it was green."""
        ...

    def override_ended(self) -> None:
        """The manual override's time is up. Noticed by the first decision that follows."""
        ...

    def evicted(self, queue_name: str) -> None:
        """A queue lost its state to make room."""
        ...


class Engine(Protocol):
    """Decides. Thread-safe; no call but `Host.read` waits for anything."""

    @property
    def origin_ns(self) -> int:
        """Where its milliseconds begin: its first clock reading."""
        ...

    def suggest_throttle(
        self, priority: Priority | str, queue_name: str, *, tenant: AnyTenant | None = None
    ) -> ThrottleDecision:
        """Decide and admit: the whole decision."""
        ...

    def peek(self, priority: Priority | str, queue_name: str) -> ThrottleDecision:
        """Tell what would be decided now, without a ticket; nothing is taken, counted, read, kept or told.

        Where a read would come first, what it would bring is not known: a cold start, or what an old sample says. So it
        is of a queue whose age is held and that has no state yet: a cold start.
        """
        ...

    def outlook(self, queue_name: str) -> tuple[dict[str, Any], ...]:
        """Return what `peek` would say for each priority, from low to high, as `Host.outlined` puts it.

        In observe mode it is what enforcing would say. The name is one of `queue_names`, or was.
        """
        ...

    def plan(self, priority: Priority | str, queue_name: str, impatient: bool = False) -> ThrottleDecision:
        """Decide; where a delay is advised, neither admit nor count: `admit` follows after the sleep.

        An `impatient` caller has one job, and waits neither for an answer of a budget nor for its turn: so the refusal
        of a lease that lies ready is for it. Who calls `suggest_throttle` is impatient.
        """
        ...

    def ready_for(
        self, priority: Priority | str, queue_name: str, tenant: AnyTenant, *, admit: bool, impatient: bool
    ) -> ThrottleDecision | None:
        """Return what lies ready for the job of a tenant, and count it; ``None``: it is to be decided.

        Where it is a lease's, the tenant's part takes the place of the share. `admit` as for `suggest_throttle`, whose
        caller is admitted, and `plan`, whose is not; `impatient` as for `plan`.
        """
        ...

    def decide_for(self, priority: Priority | str, queue_name: str, admit: bool, spared: bool) -> ThrottleDecision:
        """Decide about the job of a tenant, though something may lie ready.

        Who is `spared` waits where the law of zones would shed.
        """
        ...

    def run(
        self,
        priority: Priority | str,
        queue_name: str,
        work: Callable[..., T],
        /,
        *args: Any,
        max_wait: MaxWait = None,
        patient: bool = False,
        tenant: AnyTenant | None = None,
        **kwargs: Any,
    ) -> T:
        """Run a job: at once where a go lies ready, else as `Host.run` does."""
        ...

    def admit(self, planned: ThrottleDecision) -> ThrottleDecision:
        """Ask the breaker again for a planned decision, right before its work; one that waited is counted here.

        A go that was admitted when it was planned stays as it is while its circuit is closed or its lease runs.
        """
        ...

    def refuse_late(self, planned: ThrottleDecision) -> None:
        """Count a planned decision that is refused, for its caller would not wait so long."""
        ...

    def record(
        self, decision: ThrottleDecision, ok: bool | None, began_ns: int | None = None, failure: str | None = None
    ) -> None:
        """Feed the breaker with the outcome of a decided job; ``None`` says nothing, and gives a probe's lease back.

        `began_ns` is when the attempt began, by default when its decision was made; `failure` the error's class.
        """
        ...

    def record_queue(self, queue_name: str, ok: bool, failure: str | None = None) -> None:
        """Feed the breaker with an outcome that belongs to no decision."""
        ...

    def hasten(self, queue_name: str) -> None:
        """Let the next admission of the queue's open circuit be its first probe; does nothing if it is forced."""
        ...

    def put_sample(
        self,
        queue_name: str,
        backlog: int,
        as_of_ns: int,
        oldest_age_ns: int | None = None,
        memory_permille: int | None = None,
    ) -> bool:
        """Take a sample; ``False`` where the queue is unknown and there is no room for it.

        `oldest_age_ns` is how long the oldest job had waited at `as_of_ns`, and `memory_permille` are the thousandths
        of its limit of memory that the queue's server used; ``None`` where the queue cannot tell.
        """
        ...

    def read_failed(self, queue_name: str) -> None:
        """A read on a caller's path failed: answer with the fallback until the next poll."""
        ...

    def forget_samples(self) -> None:
        """Drop all samples: they are another process's, and every queue is to be read anew."""
        ...

    def configure(self, settings: EngineSettings) -> None: ...
    def set_running(self, running: bool) -> None: ...
    def set_override(self, enabled: bool, until_ns: int | None = None) -> None: ...
    def set_emergency(self, enabled: bool, until_ns: int | None = None) -> None: ...
    def override(self) -> bool: ...
    def emergency(self) -> bool: ...
    def now_ns(self) -> int: ...
    def breaker(self, queue_name: str, create: bool) -> Breaker | None: ...
    def queue_names(self) -> list[str]: ...
    def busy_queues(self) -> list[str]:
        """Return the queues whose samples lie outside of green for a priority that is asked for, but idle ones."""
        ...

    def cache_size(self) -> int: ...
    def sample(self, queue_name: str) -> tuple[int, int, int | None, int, int | None] | None:
        """Return a queue's last sample: backlog, the instant at which it was true, and the oldest job's age then.

        How many jobs were let in since, by what was decided on it; and the thousandths of its limit of memory that the
        queue's server used then.
        """
        ...

    def totals(self) -> dict[tuple[str, int], Totals]: ...


class EngineModule(Protocol):
    """What the pure engine and `_native` both export."""

    Engine: Callable[[EngineSettings, Host], Engine]
    #: Called with the part of a job to begin at, in millionths, and a lock, which the native one does not need.
    Lease: Callable[..., AnyLease]
    Tenants: Callable[..., AnyTenants]
    Breaker: Callable[[CircuitSettings, Callable[[], int] | None], Breaker]
    #: Called with an engine, its host, and priority, queue name, ``max_wait`` and ``patient`` of the jobs.
    Gate: Callable[..., Gate]

"""Jobs of tenants: every engine told the same decides the same, by a lease that lies ready or by its host.

Counts and all that can be seen of leases and buckets must agree too.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from backpressure import BackpressureConfig, Priority, Reason
from backpressure._age.protocol import MILLION, Terms
from backpressure._engine.settings import EngineSettings
from engine.parity.host import FakeHost, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backpressure._engine.border import EngineModule

ORIGIN = 5_000_000_123
SECOND = 1_000_000_000
HELD = EngineSettings.of(
    BackpressureConfig().evolve(
        {"queues.mail.age.target": "2s", "polling.busy_interval": "500ms", "polling.timeout": "500ms"}
    )
)
#: Three that ask, one of a class, and what is no tenant.
TENANTS: list[Any] = ["acme", "bolt", ("acme", "gold"), "ä" * 127, "", 7, "x" * 256]

priorities = st.sampled_from(["low", "low", "low", "medium", Priority.HIGH])
queues = st.sampled_from(["mail", "mail", "table"])
tenants = st.sampled_from([*TENANTS[:3] * 3, *TENANTS, None])
shares = st.sampled_from([0, 100_000, 333_333, 900_000, MILLION, MILLION])


class Tenants(RuleBasedStateMachine):
    """Class attributes are set by the test that runs it."""

    modules: Mapping[str, EngineModule]
    happened: Counter[str]

    @initialize()
    def begin(self) -> None:
        self.now_ns = ORIGIN
        self.hosts, self.gates = [], []
        for module in self.modules.values():
            host = FakeHost(lambda: self.now_ns, module.Lease)
            host.engine = module.Engine(HELD, host)
            host.engine.set_running(True)
            self.hosts.append(host)
            self.gates.append(
                {queue: module.Gate(host.engine, host, Priority.LOW, queue, None, False) for queue in ("mail", "table")}
            )

    def all(self, call: Callable[[Any, Any, Any], Any]) -> Any:
        def attempt(host: FakeHost, gates: Any) -> Any:
            try:
                return call(host.engine, host, gates)
            except Exception as error:  # noqa: BLE001 - errors are answers here
                return type(error), str(error)

        answers = [attempt(host, gates) for host, gates in zip(self.hosts, self.gates, strict=True)]
        assert all(plain(answer) == plain(answers[0]) for answer in answers), answers
        for host in self.hosts:
            assert (host.told, host.built) == (self.hosts[0].told, self.hosts[0].built)
        asked = {what[0] for what in self.hosts[0].told}
        for host in self.hosts:
            host.forget()
        self.happened["asked" if asked & {"judge", "suggest_for"} else "ready"] += 1
        return answers[0]

    @rule(priority=priorities, queue=queues, tenant=tenants, times=st.integers(1, 6))
    def suggest(self, priority: Any, queue: str, tenant: Any, times: int) -> None:
        for _ in range(times):
            decision = self.all(lambda engine, *_: engine.suggest_throttle(priority, queue, tenant=tenant))
            self.happened[getattr(decision, "reason", "error")] += 1

    @rule(queue=queues, tenant=tenants, times=st.integers(1, 6))
    def by_a_gate(self, queue: str, tenant: Any, times: int) -> None:
        for turn in range(times):
            if turn % 2 and tenant is not None:
                self.all(lambda _, __, gates: gates[queue].run_for(tenant, str.upper, "a"))
            else:
                self.all(lambda _, __, gates: gates[queue].suggest_for(tenant))

    @rule(priority=priorities, queue=queues, tenant=tenants)
    def run(self, priority: Any, queue: str, tenant: Any) -> None:
        self.all(lambda engine, *_: engine.run(priority, queue, "{}{b}".format, "a", tenant=tenant, b="b"))
        self.all(lambda engine, *_: engine.run(priority, queue, str.upper, "a", tenant=tenant))

    @rule(priority=priorities, queue=queues, tenant=tenants, admit=st.booleans(), impatient=st.booleans())
    def ready_for(self, priority: Any, queue: str, tenant: Any, admit: bool, impatient: bool) -> None:
        self.all(lambda engine, *_: engine.ready_for(priority, queue, tenant, admit=admit, impatient=impatient))

    @rule(priority=priorities, share=shares, cap=st.sampled_from([0, 3, 50, 50]), jobs=st.integers(0, 3))
    def renew(self, priority: Any, share: int, cap: int, jobs: int) -> None:
        terms = Terms(share, cap, MILLION, jobs * MILLION, 1, 0, 0)
        member = Priority.HIGH if priority is Priority.HIGH else Priority[priority.upper()]
        for host in self.hosts:
            assert host.budget is not None
            host.budget.renew("mail", member, terms, SECOND)
        self.suggest(priority, "mail", "acme", 2)  # what is told next may lie ready

    @rule(backlog=st.sampled_from([0, 300, 950, 5_000]), queue=queues)
    def put_sample(self, backlog: int, queue: str) -> None:
        self.all(lambda engine, *_: engine.put_sample(queue, backlog, self.now_ns))

    @rule(spares=st.booleans())
    def shed_at_the_table(self, spares: bool) -> None:
        for host in self.hosts:
            host.spares = spares
        self.put_sample(950, "table")
        self.suggest("low", "table", "acme", 2)

    @rule(elapsed=st.sampled_from([1, SECOND // 5, SECOND]))
    def wait(self, elapsed: int) -> None:
        self.now_ns += elapsed

    @invariant()
    def nobody_can_tell_them_apart(self) -> None:
        totals = [host.engine.totals() for host in self.hosts]
        assert all(total == totals[0] for total in totals)
        seen = [self._seen(host) for host in self.hosts]
        assert all(one == seen[0] for one in seen), seen

    def _seen(self, host: FakeHost) -> object:
        assert host.budget is not None
        lease = host.budget.leases.get(("mail", Priority.LOW))
        buckets = None if lease is None else lease.tenants()
        if lease is None or buckets is None:
            return None
        places = [buckets.place(tenant) for tenant in TENANTS]
        return (
            *(lease.used, lease.cap_jobs, lease.renewal, lease.take_counts()),
            *((place, buckets.ask(place), buckets.share_ppm(place)) for place in places if place is not None),
        )


def test_engines_agree(engine_modules: Mapping[str, EngineModule]) -> None:
    happened: Counter[str] = Counter()
    machine = type("Machine", (Tenants,), {"modules": engine_modules, "happened": happened})
    run_state_machine_as_test(machine, settings=settings(max_examples=250, stateful_step_count=50, deadline=None))
    # A life in which little happens proves little.
    assert min(happened["asked"], happened["ready"]) >= 1_000, happened
    wanted = {Reason.AGE_OPEN, Reason.AGE_SHARE, Reason.AGE_SHED, Reason.BACKLOG_RED, Reason.BACKLOG_RED_SHED}
    assert {reason for reason in wanted if happened[reason] < 10} == set(), happened

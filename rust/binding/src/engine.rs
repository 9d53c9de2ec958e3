//! The engine's Python face, and the short way of an answer that lies ready.

use backpressure_core::breaker::Outcome;
use backpressure_core::call::Admission;
use backpressure_core::engine::{self as core, Plan, Wanted, nanoseconds};
use backpressure_core::host::{Host, Issue};
use backpressure_core::lease::Tenants;
use backpressure_core::mode::NEVER;
use backpressure_core::queue::Kind;
use backpressure_core::table::in_order;
use backpressure_core::vocabulary::{OTHER_QUEUES, Priority};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::bare::nameable;
use crate::border::Border;
use crate::breaker::{Breaker, Ticket};
use crate::clock::{Clock, Ns};
use crate::crossing;
use crate::decision::{Decisions, Parts, answer_of, parts, ticket_of};
use crate::queue::{Queue, Ready};
use crate::settings::engine_settings;
use crate::shared::Shared;
use crate::table::Table;
use crate::tenant::Tenant;
use crate::uncopied::refused;
use crate::vocabulary::Vocabulary;

/// A sample as Python sees it: backlog, instant, oldest age, and the jobs let in since.
type Seen = (i64, i64, Option<i64>, u64, Option<u64>);

/// What was handed out of what is not for all.
pub enum HandedOut<'py> {
    /// A delay: what the decision is to be made of, and what is its own.
    Delay(Bound<'py, PyAny>, Issue),
    /// The decision of those whom a lease refuses.
    Refusal(Bound<'py, PyAny>),
}

/// How a caller asks.
#[derive(Clone, Copy)]
pub struct Asks {
    /// Whether one that is to wait is admitted at once.
    pub admit: bool,
    /// Whether it waits neither for an answer nor for its turn, so that a refusal that lies ready is its own.
    pub impatient: bool,
}

impl Asks {
    /// For the whole decision.
    pub const SUGGESTS: Self = Self { admit: true, impatient: true };
}

/// Decides. Thread-safe; no call but the host's `read` waits for anything.
#[pyclass(frozen, name = "Engine", module = "backpressure._native")]
pub struct Engine {
    pub clock: Clock,
    core: core::Engine,
    pub shared: Py<Shared>,
    table: Table,
    // See `Border::changing`.
    changing: Py<PyAny>,
    pub vocabulary: &'static Vocabulary,
    decisions: &'static Decisions,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, settings: &Bound<'_, PyAny>, host: Bound<'_, PyAny>) -> PyResult<Self> {
        let vocabulary = Vocabulary::get(py)?;
        let clock = Clock::of(&host.getattr(intern!(py, "now_ns"))?)?;
        let origin_ns = clock.now_ns(py)?;
        let core = core::Engine::new(engine_settings(settings, vocabulary)?, origin_ns);
        let shared = Py::new(py, Shared { clock: clock.share(py), host: host.unbind() })?;
        let changing = PyList::empty(py).into_any().unbind();
        let decisions = Decisions::get(py)?;
        Ok(Self { clock, core, shared, table: Table::new(py), changing, vocabulary, decisions })
    }

    /// Where its milliseconds begin: its first clock reading.
    #[getter]
    pub fn origin_ns(&self) -> i64 {
        self.core.room.origin_ns()
    }

    /// Decide and admit: the whole decision.
    #[pyo3(signature = (priority, queue_name, *, tenant=None))]
    fn suggest_throttle(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        tenant: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        match tenant {
            None => self.ready_or_decide(priority, queue_name, Asks::SUGGESTS),
            Some(tenant) => self.suggest_for(priority, queue_name, tenant),
        }
    }

    /// Return what lies ready for the job of a tenant, and count it; ``None``: it is to be decided.
    #[pyo3(name = "ready_for", signature = (priority, queue_name, tenant, *, admit, impatient))]
    fn py_ready_for<'py>(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'py, PyAny>,
        tenant: &Bound<'_, PyAny>,
        admit: bool,
        impatient: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.ready_for(priority, queue_name, tenant, Asks { admit, impatient })
    }

    /// Decide about the job of a tenant, though something may lie ready. Who is spared waits where the table would shed.
    fn decide_for(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        admit: bool,
        spared: bool,
    ) -> PyResult<Py<PyAny>> {
        self.decide(priority, queue_name, admit, spared)
    }

    /// Tell what would be decided now, without a ticket; nothing is taken, counted, read, kept or told.
    fn peek(&self, priority: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let border = self.border(priority.py());
        self.core.peek(&border, self.vocabulary.priority(priority)?, || self.vocabulary.queue_name(queue_name))
    }

    /// Return what `peek` would say for each priority, as the host puts it; in observe mode, were it enforced.
    fn outlook<'py>(&self, queue_name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyTuple>> {
        let py = queue_name.py();
        let border = Border { outlines: true, ..self.border(py) };
        let seen = Priority::ALL.map(|priority| self.core.peek(&border, priority, || Ok(queue_name.clone())));
        PyTuple::new(py, seen.into_iter().collect::<PyResult<Vec<_>>>()?)
    }

    /// Decide; where a delay is advised, neither admit nor count: `admit` follows after the sleep.
    #[pyo3(signature = (priority, queue_name, impatient=false))]
    fn plan(&self, priority: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>, impatient: bool) -> PyResult<Py<PyAny>> {
        self.ready_or_decide(priority, queue_name, Asks { admit: false, impatient })
    }

    /// Ask the breaker again for a planned decision, right before its work; one that waited is counted here.
    fn admit(&self, planned: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = planned.py();
        match self.with_plan(planned, |border, plan| self.core.admit(border, plan))? {
            Admission::Instead(decision) => Ok(decision),
            Admission::AsItIs => Ok(planned.clone().unbind()),
            Admission::AsPlanned(ticket) => {
                let ticket = ticket.map(Ticket).into_pyobject(py)?;
                self.decisions.make(Parts { ticket, ..parts(planned)? }).map(Bound::unbind)
            }
        }
    }

    /// Count a planned decision that is refused because its caller would not wait so long.
    fn refuse_late(&self, planned: &Bound<'_, PyAny>) -> PyResult<()> {
        self.with_plan(planned, |border, plan| self.core.refuse_late(border, plan))
    }

    /// Feed the breaker with the outcome of a decided job; ``None`` says nothing, and gives a probe's lease back.
    #[pyo3(signature = (decision, ok, began_ns=None, failure=None))]
    fn record(
        &self,
        decision: &Bound<'_, PyAny>,
        ok: Option<bool>,
        began_ns: Option<Ns>,
        failure: Option<Py<PyString>>,
    ) -> PyResult<()> {
        let py = decision.py();
        let name = answer_of(decision)?.getattr(intern!(py, "queue_name"))?;
        let Some(queue) = self.queue(&name)? else { return Ok(()) };
        if ok == Some(true) && !queue.get().core.breaker.changes_by(Outcome::Success) {
            return Ok(()); // saves the look at the ticket
        }
        let ticket = ticket_of(decision)?;
        if ticket.is_none() {
            return Ok(());
        }
        self.breaker_of(queue).record(py, ok, Some(ticket.cast::<Ticket>()?), began_ns, failure)
    }

    /// Feed the breaker with an outcome that belongs to no decision.
    #[pyo3(signature = (queue_name, ok, failure=None))]
    fn record_queue(&self, queue_name: &Bound<'_, PyAny>, ok: bool, failure: Option<Py<PyString>>) -> PyResult<()> {
        match self.breaker(queue_name, true)? {
            Some(breaker) => breaker.record(queue_name.py(), Some(ok), None, None, failure),
            None => Ok(()),
        }
    }

    /// Let the next admission of the queue's open circuit be its first probe; does nothing if it is forced.
    fn hasten(&self, queue_name: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(queue) = self.queue(queue_name)? {
            queue.get().core.breaker.hasten();
        }
        Ok(())
    }

    /// Take a sample; ``False`` where the queue is unknown and there is no room for it.
    #[pyo3(signature = (queue_name, backlog, as_of_ns, oldest_age_ns=None, memory_permille=None))]
    fn put_sample(
        &self,
        queue_name: &Bound<'_, PyString>,
        backlog: i64,
        as_of_ns: Ns,
        oldest_age_ns: Option<Ns>,
        memory_permille: Option<u64>,
    ) -> PyResult<bool> {
        let (border, oldest_age_ns) = (self.border(queue_name.py()), oldest_age_ns.map(|Ns(age_ns)| age_ns));
        self.core.put_sample(&border, queue_name, backlog, as_of_ns.0, oldest_age_ns, memory_permille)
    }

    /// A read on a caller's path failed: answer with the fallback until the next poll.
    fn read_failed(&self, queue_name: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(queue) = self.queue(queue_name)? {
            queue.get().core.read_failed(self.clock.now_ns(queue_name.py())?);
        }
        Ok(())
    }

    /// Drop all samples: they are another process's, and every queue is to be read anew.
    fn forget_samples(&self, py: Python<'_>) {
        self.core.forget_samples(&self.border(py));
    }

    /// Return a queue's breaker, made if need be where `create` is true and there is room.
    fn breaker(&self, queue_name: &Bound<'_, PyAny>, create: bool) -> PyResult<Option<Breaker>> {
        let queue = match self.queue(queue_name)? {
            None if create => {
                let border = self.border(queue_name.py());
                self.core.track(&border, &self.vocabulary.queue_name(queue_name)?, border.now_ns()?, true)?
            }
            queue => queue,
        };
        Ok(queue.map(|queue| self.breaker_of(queue)))
    }

    /// Return the names of the queues that have state, in the order in which they got it.
    fn queue_names(&self, py: Python<'_>) -> Vec<Py<PyString>> {
        in_order(&self.border(py)).iter().map(|queue| queue.get().name.clone_ref(py)).collect()
    }

    /// Return the queues whose samples lie outside of green for a priority that is asked for, but idle ones.
    fn busy_queues(&self, py: Python<'_>) -> PyResult<Vec<Py<PyString>>> {
        let busy = self.core.busy(&self.border(py))?;
        Ok(busy.iter().map(|queue| queue.get().name.clone_ref(py)).collect())
    }

    /// Return how many computed answers are kept.
    fn cache_size(&self, py: Python<'_>) -> usize {
        self.core.cache_size(&self.border(py))
    }

    /// Return a queue's last sample: backlog, the instant at which it was true, the oldest job's age then, and how many
    /// jobs were let in since by what was decided on it; and the thousandths of its memory that the server used.
    fn sample(&self, queue_name: &Bound<'_, PyAny>) -> PyResult<Option<Seen>> {
        Ok(self.queue(queue_name)?.and_then(|queue| {
            let core = &queue.get().core;
            let sample = core.sample()?;
            Some((
                sample.backlog,
                sample.as_of_ns,
                sample.oldest_age_ns,
                core.let_in(sample.number).0,
                sample.memory_permille,
            ))
        }))
    }

    /// Return all counts by (queue, priority), those without a queue of their own under ``__other__``.
    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (totals, other) = (PyDict::new(py), PyString::intern(py, OTHER_QUEUES));
        for (queue, priority, counts) in self.core.room.totals(&self.border(py)) {
            let name = queue.as_ref().map_or(&other, |queue| queue.get().name.bind(py));
            totals.set_item((name, priority.index()), self.vocabulary.totals(py, &counts)?)?;
        }
        Ok(totals)
    }

    /// Swap the configuration.
    fn configure(&self, settings: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.switches.configure(&engine_settings(settings, self.vocabulary)?);
        Ok(())
    }

    /// Start or stop answering.
    fn set_running(&self, running: bool) {
        self.core.switches.set_running(running);
    }

    /// Turn the manual override on, until an instant or until it is turned off, or off.
    #[pyo3(signature = (enabled, until_ns=None))]
    fn set_override(&self, enabled: bool, until_ns: Option<Ns>) {
        self.core.switches.set_override(enabled.then(|| until_ns.map_or(NEVER, |Ns(until_ns)| until_ns)));
    }

    /// Turn emergency mode on, until an instant or until it is turned off, or off.
    #[pyo3(signature = (enabled, until_ns=None))]
    fn set_emergency(&self, enabled: bool, until_ns: Option<Ns>) {
        self.core.switches.set_emergency(enabled.then(|| until_ns.map_or(NEVER, |Ns(until_ns)| until_ns)));
    }

    /// Tell whether the override is on.
    #[pyo3(name = "override")]
    fn is_overridden(&self, py: Python<'_>) -> PyResult<bool> {
        self.core.switches.is_overridden(|| self.clock.now_ns(py))
    }

    /// Tell whether emergency mode is on.
    #[pyo3(name = "emergency")]
    fn is_emergency(&self, py: Python<'_>) -> PyResult<bool> {
        self.core.switches.is_emergency(|| self.clock.now_ns(py))
    }

    /// Read the clock: monotonic nanoseconds.
    fn now_ns(&self, py: Python<'_>) -> PyResult<i64> {
        self.clock.now_ns(py)
    }

    // Who pickles a controller's `run` gets here.
    fn __reduce__(_: &Bound<'_, Self>) -> PyResult<()> {
        let instead =
            "make a controller in the process that uses it, from the same BackpressureConfig, which does pickle";
        Err(refused("Engine", instead))
    }

    // The host refers back to its engine. Python's classes can be cleared, so the cycle ends there: no __clear__ here.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.clock.traverse(&visit)?;
        visit.call(&self.shared)?;
        self.table.traverse(&visit)
    }
}

impl Engine {
    /// Decides for whatever arguments.
    #[inline]
    pub fn ready_or_decide(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        asks: Asks,
    ) -> PyResult<Py<PyAny>> {
        if let Some(decision) = self.ready(priority, queue_name)? {
            return Ok(decision);
        }
        match self.own(priority, queue_name, asks)? {
            Some(decision) => Ok(decision),
            None => self.decide(priority, queue_name, asks.admit, false),
        }
    }

    /// As `ready_or_decide`, for the job of a tenant: the host decides.
    pub fn suggest_for(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        tenant: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        if let Some(decision) = self.ready_for(priority, queue_name, tenant, Asks::SUGGESTS)? {
            return Ok(decision.unbind());
        }
        let py = tenant.py();
        let suggest_for = self.shared.get().host.bind(py).getattr(intern!(py, "suggest_for"))?;
        crossing::call(&suggest_for, (priority, queue_name, tenant)).map(Bound::unbind)
    }

    /// Returns what lies ready for the job of a tenant, if it is still true, and counts it.
    pub fn ready_for<'py>(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'py, PyAny>,
        tenant: &Bound<'_, PyAny>,
        asks: Asks,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(priority) = self.vocabulary.known_priority(priority) else { return Ok(None) };
        let Some(name) = nameable(queue_name) else { return Ok(None) };
        let Some(tenant) = Tenant::read(tenant) else { return Ok(None) };
        let take = |_: &Py<Queue>, decision, _| decision;
        match self.hand_out_for_by_name(name, priority, &tenant, asks.impatient, take)? {
            Some(decision) => Ok(Some(decision)),
            None => self.issue_by_name(name, priority, Asks { impatient: false, ..asks }),
        }
    }

    /// As `hand_out_for`, of the queue of a name.
    pub fn hand_out_for_by_name<'py, R>(
        &self,
        name: &Bound<'py, PyString>,
        priority: Priority,
        tenant: &Tenant<'_>,
        impatient: bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>, bool) -> R,
    ) -> PyResult<Option<R>> {
        let py = name.py();
        if self.clock.is_system() {
            // Nothing is called meanwhile, so the table's own reference is enough.
            let found = |queue: &Py<Queue>| self.hand_out_for(py, queue, priority, tenant, impatient, take);
            self.table.look(name, found)?.unwrap_or(Ok(None))
        } else {
            let queue = self.queue(name)?;
            queue.map_or(Ok(None), |queue| self.hand_out_for(py, queue.as_unbound(), priority, tenant, impatient, take))
        }
    }

    /// Returns and counts what lies ready for a queue and the job of a tenant, if it is still true and no delay: a go, which
    /// is the tenant's where a share is dealt, or the refusal of an `impatient` caller. Nothing of Python's is called but an
    /// injected clock; `take`, which must not call out either, is told whether the job goes.
    pub fn hand_out_for<'py, R>(
        &self,
        py: Python<'py>,
        found: &Py<Queue>,
        priority: Priority,
        tenant: &Tenant<'_>,
        impatient: bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>, bool) -> R,
    ) -> PyResult<Option<R>> {
        let share = |decision: &Py<PyAny>| decision.bind(py).clone();
        let within = |until_ns| self.clock.within(py, until_ns);
        let place = |tenants: &Tenants| Some(tenant.place(tenants));
        let queue = &found.get().core;
        if let Some((decision, goes)) = self.core.hand_out_for(queue, priority, impatient, place, share, within)? {
            return Ok(Some(take(found, decision, goes)));
        }
        // Where no share is dealt, what lies ready is for all.
        let is_for_all = |ready: &Ready| ready.kind.goes() && ready.kind != Kind::ByShare;
        self.hand_out(py, found, priority, is_for_all, |queue, decision| take(queue, decision, true))
    }

    /// Returns the answer that lies ready, if it is still true, and counts it.
    #[inline]
    fn ready(&self, priority: &Bound<'_, PyAny>, queue_name: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let Some(priority) = self.vocabulary.known_priority(priority) else { return Ok(None) };
        let Some(name) = nameable(queue_name) else { return Ok(None) };
        self.hand_out_by_name(name, priority, |ready| !ready.kind.is_delay(), |_, decision| decision.unbind())
    }

    /// Makes a decision of the delay that lies ready, or returns a lease's refusal, if it is still true. Counted, where its
    /// caller is admitted or refused.
    fn own(
        &self,
        priority: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        asks: Asks,
    ) -> PyResult<Option<Py<PyAny>>> {
        let Some(priority) = self.vocabulary.known_priority(priority) else { return Ok(None) };
        let Some(name) = nameable(queue_name) else { return Ok(None) };
        Ok(self.issue_by_name(name, priority, asks)?.map(Bound::unbind))
    }

    /// As `issue`, of the queue of a name.
    pub fn issue_by_name<'py>(
        &self,
        name: &Bound<'py, PyString>,
        priority: Priority,
        asks: Asks,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = name.py();
        let found = if self.clock.is_system() {
            // Nothing is called meanwhile, so the table's own reference is enough.
            self.table.look(name, |queue| self.hand_out_own(py, queue, priority, asks))?.unwrap_or(Ok(None))?
        } else {
            self.queue(name)?.map_or(Ok(None), |queue| self.hand_out_own(py, queue.as_unbound(), priority, asks))?
        };
        self.issue(found)
    }

    /// Makes the decision of what was handed out.
    pub fn issue<'py>(&self, handed_out: Option<HandedOut<'py>>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match handed_out {
            None => Ok(None),
            Some(HandedOut::Refusal(decision)) => Ok(Some(decision)),
            Some(HandedOut::Delay(answer, issue)) => self.decisions.issue(answer, issue).map(Some),
        }
    }

    /// Hands out the delay, or the lease's refusal, that lies ready for a queue, if it is still true. Nothing of Python's is
    /// called but an injected clock.
    pub fn hand_out_own<'py>(
        &self,
        py: Python<'py>,
        queue: &Py<Queue>,
        priority: Priority,
        Asks { admit, impatient }: Asks,
    ) -> PyResult<Option<HandedOut<'py>>> {
        let queue = &queue.get().core;
        let share = |object: &Py<PyAny>| object.bind(py).clone();
        let delay = self.core.hand_out_delay(queue, priority, admit, share, || self.clock.now_ns(py))?;
        if delay.is_some() || !impatient {
            return Ok(delay.map(|(answer, issue)| HandedOut::Delay(answer, issue)));
        }
        let within = |until_ns| self.clock.within(py, until_ns);
        Ok(self.core.hand_out_refusal(queue, priority, share, within)?.map(HandedOut::Refusal))
    }

    /// As `hand_out`; returns what `take`, which must not call out, makes of queue and answer.
    #[inline]
    pub fn hand_out_by_name<'py, R>(
        &self,
        name: &Bound<'py, PyString>,
        priority: Priority,
        accept: impl FnOnce(&Ready) -> bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>) -> R,
    ) -> PyResult<Option<R>> {
        let py = name.py();
        if self.clock.is_system() {
            // Nothing is called meanwhile, so the table's own reference is enough.
            self.table.look(name, |queue| self.hand_out(py, queue, priority, accept, take))?.unwrap_or(Ok(None))
        } else {
            self.queue(name)?.map_or(Ok(None), |queue| self.hand_out(py, queue.as_unbound(), priority, accept, take))
        }
    }

    /// Returns and counts the answer that lies ready for a queue, if it is still true and acceptable, and a lease that it
    /// is of lets the job go. Nothing of Python's is called but an injected clock.
    #[expect(clippy::inline_always, reason = "two callers, of which one is hot")]
    #[inline(always)]
    pub fn hand_out<'py, R>(
        &self,
        py: Python<'py>,
        found: &Py<Queue>,
        priority: Priority,
        accept: impl FnOnce(&Ready) -> bool,
        take: impl FnOnce(&Py<Queue>, Bound<'py, PyAny>) -> R,
    ) -> PyResult<Option<R>> {
        let share = |decision: &Py<PyAny>| decision.bind(py).clone();
        let within = |until_ns| self.clock.within(py, until_ns);
        let at_now = |holds: &dyn Fn(i64) -> bool| self.clock.at_now(py, holds);
        let handed_out = self.core.hand_out(&found.get().core, priority, accept, share, within, at_now)?;
        Ok(handed_out.map(|decision| take(found, decision)))
    }

    fn decide(
        &self,
        given: &Bound<'_, PyAny>,
        queue_name: &Bound<'_, PyAny>,
        admit: bool,
        spared: bool,
    ) -> PyResult<Py<PyAny>> {
        let priority = self.vocabulary.priority(given)?;
        self.core.decide(&self.border(given.py()), priority, admit, spared, || match self.queue(queue_name)? {
            Some(queue) => Ok(Wanted::Queue(queue)),
            None => self.vocabulary.queue_name(queue_name).map(Wanted::Name),
        })
    }

    /// Hands a planned decision to the core.
    fn with_plan<'py, R>(
        &self,
        planned: &Bound<'py, PyAny>,
        work: impl FnOnce(&Border<'_, 'py>, &Plan<'_, Bound<'py, PyString>>) -> PyResult<R>,
    ) -> PyResult<R> {
        let (py, vocabulary) = (planned.py(), self.vocabulary);
        let Parts { answer, ticket, computed, .. } = parts(planned)?;
        let name = answer.getattr(intern!(py, "queue_name"))?;
        let delay: f64 = answer.getattr(intern!(py, "delay"))?.extract()?;
        let plan = Plan {
            name: name.cast()?,
            priority: vocabulary.priority(&answer.getattr(intern!(py, "priority"))?)?,
            reason: vocabulary.reason(&answer.getattr(intern!(py, "reason"))?)?,
            delay_ns: nanoseconds(delay),
            computed: computed.extract()?,
            ticket: if ticket.is_none() { None } else { Some(&ticket.cast::<Ticket>()?.get().0) },
        };
        work(&self.border(py), &plan)
    }

    fn border<'a, 'py>(&'a self, py: Python<'py>) -> Border<'a, 'py> {
        let Self { shared, table, changing, vocabulary, decisions, .. } = self;
        Border { py, shared: shared.get(), table, changing, vocabulary, decisions, outlines: false }
    }

    fn breaker_of(&self, queue: Bound<'_, Queue>) -> Breaker {
        Breaker::of_queue(self.shared.clone_ref(queue.py()), queue.unbind())
    }

    /// Returns the queue of a name, if it has state. Whatever is no exact string names none.
    #[inline]
    pub fn queue<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, Queue>>> {
        let strong = |queue: &Py<Queue>| queue.bind(name.py()).clone();
        nameable(name).map_or(Ok(None), |name| self.table.look(name, strong))
    }
}

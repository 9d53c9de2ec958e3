//! A whole decision of the core: the law computes a new sample's advice, the answer is made ready and counted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use backpressure_core::breaker::Change;
use backpressure_core::call::{Ask, Call};
use backpressure_core::engine::Engine;
use backpressure_core::host::{Answer, Host, Issue, Judged};
use backpressure_core::laws::three_zone::ThreeZoneLaw;
use backpressure_core::queue::{Queue, Ready, Slot};
use backpressure_core::settings::Settings;
use backpressure_core::vocabulary::{Priority, Reason};
use backpressure_core::zone::Zone;

const S: i64 = 1_000_000_000;

/// A host whose objects are numbers, so that only the core is measured.
struct Numbers;

impl Host for Numbers {
    type Object = u64;
    type Error = Infallible;
    type Name = str;
    type Place = Slot<Ready<u64>>;

    fn now_ns(&self) -> Result<i64, Infallible> {
        Ok(1)
    }

    fn text<'a>(&self, name: &'a str) -> Result<&'a str, Infallible> {
        Ok(name)
    }

    fn not_running(&self) -> Infallible {
        unreachable!("a call is made under a mode that runs")
    }

    fn override_ended(&self) -> Result<(), Infallible> {
        Ok(())
    }

    fn read(&self, _: &str, _: bool) -> Result<Option<Reason>, Infallible> {
        Ok(None)
    }

    fn hurry(&self, _: &str) -> Result<(), Infallible> {
        Ok(())
    }

    fn check_poller(&self) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn judge(&self, _: &Self::Name, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("no age is held here")
    }

    fn foresee(&self, _: &Self::Name, _: Priority) -> Result<Judged, Infallible> {
        unreachable!("no age is held here")
    }

    fn circuit_changed(&self, _: &str, _: Change) -> Result<(), Infallible> {
        Ok(())
    }

    fn zone_changed(&self, _: &str, _: Priority, _: Zone, _: Zone) -> Result<(), Infallible> {
        Ok(())
    }

    fn answer(&self, _: &str, answer: &Answer<u64>) -> Result<u64, Infallible> {
        Ok(answer.delay_ns)
    }

    fn observed(&self, finished: u64) -> Result<u64, Infallible> {
        Ok(finished)
    }

    fn issue(&self, finished: u64, _: Issue) -> Result<u64, Infallible> {
        Ok(finished)
    }

    fn peeked(&self, name: &str, answer: &Answer<u64>, _: bool) -> Result<u64, Infallible> {
        self.answer(name, answer)
    }

    fn share(&self, object: &u64) -> u64 {
        *object
    }
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        law: ThreeZoneLaw::new(super::law_settings()).into(),
        circuit: super::circuit(),
        laws: HashMap::new(),
        circuits: HashMap::new(),
        observed: HashMap::new(),
        patterns: Vec::new(),
        holds_ages: false,
        one_mode: true,
        cache_ttl_ns: 30 * S,
        check_after_ns: 10 * S,
        check_every_ns: 5 * S,
        degrade_ns: 300 * S,
        fallback_ns: [1_000_000_000, 500_000_000, 100_000_000],
        fallback_reason: Reason::FallbackConservative,
        polling: true,
        observe: false,
        max_queues: 1_000,
    })
}

/// Decides on what there is. Never inlined: the law would be compiled for two callers, and worse for both.
#[inline(never)]
fn decide(engine: &Engine, queue: &Queue<u64>) -> Result<Option<u64>, Infallible> {
    let mode = engine.switches.mode();
    let (host, checks, mode) = (&Numbers, &engine.checks, &mode);
    let call = Call { host, checks, mode, priority: Priority::Medium, queue, name: "q", now_ns: 1 };
    call.decide(Ask { admit: true, may_read: false, cold: None, spared: false })
}

fn engine() -> (Engine, Queue<u64>) {
    let settings = settings();
    let queue = Queue::new(Arc::clone(settings.circuit_of("q")), 0, 0);
    (Engine::new(settings, 0), queue)
}

/// Returns the work: take a sample, decide on it.
pub fn computed() -> impl FnMut() -> Result<Option<u64>, Infallible> {
    let (engine, queue) = engine();
    move || {
        queue.put_sample(black_box(5), 0, None, None);
        decide(&engine, &queue)
    }
}

/// Returns the work: take a delay that lies ready, for a decision that is its caller's own.
pub fn delayed() -> impl FnMut() -> Result<Option<(u64, Issue)>, Infallible> {
    let (engine, queue) = engine();
    queue.put_sample(1_000_000, 0, None, None); // beyond the window, where more jobs make no difference
    let Ok(_) = decide(&engine, &queue);
    move || engine.hand_out_delay(black_box(&queue), Priority::Medium, true, |delay| *delay, || Ok(2))
}

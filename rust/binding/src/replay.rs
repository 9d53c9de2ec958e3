//! The replay's Python face: settings in, numbers out.

use backpressure_core::budget::BudgetSettings;
use backpressure_core::replay::settings::{
    AgePolicy, BehaviourSettings, LoopSettings, PolicyInForce, ReplaySettings, Tried,
};
use backpressure_core::replay::{self, Counts, Trail};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::settings::Law;

/// Replays one queue. Not thread-safe: a call during another one fails.
#[pyclass(name = "QueueReplay", module = "backpressure._native")]
pub struct QueueReplay(replay::QueueReplay);

#[pymethods]
impl QueueReplay {
    #[new]
    fn new(settings: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(replay::QueueReplay::new(&settings_of(settings)?)))
    }

    /// Take the rows of a block; blocks come in the order of their time.
    fn feed(&mut self, py: Python<'_>, content: &[u8], rows: usize) -> PyResult<()> {
        py.detach(|| self.0.feed(content, rows)).map_err(|damage| PyValueError::new_err(damage.to_string()))
    }

    /// Return all that was found; ends the replay.
    fn result<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.0.end();
        let counts = self.0.counts();
        let replay::QueueReplay { basis, trail, worlds, parity, .. } = &self.0;
        let told = PyDict::new(py);
        told.set_item("rows", basis.rows)?;
        told.set_item("skipped", basis.skipped)?;
        told.set_item("first_ms", basis.first_ms)?;
        told.set_item("last_ms", basis.last_ms)?;
        told.set_item("judged_ms", basis.judged_ms)?;
        told.set_item("gaps_ms", basis.gaps_ms)?;
        told.set_item("offers_ms", basis.offers_ms)?;
        told.set_item("drains_ms", basis.drains_ms)?;
        told.set_item("busy_ms", basis.busy_ms)?;
        told.set_item("unjudged", basis.unjudged)?;
        told.set_item("refused", basis.refused)?;
        told.set_item("others", basis.others)?;
        told.set_item("knows_memory", basis.knows_memory)?;
        told.set_item("recorded", answer(py, counts, trail, basis.oldest_ms, basis.judged_ms)?)?;
        let simulated = worlds.iter().map(|world| {
            answer(py, world.counts(), world.trail(), Some(world.longest_wait_ms()), world.simulated_ms())
        });
        told.set_item("simulated", simulated.collect::<PyResult<Vec<_>>>()?)?;
        let numbers = [parity.offers, parity.off].into_iter().chain(parity.recorded).chain(parity.replayed);
        told.set_item("parity", PyTuple::new(py, numbers.collect::<Vec<_>>())?)?;
        Ok(told)
    }
}

fn answer<'py>(
    py: Python<'py>,
    counts: &[Counts; 3],
    trail: &Trail,
    longest_wait_ms: Option<i64>,
    told_ms: i64,
) -> PyResult<Bound<'py, PyTuple>> {
    let counts = counts.each_ref().map(|it| {
        let [green, yellow, red] = it.zones_ms;
        (it.offers, it.delays, it.sheds, it.held, green, yellow, red, it.waits_ms, it.shed_ms)
    });
    (PyTuple::new(py, counts)?, trail.peak, trail.peak_at_ms, longest_wait_ms, told_ms, trail.told()).into_pyobject(py)
}

fn settings_of(given: &Bound<'_, PyAny>) -> PyResult<ReplaySettings> {
    let attribute = |name| given.getattr(name);
    let mut in_force = Vec::new();
    for (number, policy) in attribute("in_force")?.cast::<PyDict>()?.iter() {
        in_force.push((number.extract()?, policy_in_force(&policy)?));
    }
    let behaviour = attribute("behaviour")?;
    Ok(ReplaySettings {
        law: tried(&attribute("law")?)?,
        poll_ms: attribute("poll_ms")?.extract()?,
        busy_poll_ms: attribute("busy_poll_ms")?.extract()?,
        sleep_permille: attribute("sleep_permille")?.extract()?,
        gap_ms: attribute("gap_ms")?.extract()?,
        trail_ms: attribute("trail_ms")?.extract()?,
        mix_ppm: attribute("mix_ppm")?.extract()?,
        in_force,
        behaviour: if behaviour.is_none() { None } else { Some(behaviour_of(&behaviour)?) },
    })
}

fn tried(given: &Bound<'_, PyAny>) -> PyResult<Tried> {
    let law = given.extract::<Law>()?.0;
    if !law.holds_age() {
        return Ok(Tried::Table(law));
    }
    let budget = given.getattr("budget")?;
    Ok(Tried::Age(AgePolicy {
        budget: budget_of(&budget)?,
        sheds_medium: given.getattr("sheds_medium")?.extract()?,
        memory_permille: given.getattr("memory_permille")?.extract()?,
    }))
}

fn budget_of(given: &Bound<'_, PyAny>) -> PyResult<BudgetSettings> {
    let number = |name| given.getattr(name)?.extract();
    Ok(BudgetSettings {
        target_ms: number("target_ms")?,
        tick_ms: number("tick_ms")?,
        gain_most_permille: number("gain_most_permille")?,
        drain_window_ms: number("drain_window_ms")?,
        trims: given.getattr("trims")?.extract()?,
        least_budget_permille: number("least_budget_permille")?,
        medium_floor_permille: number("medium_floor_permille")?,
        low_floor_permille: number("low_floor_permille")?,
        burst_jobs: number("burst_jobs")?,
        calls_per_second: number("calls_per_second")?,
    })
}

fn policy_in_force(given: &Bound<'_, PyAny>) -> PyResult<PolicyInForce> {
    let law: Option<Law> = given.getattr(intern!(given.py(), "law"))?.extract()?;
    Ok(PolicyInForce { law: law.map(|law| law.0), enforces: given.getattr("enforces")?.extract()? })
}

fn behaviour_of(given: &Bound<'_, PyAny>) -> PyResult<BehaviourSettings> {
    let loops: [Bound<'_, PyAny>; 3] = given.getattr("loops")?.extract()?;
    let [low, medium, high] = loops.map(|loops| if loops.is_none() { Ok(None) } else { loops_of(&loops).map(Some) });
    Ok(BehaviourSettings {
        returns_ppm: given.getattr("returns_ppm")?.extract()?,
        return_after_us: given.getattr("return_after_us")?.extract()?,
        loops: [low?, medium?, high?],
    })
}

fn loops_of(given: &Bound<'_, PyAny>) -> PyResult<LoopSettings> {
    Ok(LoopSettings {
        count: given.getattr("count")?.extract()?,
        pause_us: given.getattr("pause_us")?.extract()?,
        paced: given.getattr("paced")?.extract()?,
        skips: given.getattr("skips")?.extract()?,
    })
}

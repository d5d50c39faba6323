//! `_core.Router`: the core's router with names and plain tuples for Python.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dspex_core::router::{
    AddError, BreakerSettings, BudgetSettings, Category, Event, Options, Outcome, RouteError,
    Router as CoreRouter, Side, Slots, Standing, Strategy, Target, Ticket as CoreTicket, Window,
    Wish,
};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::words::{Choice, Word};

impl Choice for Side {
    const WHAT: &str = "side";
    const WORDS: &[(&str, Self)] = &[("native", Self::Native), ("python", Self::Python)];
}

impl Choice for Outcome {
    const WHAT: &str = "outcome";
    const WORDS: &[(&str, Self)] = &[
        ("served", Self::Served),
        ("failed", Self::Failed),
        ("refused", Self::Refused),
        ("cancelled", Self::Cancelled),
    ];
}

impl Choice for Strategy {
    const WHAT: &str = "strategy";
    const WORDS: &[(&str, Self)] = &[
        ("prefer-native", Self::PreferNative),
        ("prefer-python", Self::PreferPython),
        ("fastest", Self::Fastest),
        ("weighted", Self::Weighted),
    ];
}

/// A breaker's settings as Python names them; times in seconds.
#[derive(FromPyObject)]
struct BreakerValues {
    failure_rate: f64,
    slow_rate: f64,
    slow_after: f64,
    minimum: u32,
    window: f64,
    window_calls: Option<u32>,
    open_for: f64,
    open_at_most: f64,
    probes: u32,
    at_once: bool,
}

impl From<BreakerValues> for BreakerSettings {
    fn from(values: BreakerValues) -> Self {
        Self {
            failure_rate: values.failure_rate,
            slow_rate: values.slow_rate,
            slow_after: in_seconds(values.slow_after),
            minimum: values.minimum,
            window: values
                .window_calls
                .map_or_else(|| Window::Time(in_seconds(values.window)), Window::Calls),
            open_for: in_seconds(values.open_for),
            open_at_most: in_seconds(values.open_at_most),
            probes: values.probes,
            at_once: values.at_once,
        }
    }
}

/// A time of so many seconds; what is none, or too long, is the nearest that is.
pub(crate) fn in_seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or(Duration::MAX)
}

/// Counts the tokens of a call, under the names that chat completions have for them, or else the later ones.
fn count_tokens(target: &Target, usage: &Bound<'_, PyDict>) {
    let py = usage.py();
    let of = |name| {
        let found = usage.get_item(name).ok().flatten();
        found.and_then(|count| count.extract::<u64>().ok())
    };
    let input = of(intern!(py, "prompt_tokens")).or_else(|| of(intern!(py, "input_tokens")));
    let output = of(intern!(py, "completion_tokens")).or_else(|| of(intern!(py, "output_tokens")));
    if input.is_some() || output.is_some() {
        target.add_tokens(input.unwrap_or(0), output.unwrap_or(0));
    }
}

/// What has changed: the target, and the states of its breaker before and after.
type StateChange = (String, &'static str, &'static str);

/// Slot, name, the counters, and the state of the breaker.
type Row = (usize, String, u64, u64, u64, u64, u64, &'static str);

fn state_change(event: &Event) -> StateChange {
    let change = event.change;
    (
        event.target.name().to_owned(),
        change.from.as_str(),
        change.to.as_str(),
    )
}

/// Chooses between targets.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Router {
    pub(crate) core: CoreRouter,
    began: Instant,
    /// For tests: what gives the seconds, in the place of the clock.
    clock: Option<Py<PyAny>>,
    chance: AtomicU64,
}

/// Leave to call a target.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Ticket {
    core: CoreTicket,
    began: u64,
    /// Its slot.
    #[pyo3(get)]
    slot: usize,
    /// Why it was chosen.
    #[pyo3(get)]
    reason: &'static str,
    /// The breaker that has begun to probe by it.
    #[pyo3(get)]
    change: Option<StateChange>,
    /// What other targets lack of what the operation needs.
    #[pyo3(get)]
    lacking: u64,
    recorded: AtomicBool,
    at: Instant,
}

#[pymethods]
impl Ticket {
    /// The target's name.
    #[getter]
    fn name(&self) -> &str {
        self.core.target().name()
    }

    /// Whether it has been said how the call ended.
    #[getter]
    fn recorded(&self) -> bool {
        self.recorded.load(Ordering::Relaxed)
    }

    /// The number of the target, which no other has or had.
    #[getter]
    fn number(&self) -> u64 {
        self.core.target().number()
    }

    /// Seconds since the decision.
    fn seconds(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }
}

#[pymethods]
impl Router {
    #[new]
    #[pyo3(signature = (strategy = Word(Strategy::PreferNative), *, clock = None, seed = None))]
    fn new(strategy: Word<Strategy>, clock: Option<Py<PyAny>>, seed: Option<u64>) -> Self {
        let began = Instant::now();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        #[allow(clippy::cast_possible_truncation)] // any bits will do
        let chance = now.map_or(0, |since| since.as_nanos() as u64);
        Self {
            core: CoreRouter::new(strategy.0),
            began,
            clock,
            chance: AtomicU64::new(seed.unwrap_or(chance)),
        }
    }

    /// Adds a target, and gives its slot.
    ///
    /// `budget` is the share of its calls that may be made again, and how many a second may be without any.
    #[pyo3(signature = (name, side, *, breaker = None, budget = None, limit = None, weight = 1.0, lacks = 0))]
    #[allow(clippy::too_many_arguments)] // all but two are settings by name
    fn add(
        &self,
        py: Python<'_>,
        name: &str,
        side: Word<Side>,
        breaker: Option<BreakerValues>,
        budget: Option<(f64, f64)>,
        limit: Option<u64>,
        weight: f64,
        lacks: u64,
    ) -> PyResult<usize> {
        let options = Options {
            breaker: breaker.map(BreakerSettings::from),
            budget: budget.map(|(share, per_second)| BudgetSettings {
                share,
                per_second,
                ..BudgetSettings::default()
            }),
            limit,
            weight,
            lacks,
        };
        self.core
            .add(name, side.0, &options)
            .map_err(|error| match error {
                AddError::Taken => errors::raise(
                    py,
                    "ConfigError",
                    &format!("there is a target {name:?} already, or a side of that name"),
                    "target-name",
                    "give each target a name of its own",
                ),
                AddError::TooMany => errors::raise(
                    py,
                    "ConfigError",
                    &format!("there are {} targets already", Slots::MOST),
                    "too-many-targets",
                    "remove one, or let one target serve more",
                ),
            })
    }

    /// The number of the target in a slot.
    fn number(&self, slot: usize) -> PyResult<u64> {
        Ok(self.found(slot)?.number())
    }

    /// Removes a target; calls that are under way there go on.
    fn remove(&self, slot: usize) -> PyResult<()> {
        self.core
            .remove(slot)
            .map(drop)
            .ok_or_else(|| PyIndexError::new_err(slot))
    }

    /// Leave to call the target that serves the call; it counts as under way there until `record`.
    #[pyo3(signature = (wanted = None, needs = 0, unable = 0, tried = 0, again = false, strategy = None))]
    #[allow(clippy::too_many_arguments)] // all but two are left out by nearly all calls
    fn decide(
        &self,
        py: Python<'_>,
        wanted: Option<&str>,
        needs: u64,
        unable: u64,
        tried: u64,
        again: bool,
        strategy: Option<Word<Strategy>>,
    ) -> PyResult<Ticket> {
        let wish = Wish {
            wanted,
            needs,
            unable: Slots::from_bits(unable),
            tried: Slots::from_bits(tried),
            again,
            strategy: strategy.map(|word| word.0),
            chance: self.chance.fetch_add(1, Ordering::Relaxed),
        };
        let now = self.now(py)?;
        match self.core.decide(&wish, now) {
            Ok(decision) => {
                self.core.count_lacking(decision.lacking);
                Ok(Ticket {
                    slot: decision.ticket.slot(),
                    reason: decision.reason.as_str(),
                    change: decision.event.as_ref().map(state_change),
                    lacking: decision.lacking,
                    recorded: AtomicBool::new(false),
                    at: match self.clock {
                        None => self.began + Duration::from_nanos(now),
                        Some(_) => Instant::now(),
                    },
                    core: decision.ticket,
                    began: now,
                })
            }
            Err(error) => Err(self.error(py, &error)),
        }
    }

    /// `(slot, standing, lacking)` of every target as a call would find it now, in the order in which it would look at
    /// them: `ready`, `elsewhere`, `unable`, `breaker` or `full`.
    #[pyo3(signature = (wanted = None, needs = 0, unable = 0, strategy = None))]
    fn explain(
        &self,
        py: Python<'_>,
        wanted: Option<&str>,
        needs: u64,
        unable: u64,
        strategy: Option<Word<Strategy>>,
    ) -> PyResult<Vec<(usize, &'static str, u64)>> {
        let wish = Wish {
            wanted,
            needs,
            unable: Slots::from_bits(unable),
            strategy: strategy.map(|word| word.0),
            chance: self.chance.load(Ordering::Relaxed),
            ..Wish::default()
        };
        let row = |(slot, _, standing)| match standing {
            Standing::Ready => (slot, "ready", 0),
            Standing::NotWanted => (slot, "elsewhere", 0),
            Standing::Unable { lacking } => (slot, "unable", lacking),
            Standing::BreakerOpen => (slot, "breaker", 0),
            Standing::Full => (slot, "full", 0),
        };
        let found = self.core.explain(&wish, self.now(py)?);
        Ok(found.into_iter().map(row).collect())
    }

    /// A call had no target, and why: `unknown-route`, `native-unable`, `no-target`, `targets-failing`, `targets-full`.
    fn count_undecided(&self, reason: &str) {
        self.core.count_undecided(reason);
    }

    /// How many decisions there were in which a target lacked what the call needed, by the number of the bit.
    fn lacked(&self) -> Vec<u64> {
        self.core.lacked().to_vec()
    }

    /// How a call ended: `served`, `failed`, `refused` or `cancelled`; what that changed of its target's breaker.
    ///
    /// `seconds` is how long it took, where that is not the time since the decision. `category` says who must act on the
    /// error, `usage` the tokens as the model's server counted them. The first record of a ticket counts.
    #[pyo3(signature = (ticket, outcome, retry_after = None, seconds = None, category = None, usage = None))]
    #[allow(clippy::too_many_arguments)] // all but two are by name
    fn record(
        &self,
        py: Python<'_>,
        ticket: &Ticket,
        outcome: Word<Outcome>,
        retry_after: Option<f64>,
        seconds: Option<f64>,
        category: Option<&str>,
        usage: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<StateChange>> {
        if ticket.recorded.swap(true, Ordering::Relaxed) {
            return Ok(None);
        }
        let now = self.now(py)?;
        // A program's own errors may have a category of its own; nobody is blamed for those.
        let mut known = Category::ALL.into_iter();
        if let Some(category) = known.find(|known| Some(known.as_str()) == category) {
            ticket.core.target().blame(outcome.0, category);
        }
        if let Some(usage) = usage.and_then(|usage| usage.cast::<PyDict>().ok()) {
            count_tokens(ticket.core.target(), usage);
        }
        let took = seconds.map_or_else(
            || Duration::from_nanos(now.saturating_sub(ticket.began)),
            in_seconds,
        );
        let event = self.core.record(
            &ticket.core,
            outcome.0,
            took,
            retry_after.map(in_seconds),
            now,
        );
        Ok(event.as_ref().map(state_change))
    }

    /// Whether a call to the target of this ticket may be made again; if so, its budget has one retry less.
    fn take_retry(&self, py: Python<'_>, ticket: &Ticket) -> PyResult<bool> {
        let now = self.now(py)?;
        Ok(ticket
            .core
            .target()
            .budget()
            .is_some_and(|budget| budget.take(now)))
    }

    /// Whether a target has a breaker.
    fn has_breaker(&self, slot: usize) -> PyResult<bool> {
        Ok(self.found(slot)?.breaker().is_some())
    }

    /// Opens a target's breaker (`"open"`), closes it (`"closed"`), or lets it decide again (`"auto"`).
    fn force(&self, slot: usize, state: &str) -> PyResult<Option<StateChange>> {
        let target = self.found(slot)?;
        let Some(breaker) = target.breaker() else {
            return Ok(None);
        };
        let change = match state {
            "open" => breaker.force(true),
            "closed" => breaker.force(false),
            "auto" => breaker.reset(),
            _ => return Err(PyValueError::new_err(state.to_owned())),
        };
        Ok(change.map(|change| {
            state_change(&Event {
                target: target.clone(),
                change,
            })
        }))
    }

    /// `(slot, name, in_flight, served, failed, refused, cancelled, state)` of every target.
    fn counts(&self) -> Vec<Row> {
        let row = |(slot, target): (usize, std::sync::Arc<Target>)| {
            let counts = target.counts();
            let state = target
                .breaker()
                .map_or("closed", |breaker| breaker.state().as_str());
            (
                slot,
                target.name().to_owned(),
                counts.in_flight,
                counts.served,
                counts.failed,
                counts.refused,
                counts.cancelled,
                state,
            )
        };
        self.core.all().into_iter().map(row).collect()
    }

    /// The seconds that these shares of a target's calls did not exceed: of those it answered, or of those in which it
    /// failed; None where there were none.
    #[pyo3(signature = (slot, shares, *, failed = false))]
    #[allow(clippy::needless_pass_by_value)] // PyO3 gives lists as values
    fn quantiles(&self, slot: usize, shares: Vec<f64>, failed: bool) -> PyResult<Option<Vec<f64>>> {
        let target = self.found(slot)?;
        let found = target.durations()[usize::from(failed)].quantiles(&shares);
        Ok(found.map(|times| times.iter().map(Duration::as_secs_f64).collect()))
    }
}

impl Router {
    fn now(&self, py: Python<'_>) -> PyResult<u64> {
        let since = match &self.clock {
            None => self.began.elapsed(),
            Some(clock) => in_seconds(clock.call0(py)?.extract(py)?),
        };
        Ok(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn found(&self, slot: usize) -> PyResult<std::sync::Arc<Target>> {
        self.core
            .target(slot)
            .ok_or_else(|| PyIndexError::new_err(slot))
    }

    fn error(&self, py: Python<'_>, error: &RouteError) -> PyErr {
        let known: Vec<_> = self
            .core
            .all()
            .iter()
            .map(|(_, target)| target.name().to_owned())
            .collect();
        let known = known.join(", ");
        let (class, code, hint) = match error {
            RouteError::UnknownRoute { .. } => (
                "RouteError",
                "unknown-route",
                format!("use \"native\", \"python\" or a target's name: {known}"),
            ),
            RouteError::Unable => (
                "RouteError",
                "native-unable",
                "leave out `route`, or ask for \"python\"".to_owned(),
            ),
            RouteError::NoTarget => (
                "RouteError",
                "no-target",
                format!("this runtime's targets are: {known}; give it a pool with `pools=`"),
            ),
            RouteError::Closed { full, after } => {
                let code = if *full {
                    "targets-full"
                } else {
                    "targets-failing"
                };
                let hint = after.map_or_else(
                    || "call again in a moment".to_owned(),
                    |time| format!("call again in {:.1} s", time.as_secs_f64()),
                );
                ("TargetsUnavailable", code, hint)
            }
        };
        let details = PyDict::new(py);
        if let RouteError::Closed {
            after: Some(time), ..
        } = error
        {
            let _ = details.set_item("retry_after", time.as_secs_f64());
        }
        errors::raise_with(py, class, &error.to_string(), code, &hint, &details)
    }
}

//! `_core.Limiter`: the core's rate limits with plain tuples for Python.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dspex_core::router::{Asked, Limiter as CoreLimiter, LimiterSettings};
use pyo3::prelude::*;

/// The limits of one server, and the calls that wait for their turn. Times are seconds.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Limiter {
    core: Mutex<CoreLimiter>,
    began: Instant,
    /// For tests: what gives the seconds, in the place of the clock.
    clock: Option<Py<PyAny>>,
}

/// Calls that have been granted; the call whose turn is next, and how long it takes at least.
type Turns = (Vec<u64>, Option<(u64, f64)>);

#[pymethods]
impl Limiter {
    #[new]
    #[pyo3(signature = (requests_per_minute, tokens_per_minute, concurrency, burst, *, clock = None))]
    fn new(
        requests_per_minute: Option<f64>,
        tokens_per_minute: Option<f64>,
        concurrency: Option<u64>,
        burst: f64,
        clock: Option<Py<PyAny>>,
    ) -> Self {
        Self {
            core: Mutex::new(CoreLimiter::new(&LimiterSettings {
                requests_per_minute,
                tokens_per_minute,
                concurrency,
                burst,
            })),
            began: Instant::now(),
            clock,
        }
    }

    /// Whether a call may go: its name, whether it may go now, and how long it waits at least; or None in the place of the
    /// name where that is longer than it may.
    ///
    /// `size` is that of its body in bytes, `most` the tokens that one of its `generations` may have.
    #[pyo3(signature = (caller, size, generations, most, at_most))]
    fn ask(
        &self,
        py: Python<'_>,
        caller: u64,
        size: u64,
        generations: u64,
        most: Option<u64>,
        at_most: Option<f64>,
    ) -> PyResult<(Option<u64>, bool, f64)> {
        let now = self.now(py)?;
        let mut core = self.lock();
        let tokens = core.estimate(size, generations, most);
        Ok(match core.ask(caller, tokens, at_most.map(seconds), now) {
            Asked::Granted(id) => (Some(id), true, 0.0),
            Asked::Waits(id, wait) => (Some(id), false, wait.as_secs_f64()),
            Asked::TooLate(wait) => (None, false, wait.as_secs_f64()),
        })
    }

    /// Grants what may go, in turn.
    fn turns(&self, py: Python<'_>) -> PyResult<Turns> {
        let now = self.now(py)?;
        let turns = self.lock().turns(now);
        let next = turns.next.map(|(id, wait)| (id, wait.as_secs_f64()));
        Ok((turns.granted, next))
    }

    /// Grants a call that waits, out of turn.
    fn let_pass(&self, py: Python<'_>, caller: u64, call: u64) -> PyResult<()> {
        let now = self.now(py)?;
        self.lock().let_pass(caller, call, now);
        Ok(())
    }

    /// Takes a call out of the line, and says how long its turn would still have taken at least; None where it waits no more.
    fn withdraw(&self, py: Python<'_>, caller: u64, call: u64) -> PyResult<Option<f64>> {
        let now = self.now(py)?;
        let left = self.lock().withdraw(caller, call, now);
        Ok(left.map(|time| time.as_secs_f64()))
    }

    /// A call that was granted is over; with the tokens that it took and those of its answers, where they are known.
    #[pyo3(signature = (call, tokens = None, answer = None))]
    fn done(&self, call: u64, tokens: Option<f64>, answer: Option<f64>) {
        let mut core = self.lock();
        core.done(call, tokens);
        if let Some(answer) = answer {
            core.learn(answer);
        }
    }

    /// A call that was granted was never made.
    fn give_back(&self, call: u64) {
        self.lock().give_back(call);
    }

    /// Whether an ordinary call would have to wait.
    fn is_busy(&self, py: Python<'_>) -> PyResult<bool> {
        let now = self.now(py)?;
        Ok(self.lock().is_busy(now))
    }

    /// Calls under way, and calls that wait.
    fn counts(&self) -> (u64, usize) {
        let core = self.lock();
        (core.in_flight(), core.waiting())
    }
}

impl Limiter {
    fn now(&self, py: Python<'_>) -> PyResult<u64> {
        let since = match &self.clock {
            None => self.began.elapsed(),
            Some(clock) => seconds(clock.call0(py)?.extract(py)?),
        };
        Ok(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, CoreLimiter> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or(Duration::MAX)
}

//! `_core.StageTimes`, `_core.Stages`, `_core.Counters` and `_core.metrics_text`: what is measured, and its text.

use std::sync::Arc;
use std::time::Instant;

use dspex_core::telemetry::{
    Counters as CoreCounters, Gauge, Stage, StageTimes as CoreStageTimes, Stages as CoreStages,
    UnknownFamily, text,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::router::{Router, in_seconds};
use crate::words::{Choice, Word};

impl Choice for Stage {
    const WHAT: &str = "stage";
    const WORDS: &[(&str, Self)] = &[
        ("render", Self::Render),
        ("lm", Self::Lm),
        ("parse", Self::Parse),
        ("worker", Self::Worker),
    ];
}

/// How long the stages of all calls to one target took.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct StageTimes {
    core: Arc<CoreStageTimes>,
    began: Instant,
}

#[pymethods]
impl StageTimes {
    #[new]
    fn new() -> Self {
        Self {
            core: Arc::default(),
            began: Instant::now(),
        }
    }

    /// The stages of a call that begins now.
    fn begin(&self) -> Stages {
        Stages {
            times: Arc::clone(&self.core),
            began: self.began,
            core: CoreStages::begin(nanos(self.began)),
        }
    }

    /// Counts a stage that somebody else has measured.
    fn add(&self, stage: Word<Stage>, seconds: f64) {
        self.core.add(stage.0, in_seconds(seconds));
    }
}

/// The stages of one call.
#[pyclass(module = "dspex._core")]
pub(crate) struct Stages {
    times: Arc<CoreStageTimes>,
    began: Instant,
    core: CoreStages,
}

#[pymethods]
impl Stages {
    /// A stage has ended; the seconds that it took.
    fn mark(&mut self, stage: Word<Stage>) -> f64 {
        let took = self.core.mark(stage.0, nanos(self.began));
        self.times.add(stage.0, took);
        took.as_secs_f64()
    }

    /// A stage has ended that somebody else has timed; the next one begins now.
    fn put(&mut self, stage: Word<Stage>, seconds: f64) {
        let took = in_seconds(seconds);
        self.core.put(stage.0, took, nanos(self.began));
        self.times.add(stage.0, took);
    }

    /// The seconds of each stage that has ended, and of all as `total`.
    fn seconds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = PyDict::new(py);
        for (stage, took) in self.core.spent() {
            found.set_item(word(py, stage), took.as_secs_f64())?;
        }
        found.set_item(pyo3::intern!(py, "total"), self.core.total().as_secs_f64())?;
        Ok(found)
    }
}

fn word(py: Python<'_>, stage: Stage) -> &Bound<'_, pyo3::types::PyString> {
    match stage {
        Stage::Render => pyo3::intern!(py, "render"),
        Stage::Lm => pyo3::intern!(py, "lm"),
        Stage::Parse => pyo3::intern!(py, "parse"),
        Stage::Worker => pyo3::intern!(py, "worker"),
    }
}

fn nanos(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Counters by labels that nobody can list beforehand; those that are too many are counted together.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Counters {
    core: CoreCounters,
}

#[pymethods]
impl Counters {
    #[new]
    fn new() -> Self {
        Self {
            core: CoreCounters::default(),
        }
    }

    /// Adds to the counter of these labels.
    #[pyo3(signature = (name, labels, amount = 1))]
    #[allow(clippy::needless_pass_by_value)] // PyO3 gives lists as values
    fn add(&self, name: &str, labels: Vec<String>, amount: u64) -> PyResult<()> {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        self.core
            .add(name, &labels, amount)
            .map_err(|error| unknown(&error))
    }
}

/// All metrics in Prometheus' text format.
///
/// `stages` are the times of each target's stages, by its name; `gauges` are numbers as they are now: name, values of the
/// labels, number.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 gives lists as values
pub(crate) fn metrics_text(
    router: &Router,
    stages: Vec<(String, Bound<'_, StageTimes>)>,
    counters: &Counters,
    gauges: Vec<Gauge>,
) -> PyResult<String> {
    let held: Vec<_> = stages
        .into_iter()
        .map(|(target, times)| (target, Arc::clone(&times.get().core)))
        .collect();
    let stages: Vec<_> = held
        .iter()
        .map(|(target, times)| (target.clone(), times.as_ref()))
        .collect();
    text(&router.core, &stages, &counters.core, &gauges).map_err(|error| unknown(&error))
}

fn unknown(error: &UnknownFamily) -> PyErr {
    PyValueError::new_err(error.to_string())
}

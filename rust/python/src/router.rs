//! `_core.Router`: the core's router with names and plain tuples for Python.

use dspex_core::router::{Outcome, RouteError, Router as CoreRouter, Side};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

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
        ("cancelled", Self::Cancelled),
    ];
}

/// Chooses between targets; immutable once made.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Router(CoreRouter);

#[pymethods]
impl Router {
    #[new]
    fn new(targets: Vec<(String, Word<Side>)>) -> Self {
        let mut router = CoreRouter::default();
        for (name, Word(side)) in targets {
            router.register(&name, side);
        }
        Self(router)
    }

    /// The index of the target that serves the call; it counts as in flight until `record`.
    #[pyo3(signature = (wanted = None, native_able = true))]
    fn decide(&self, py: Python<'_>, wanted: Option<&str>, native_able: bool) -> PyResult<usize> {
        self.0
            .decide(wanted, native_able)
            .map(dspex_core::router::TargetId::index)
            .map_err(|error| self.error(py, &error))
    }

    /// How the call ended that `decide` sent to `index`: `served`, `failed` or `cancelled`.
    fn record(&self, index: usize, outcome: Word<Outcome>) -> PyResult<()> {
        let id = self
            .0
            .target(index)
            .ok_or_else(|| PyIndexError::new_err(index))?;
        self.0.record(id, outcome.0);
        Ok(())
    }

    /// `(name, in_flight, served, failed, cancelled)` of every target.
    fn counts(&self) -> Vec<(String, u64, u64, u64, u64)> {
        self.0
            .targets()
            .map(|id| {
                let counts = self.0.counts(id);
                (
                    self.0.name(id).to_owned(),
                    counts.in_flight,
                    counts.served,
                    counts.failed,
                    counts.cancelled,
                )
            })
            .collect()
    }
}

impl Router {
    fn error(&self, py: Python<'_>, error: &RouteError) -> PyErr {
        let known: Vec<_> = self.0.targets().map(|id| self.0.name(id)).collect();
        let known = known.join(", ");
        let (code, hint) = match error {
            RouteError::UnknownRoute { .. } => (
                "unknown-route",
                format!("use \"native\", \"python\" or a target's name: {known}"),
            ),
            RouteError::NativeUnable => (
                "native-unable",
                "leave out `route`, or ask for \"python\"".to_owned(),
            ),
            RouteError::NoTarget => (
                "no-target",
                format!("this runtime's targets are: {known}; give it a pool with `pools=`"),
            ),
        };
        errors::raise(py, "RouteError", &error.to_string(), code, &hint)
    }
}

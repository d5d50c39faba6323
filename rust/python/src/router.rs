//! `_core.Router`: the core's router with names and plain tuples for Python.

use dspex_core::router::{Outcome, RouteError, Router as CoreRouter, Side};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;

use crate::errors;

/// Chooses between targets; immutable once made.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Router(CoreRouter);

#[pymethods]
impl Router {
    #[new]
    fn new(targets: Vec<(String, String)>) -> PyResult<Self> {
        let mut router = CoreRouter::default();
        for (name, side) in targets {
            let side = match side.as_str() {
                "native" => Side::Native,
                "python" => Side::Python,
                _ => return Err(PyValueError::new_err(format!("no such side: {side}"))),
            };
            router.register(&name, side);
        }
        Ok(Self(router))
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
    fn record(&self, index: usize, outcome: &str) -> PyResult<()> {
        let outcome = match outcome {
            "served" => Outcome::Served,
            "failed" => Outcome::Failed,
            "cancelled" => Outcome::Cancelled,
            _ => return Err(PyValueError::new_err(format!("no such outcome: {outcome}"))),
        };
        let id = self
            .0
            .target(index)
            .ok_or_else(|| PyIndexError::new_err(index))?;
        self.0.record(id, outcome);
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

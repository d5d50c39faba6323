//! `_core.ResponseCache` and `_core.cache_key`: answers in memory, with objects of Python's as values.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dspex_core::cache::{Found, Key, Store};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The key of a request: of whom it is asked, its body, and the number of a repetition.
#[pyfunction]
#[pyo3(signature = (scope, body, rollout = None))]
pub(crate) fn cache_key<'py>(
    py: Python<'py>,
    scope: &[u8],
    body: &[u8],
    rollout: Option<&[u8]>,
) -> Bound<'py, PyBytes> {
    PyBytes::new(py, Key::of(scope, body, rollout).as_bytes())
}

/// Values by the keys of requests, bounded in bytes. Times are seconds.
///
/// The lock is taken and given back while the interpreter is held, so that no fork finds it taken.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct ResponseCache {
    core: Mutex<Store<Py<PyAny>>>,
    began: Instant,
    /// For tests: what gives the seconds, in the place of the clock.
    clock: Option<Py<PyAny>>,
}

#[pymethods]
impl ResponseCache {
    #[new]
    #[pyo3(signature = (max_bytes, *, clock = None))]
    fn new(max_bytes: u64, clock: Option<Py<PyAny>>) -> Self {
        Self {
            core: Mutex::new(Store::new(max_bytes)),
            began: Instant::now(),
            clock,
        }
    }

    /// The value of a key, or None.
    fn get(&self, py: Python<'_>, key: &[u8]) -> PyResult<Option<Py<PyAny>>> {
        let (key, now) = (checked(key)?, self.now(py)?);
        let mut core = self.lock();
        let gone = match core.get(&key, now) {
            Found::Hit(value) => return Ok(Some(value.clone_ref(py))),
            Found::Expired(value) => Some(value),
            Found::Nothing => None,
        };
        drop(core);
        drop(gone); // its own end may be code of Python's
        Ok(None)
    }

    /// Keeps a value that takes so many bytes, for so many seconds.
    #[pyo3(signature = (key, value, size, seconds = None))]
    fn put(
        &self,
        py: Python<'_>,
        key: &[u8],
        value: Py<PyAny>,
        size: u64,
        seconds: Option<f64>,
    ) -> PyResult<()> {
        let (key, now) = (checked(key)?, self.now(py)?);
        let ends = seconds.map(|seconds| now.saturating_add(nanos(seconds)));
        let gone = self.lock().put(key, value, size, ends);
        drop(gone);
        Ok(())
    }

    /// Takes a value out; whether there was one.
    fn forget(&self, key: &[u8]) -> PyResult<bool> {
        let key = checked(key)?;
        let gone = self.lock().remove(&key);
        Ok(gone.is_some())
    }

    /// Takes all values out; how many there were.
    fn clear(&self) -> usize {
        let gone = self.lock().clear();
        gone.len()
    }

    /// Values that were found, that left for others, that there are, and the bytes that these take.
    fn info(&self) -> (u64, u64, usize, u64) {
        let info = self.lock().info();
        (info.hits, info.evicted, info.len, info.bytes)
    }
}

impl ResponseCache {
    fn now(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(match &self.clock {
            None => u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Some(clock) => nanos(clock.call0(py)?.extract(py)?),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Store<Py<PyAny>>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked(key: &[u8]) -> PyResult<Key> {
    let bytes = key
        .try_into()
        .map_err(|_| PyValueError::new_err("a key has 32 bytes"))?;
    Ok(Key::from_bytes(bytes))
}

fn nanos(seconds: f64) -> u64 {
    let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

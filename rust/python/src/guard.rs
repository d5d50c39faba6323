//! The last resort: what becomes of a panic of the core.
//!
//! PyO3 would raise it as a `BaseException`, which passes every `except Exception` of a service and ends the
//! worker or the task. Every function that is given values of the caller's runs inside [`guarded`]; nothing that
//! a caller does is known to need it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, Location};

use pyo3::prelude::*;

use crate::errors;

thread_local! {
    /// Where the last panic of this thread was. The hook knows, and the payload does not.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the place of a panic for its error, in place of a message on stderr that may quote the caller's text.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(|info| {
        PLACE.set(info.location().map(shown));
    }));
}

/// The file from its crate on: what is before it is about the machine that built the core.
fn shown(location: &Location<'_>) -> String {
    let file = location.file().replace('\\', "/");
    let parts: Vec<&str> = file.split('/').collect();
    let file = parts[parts.len().saturating_sub(4)..].join("/");
    format!("{file}:{}", location.line())
}

/// What `body` gives; a panic in it becomes a `DspexError` with the code `core-panic`.
///
/// Nothing is left half done that anybody could see: values of the core are immutable, and a lock that was held
/// is taken over by the next who wants it.
pub(crate) fn guarded<T>(py: Python<'_>, body: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(error(py, payload)))
}

#[cold]
fn error(py: Python<'_>, payload: Box<dyn Any + Send>) -> PyErr {
    // The payload may quote what the caller gave, and its own drop is nobody's concern.
    drop(payload);
    let place = PLACE
        .take()
        .unwrap_or_else(|| "an unknown place".to_owned());
    errors::raise(
        py,
        "DspexError",
        &format!(
            "the core of dspex failed at {place}; the call has no result, everything else goes on"
        ),
        "core-panic",
        "this is a bug of dspex: report it with this place and the values of the call",
    )
}

/// Panics, so that a test can see what becomes of it.
#[pyfunction(name = "_panic")]
pub(crate) fn panic_for_test(py: Python<'_>, message: &str) -> PyResult<()> {
    guarded(py, || panic!("{message}"))
}

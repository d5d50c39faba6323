//! What is known of a rendering beside its text.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a rendering may still do, and what went wrong in it. The values that belong to the caller share it: the engine
/// asks them for their text where it passes no state along, and has nothing there to say that it must stop.
#[derive(Debug)]
pub(super) struct Rendering<E> {
    /// How many bytes the engine's filters may still make of the caller's values.
    left: AtomicUsize,
    /// Whether they wanted more.
    spent: AtomicBool,
    /// The first error of the caller's values.
    error: Mutex<Option<E>>,
}

impl<E> Rendering<E> {
    /// A rendering in which so many bytes may be made of the caller's values.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            left: AtomicUsize::new(bytes),
            spent: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// Take so many bytes; false if there are not so many left.
    pub(super) fn spend(&self, bytes: usize) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        let rest = left.checked_sub(bytes);
        self.left.store(rest.unwrap_or(0), Ordering::Relaxed);
        self.spent.fetch_or(rest.is_none(), Ordering::Relaxed);
        rest.is_some()
    }

    /// Whether more bytes were wanted than there were.
    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Keep the error with which the rendering ends.
    pub(super) fn fail(&self, error: E) {
        let mut kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(error);
    }

    /// The error, if one was kept.
    pub(super) fn take_error(&self) -> Option<E> {
        let mut kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take()
    }
}

/// How many field markers values have held: in the engine's state, as the formatter counts them.
#[derive(Debug, Default)]
pub(super) struct Injected(pub(super) usize);

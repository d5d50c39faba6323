//! What is known of the rendering that runs on this thread.
//!
//! The engine asks values for their text where it passes no state along, so this cannot be part of its state.

use std::cell::Cell;

/// What a rendering has done so far, and may still do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rendering {
    /// How many markers values have held.
    pub(super) forged: usize,
    /// How many bytes the engine's filters may still make of values that were given.
    left: usize,
    /// Whether they wanted more.
    pub(super) spent: bool,
}

thread_local! {
    static RENDERING: Cell<Rendering> = const { Cell::new(Rendering { forged: 0, left: 0, spent: false }) };
}

impl Rendering {
    /// Run `work` as a rendering of its own: a value that is asked for its text may itself render a template. So many
    /// bytes may be made of given values.
    pub(super) fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> (T, Self) {
        let own = Self {
            left: bytes,
            ..Self::default()
        };
        let around = RENDERING.replace(own);
        let made = work();
        (made, RENDERING.replace(around))
    }

    /// Count markers.
    pub(super) fn add_forged(count: usize) {
        Self::change(|this| this.forged += count);
    }

    /// Take so many bytes; false if there are not so many left.
    pub(super) fn spend(bytes: usize) -> bool {
        Self::change(|this| {
            let left = this.left.checked_sub(bytes);
            this.spent |= left.is_none();
            this.left = left.unwrap_or(0);
            left.is_some()
        })
    }

    /// Whether more bytes were wanted than there were.
    pub(super) fn is_spent() -> bool {
        RENDERING.get().spent
    }

    fn change<T>(change: impl FnOnce(&mut Self) -> T) -> T {
        let mut now = RENDERING.get();
        let result = change(&mut now);
        RENDERING.set(now);
        result
    }
}

//! What is known of a rendering beside its text.

use std::any::Any;
use std::cell::RefCell;

thread_local! {
    /// The renderings that this thread is in the middle of. The last is the one that goes on: a value of the caller's
    /// may render another template, which is over before the first goes on.
    static RUNNING: RefCell<Vec<Rendering>> = const { RefCell::new(Vec::new()) };
}

/// What a rendering may still do, and what went wrong in it.
///
/// The caller's values look for it on their thread. The engine asks them for their text where it passes no state
/// along, and has nothing there to say that it must stop. That each of them held the rendering, by a counted
/// reference, took a fortieth of the time.
#[derive(Debug)]
pub(super) struct Rendering {
    /// How many bytes the engine's filters may still make of the caller's values.
    left: usize,
    /// Whether they wanted more.
    spent: bool,
    /// The first error of the caller's values.
    error: Option<Box<dyn Any>>,
}

impl Rendering {
    /// Do the work of a rendering in which so many bytes may be made of the caller's values.
    pub(super) fn run<T>(bytes: usize, work: impl FnOnce() -> T) -> (T, Self) {
        let begun = Begun::new(Self {
            left: bytes,
            spent: false,
            error: None,
        });
        (work(), begun.end())
    }

    /// Whether more bytes were wanted than there were.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// The error with which the rendering ends, if there is one.
    pub(super) fn take_error<E: 'static>(&mut self) -> Option<E> {
        let error = self.error.take()?;
        error.downcast().ok().map(|error| *error)
    }
}

/// Take so many bytes; false if there are not so many left.
pub(super) fn spend(bytes: usize) -> bool {
    with_running(|rendering| {
        let rest = rendering.left.checked_sub(bytes);
        rendering.left = rest.unwrap_or(0);
        rendering.spent |= rest.is_none();
        rest.is_some()
    })
}

/// Whether more bytes were wanted than there were.
pub(super) fn is_spent() -> bool {
    with_running(|rendering| rendering.spent)
}

/// Keep the error with which the rendering ends. The first one counts.
pub(super) fn fail(error: impl Any) {
    with_running(|rendering| {
        rendering.error.get_or_insert_with(|| Box::new(error));
    });
}

/// Look at the rendering that goes on. The caller's values exist only while theirs does.
fn with_running<T>(look: impl FnOnce(&mut Rendering) -> T) -> T {
    RUNNING.with_borrow_mut(|running| {
        let last = running.last_mut();
        look(last.expect("a value of a rendering is used inside it"))
    })
}

/// A rendering that has begun, and ends also when something in it panics.
struct Begun;

impl Begun {
    fn new(rendering: Rendering) -> Self {
        RUNNING.with_borrow_mut(|running| running.push(rendering));
        Self
    }

    fn end(self) -> Rendering {
        std::mem::forget(self);
        RUNNING
            .with_borrow_mut(Vec::pop)
            .expect("what has begun is there to end")
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        RUNNING.with_borrow_mut(Vec::pop);
    }
}

/// How many field markers values have held: in the engine's state, as the formatter counts them.
#[derive(Debug, Default)]
pub(super) struct Injected(pub(super) usize);

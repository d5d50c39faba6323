//! A string to a compiled signature, through the cache.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use dspex_core::signature::{self as core, Cache, Instructions, Limits};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Compiled;
use super::resolve::{Binding, NameResolver};
use crate::errors;

/// Room for the signatures of a large service; the default of `Signature.cache_resize`.
const CAPACITY: usize = 1_000;

static CACHE: LazyLock<Mutex<Cache<Arc<Entry>>>> =
    LazyLock::new(|| Mutex::new(Cache::new(CAPACITY)));

static LIMITS: Mutex<Limits> = Mutex::new(Limits::DEFAULT);

/// One meaning of a text under its instructions.
struct Entry {
    /// How much of the key in the cache is the text; the instructions follow it.
    text_len: usize,
    /// Names of Rust's that `types` gave another meaning.
    shadowed: Vec<String>,
    /// Names that Python gave a meaning, and which. Kept alive here, so that an identity is never used again.
    bindings: Vec<Binding>,
    compiled: Py<Compiled>,
}

impl Entry {
    /// Whether the text means this wherever it stands.
    fn is_plain(&self) -> bool {
        self.bindings.is_empty() && self.shadowed.is_empty()
    }
}

/// The cache. Nothing under this lock runs Python code: values are dropped outside.
fn cache() -> MutexGuard<'static, Cache<Arc<Entry>>> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The signature under a key that begins with a text of this length, if it means the same wherever it stands. Nobody
/// else's code is run for it.
#[inline]
pub(super) fn known(py: Python<'_>, key: &str, text_len: usize) -> Option<Py<Compiled>> {
    cache().get(key, |entry| {
        let is_same = entry.text_len == text_len && entry.is_plain();
        is_same.then(|| entry.compiled.clone_ref(py))
    })
}

/// Reads a signature, or finds it where it was read before.
pub(super) fn read(
    py: Python<'_>,
    source: &str,
    instructions: Option<&str>,
    types: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<Compiled>> {
    let types = types.filter(|types| !types.is_empty());
    // Without instructions, a key has nothing behind the text, not even what parts the two.
    let key = match instructions {
        None => Cow::Borrowed(source),
        Some(instructions) => [source, "\0", instructions].concat().into(),
    };
    // A text alone was looked for already.
    if types.is_none()
        && instructions.is_some()
        && let Some(compiled) = known(py, &key, source.len())
    {
        return Ok(compiled);
    }
    let mut resolver = NameResolver::new(py, types)?;
    let candidates: Vec<Arc<Entry>> = cache().peek(&key).to_vec();
    for entry in candidates {
        if entry.text_len == source.len()
            && entry.shadowed == resolver.shadowed()
            && resolver.agrees(&entry.bindings)?
        {
            let same = |other: &Arc<Entry>| Arc::ptr_eq(other, &entry).then_some(());
            // Gone by now or not, this is the value; asking again counts the hit.
            let _ = cache().get(&key, same);
            return Ok(entry.compiled.clone_ref(py));
        }
    }
    let compiled = Py::new(py, compile(py, source, instructions, &mut resolver)?)?;
    if let Some((shadowed, bindings)) = resolver.into_bindings() {
        let entry = Entry {
            text_len: source.len(),
            shadowed,
            bindings,
            compiled: compiled.clone_ref(py),
        };
        let gone = cache().insert(&key, Arc::new(entry));
        drop(gone);
    }
    Ok(compiled)
}

fn compile(
    py: Python<'_>,
    source: &str,
    instructions: Option<&str>,
    resolver: &mut NameResolver<'_>,
) -> PyResult<Compiled> {
    let limits = *LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let instructions = instructions.map_or(Instructions::Default, Instructions::Given);
    let lowered = core::parse(source, &limits)
        .and_then(|ast| core::lower(source, &ast, &instructions, &limits, resolver));
    match lowered {
        Ok(core) => Ok(Compiled::new(py, core, resolver.objects())),
        Err(error) => Err(resolver
            .take_error()
            .unwrap_or_else(|| signature_error(py, source, &error))),
    }
}

/// The Python exception for a mistake in the text.
fn signature_error(py: Python<'_>, source: &str, error: &core::SignatureError) -> PyErr {
    let (code, span) = (error.code.name(), Some(error.span));
    errors::raise_at(
        py,
        "SignatureError",
        &error.message,
        code,
        &error.hint,
        source,
        span,
    )
}

/// Hits, misses, signatures held and the most that may be.
#[pyfunction(name = "signature_cache_info")]
pub(crate) fn cache_info() -> (u64, u64, usize, usize) {
    let info = cache().info();
    (info.hits, info.misses, info.len, info.capacity)
}

/// Changes how many signatures are held at most.
#[pyfunction(name = "signature_cache_resize")]
pub(crate) fn cache_resize(capacity: usize) {
    let gone = cache().resize(capacity);
    drop(gone);
}

/// Forgets the signatures that hold objects of Python's, so that the collector can see whether anyone else does.
#[pyfunction(name = "signature_cache_release")]
pub(crate) fn cache_release() {
    let gone = cache().retain(|entry| entry.is_plain());
    drop(gone);
}

/// Forgets all signatures and counts.
#[pyfunction(name = "signature_cache_clear")]
pub(crate) fn cache_clear() {
    let gone = cache().clear();
    drop(gone);
}

/// How much text a signature may be: bytes, depth, fields.
#[pyfunction(name = "signature_limits")]
pub(crate) fn limits() -> (usize, usize, usize) {
    let limits = *LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    (limits.length, limits.depth, limits.fields)
}

/// Changes how much text a signature may be.
#[pyfunction(name = "signature_set_limits")]
pub(crate) fn set_limits(length: usize, depth: usize, fields: usize) {
    let limits = Limits {
        length,
        depth,
        fields,
    };
    *LIMITS.lock().unwrap_or_else(PoisonError::into_inner) = limits;
}

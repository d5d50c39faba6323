//! `_core.Region`: pages of a file in memory, as a buffer that tells when nobody reads it any more.
//!
//! A region keeps no descriptor open, unlike Python's `mmap`, which holds a copy of its own for as long as it lives: a
//! service with many workers has hundreds of them. It can be referred to weakly, and a memoryview, an array or a table
//! that reads it holds it: what is done with the pages next waits for the end of the region, not of the mapping.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use pyo3::exceptions::{PyBufferError, PyOSError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// The pages of a file that a descriptor names, from its beginning; they stay mapped as long as one region has them.
///
/// No Rust reference to the pages is ever made: another process may write to them.
#[pyclass(frozen, weakref, module = "dspex._core")]
pub(crate) struct Region {
    pages: Arc<MmapRaw>,
    writable: bool,
}

#[pymethods]
impl Region {
    /// Maps `size` bytes of a file, which must have as many and must not lose them while a region has them: a read
    /// of a page that the file has lost ends the process.
    #[new]
    #[pyo3(signature = (descriptor, size, *, writable = false))]
    fn new(descriptor: i32, size: usize, writable: bool) -> PyResult<Self> {
        let pages = map(descriptor, size, writable).map_err(|err| {
            // Always an `OSError`: a lack of memory would be a `MemoryError`, and who falls back needs one of them.
            PyOSError::new_err((err.raw_os_error(), err.to_string()))
        })?;
        Ok(Self {
            pages: Arc::new(pages),
            writable,
        })
    }

    /// Another region of the same pages, which is read only.
    fn again(&self) -> Self {
        Self {
            pages: Arc::clone(&self.pages),
            writable: false,
        }
    }

    /// All of it as a memoryview; the region lives as long as that, its slices and what is made of them.
    fn view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyMemoryView>> {
        PyMemoryView::from(slf)
    }

    fn __len__(&self) -> usize {
        self.pages.len()
    }

    #[expect(
        unsafe_code,
        reason = "a buffer is a pointer that its reader is trusted with"
    )]
    unsafe fn __getbuffer__(
        slf: &Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        let region = slf.get();
        let start = region.pages.as_mut_ptr().cast();
        let Ok(length) = region.pages.len().try_into() else {
            return Err(PyBufferError::new_err("a region longer than a view can be"));
        };
        let readonly = c_int::from(!region.writable);
        // SAFETY: `view` is not null, and the interpreter has it filled by us alone. The pages are mapped from `start`
        // over `length` bytes as long as `region` lives; the view holds a reference to it, which this call takes and
        // `PyBuffer_Release` gives back. A reader that asks to write is refused here if the pages are read only.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length, readonly, flags) };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(slf.py()))
        }
    }
}

#[cfg(unix)]
fn map(descriptor: i32, size: usize, writable: bool) -> io::Result<MmapRaw> {
    let mut options = MmapOptions::new();
    options.len(size);
    if writable {
        options.map_raw(descriptor)
    } else {
        options.map_raw_read_only(descriptor)
    }
}

#[cfg(not(unix))]
fn map(_descriptor: i32, _size: usize, _writable: bool) -> io::Result<MmapRaw> {
    Err(io::ErrorKind::Unsupported.into())
}

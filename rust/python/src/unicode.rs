//! Which characters this interpreter's Unicode has.

use pyo3::prelude::*;

use crate::imports;

/// Lets the core ask for them.
pub(crate) fn install() {
    dspex_core::text::set_known(|c| Python::attach(|py| is_known(py, c)).unwrap_or(true));
}

fn is_known(py: Python<'_>, c: char) -> PyResult<bool> {
    let category = imports::CATEGORY.call(py, (c,))?;
    Ok(category.extract::<&str>()? != "Cn")
}

//! `dspex._core`: the core crate bound to Python. One file per area; this one is the table of contents.

mod cache;
mod dialect;
mod errors;
mod guard;
mod host;
mod http;
mod identity;
mod imports;
mod limiter;
mod markers;
mod metrics;
mod plain;
mod prompt;
mod region;
mod response;
mod router;
mod signature;
mod stream;
mod telemetry;
mod template;
mod unicode;
mod value;
mod wire;
mod words;

// PyO3 takes a module that says nothing for one that needs no GIL. Nothing here has been tested without one: where Python
// can do without, importing this module turns it on.
#[pyo3::pymodule(gil_used = true)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::cache::{ResponseCache, cache_key};
    #[pymodule_export]
    use super::dialect::{Dialect, dialects};
    #[pymodule_export]
    use super::guard::panic_for_test;
    #[pymodule_export]
    use super::http::{EventReader, HttpReader};
    #[pymodule_export]
    use super::identity::{are_same, has_parts, parts_of};
    #[pymodule_export]
    use super::limiter::Limiter;
    #[pymodule_export]
    use super::metrics::{exact_match, f1, normalize};
    #[pymodule_export]
    use super::plain::{plain_fields, plain_records};
    #[pymodule_export]
    use super::prompt::Plan;
    #[pymodule_export]
    use super::region::Region;
    #[pymodule_export]
    use super::response::{bare_texts, braced, guess_json, guess_steps, near_text, repair_json};
    #[pymodule_export]
    use super::router::{Router, Ticket};
    #[pymodule_export]
    use super::signature::{
        Compiled, Field, Signature, build, cache_clear, cache_info, cache_release, cache_resize,
        limits, set_limits, type_source,
    };
    #[pymodule_export]
    use super::stream::ReplyStream;
    #[pymodule_export]
    use super::telemetry::{Counters, StageTimes, Stages, metrics_text};
    #[pymodule_export]
    use super::template::Template;
    #[pymodule_export]
    use super::wire::{columns_of, has_large, pack_floats, rows_of, unpack_floats};

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        super::guard::install_hook();
        super::unicode::install();
        m.add("__version__", env!("CARGO_PKG_VERSION"))?;
        m.add("json_repair_rules", dspex_core::response::RULES)?;
        m.add("block_start", dspex_core::prompt::BLOCK_START)?;
        m.add("block_end", dspex_core::prompt::BLOCK_END)?;
        m.add("_debug_build", cfg!(debug_assertions))?;
        // PyO3 lists what it exports; nobody imports * from a private module, and the stub is its list.
        m.delattr("__all__")
    }
}

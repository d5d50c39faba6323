//! All that Rust asks Python for, one line each.

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A function or a class of Python's, looked up when it is first asked for, and kept.
pub(crate) struct Import {
    module: &'static str,
    name: &'static str,
    found: PyOnceLock<Py<PyAny>>,
}

impl Import {
    const fn new(module: &'static str, name: &'static str) -> Self {
        let found = PyOnceLock::new();
        Self {
            module,
            name,
            found,
        }
    }

    /// The object itself.
    ///
    /// Not [`PyOnceLock::import`], which holds the cell while it imports: of two threads one could wait for the cell
    /// and the other for the import lock of the module, and a process that forks there has a cell that never opens.
    /// Here both look, and find the same.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        if let Some(found) = self.found.get(py) {
            return Ok(found.bind(py));
        }
        let found = py.import(self.module)?.getattr(self.name)?.unbind();
        let _ = self.found.set(py, found);
        self.get(py)
    }

    /// What it gives for these arguments.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        args: impl PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.get(py)?.call1(args)
    }
}

macro_rules! imports {
    ($($id:ident = $module:literal $name:literal;)+) => {
        $(pub(crate) static $id: Import = Import::new($module, $name);)+
    };
}

imports! {
    CATEGORY = "unicodedata" "category";
    UNION_TYPE = "types" "UnionType";
    GENERIC_ALIAS = "types" "GenericAlias";
    ANY = "typing" "Any";
    UNION = "typing" "Union";
    OPTIONAL = "typing" "Optional";
    LITERAL = "typing" "Literal";
    LIST = "typing" "List";
    TUPLE = "typing" "Tuple";
    DICT = "typing" "Dict";
    SET = "typing" "Set";
    FROZEN_SET = "typing" "FrozenSet";
    GET_ORIGIN = "typing" "get_origin";
    GET_ARGS = "typing" "get_args";
    MODULES = "sys" "modules";
    PYDANTIC_FIELD = "pydantic" "Field";
    FIND_NAME = "dspex.signature._names" "find";
    SIMILAR_NAME = "dspex.signature._names" "similar";
    NAMES_OF = "dspex.signature._names" "names_of";
    WITHOUT_NOTES = "dspex.signature._names" "without_notes";
    TYPE_PROBLEM = "dspex.signature._names" "problem";
    READ_MAPPING = "dspex.signature._fields" "read_mapping";
    READ_ANNOTATED = "dspex.signature._fields" "read_annotated";
    TYPE_ADAPTER = "dspex.signature._validation" "adapter";
    DESCRIBE = "dspex._engine.custom_types" "describe";
    DESCRIBE_NOTES = "dspex._engine.custom_types" "describe_notes";
    XML_PATTERN = "dspex._engine.xml" "pattern";
    PLAIN = "dspex._engine.values" "plain";
    TEXT_OF = "dspex._engine.values" "text_of";
    QUOTED = "dspex._engine.values" "quoted";
    JSON_OF = "dspex._engine.values" "json_of";
    BLOCKS_OF = "dspex._engine.values" "blocks_of";
    TURNS_OF = "dspex._engine.values" "turns_of";
    TOOL_TURN = "dspex._engine.values" "tool_turn";
    REPORT_MARKERS = "dspex._engine.markers" "report";
}

//! Names that Rust does not know, given their meaning by Python.

use std::collections::HashMap;

use dspex_core::signature::ast::{Expr, ExprKind};
use dspex_core::signature::{
    Code, Field, FieldKind, Resolver, SignatureError, is_native, plain, suggestion, unknown,
};
use dspex_core::types::Type;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyEllipsis, PyString, PyTuple, PyType};

use super::annotation;
use super::field::FieldSpec;
use crate::errors;
use crate::imports::{
    FIND_NAME, OPTIONAL, PYDANTIC_FIELD, READ_ANNOTATED, SIMILAR_NAME, TYPE_PROBLEM, UNION,
    WITHOUT_NOTES,
};

/// A name or a dotted path, and what it stood for.
pub(super) type Binding = (Box<str>, Py<PyAny>);

/// Looks names up in `types`, then through the one callback `dspex.signature._names.find`, and remembers
/// what they stood for. The object at the end of a dotted path is what counts: a module is the same after it was
/// reloaded, and the class in it another.
pub(super) struct NameResolver<'py> {
    py: Python<'py>,
    types: Option<Bound<'py, PyDict>>,
    shadowed: Vec<String>,
    /// What each name and path was found to be here: asked once, however many meanings the text had before.
    known: HashMap<Box<str>, Option<Bound<'py, PyAny>>>,
    /// The names and paths that this text's meaning hangs on, in the order they were met.
    used: Vec<Box<str>>,
    /// Whether they say all of it.
    all_named: bool,
    objects: Vec<Py<PyAny>>,
    error: Option<PyErr>,
}

impl<'py> NameResolver<'py> {
    pub(super) fn new(py: Python<'py>, types: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        let mut shadowed = Vec::new();
        if let Some(types) = types {
            for name in types.keys() {
                let Some(name) = name
                    .cast::<PyString>()
                    .ok()
                    .and_then(|name| name.to_str().ok())
                else {
                    let message =
                        format!("types= has the key {}, which names nothing", name.repr()?);
                    let hint = "its keys are the names that stand in the text";
                    return Err(errors::raise(
                        py,
                        "SignatureError",
                        &message,
                        "bad-types",
                        hint,
                    ));
                };
                if is_native(name) {
                    shadowed.push(name.to_owned());
                }
            }
            shadowed.sort_unstable();
        }
        Ok(Self {
            py,
            types: types.cloned(),
            shadowed,
            known: HashMap::new(),
            used: Vec::new(),
            all_named: true,
            objects: Vec::new(),
            error: None,
        })
    }

    /// Names of Rust's that mean something else here, sorted.
    pub(super) fn shadowed(&self) -> &[String] {
        &self.shadowed
    }

    /// Whether all these names mean here what they meant before.
    pub(super) fn agrees(&mut self, bindings: &[Binding]) -> PyResult<bool> {
        for (path, object) in bindings {
            if !self.find(path)?.is_some_and(|found| found.is(object)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn objects(&self) -> &[Py<PyAny>] {
        &self.objects
    }

    /// The names that had another meaning than Rust's, and all that the meaning hangs on; None where it hangs on
    /// something that has no name.
    pub(super) fn into_bindings(self) -> Option<(Vec<String>, Vec<Binding>)> {
        let Self {
            shadowed,
            mut known,
            used,
            ..
        } = self;
        let binding = |path: Box<str>| {
            let object = known.remove(&path)??;
            Some((path, object.unbind()))
        };
        self.all_named
            .then(|| (shadowed, used.into_iter().filter_map(binding).collect()))
    }

    /// An exception that is not about the text and must reach the caller as it is.
    pub(super) fn take_error(&mut self) -> Option<PyErr> {
        self.error.take()
    }

    /// What a name or a dotted path stands for here.
    fn find(&mut self, path: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        let found = match path.rsplit_once('.') {
            None => self.find_name(path)?,
            Some((base, name)) => match self.find(base)? {
                None => None,
                Some(object) => attribute(&object, name)?,
            },
        };
        self.known.insert(path.into(), found.clone());
        Ok(found)
    }

    fn find_name(&self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(types) = &self.types
            && let Some(found) = types.get_item(name)?
        {
            return Ok(Some(found));
        }
        if !self.shadows(name)
            && let Some(ty) = plain(name)
        {
            return annotation::to_python(self.py, &ty, &[]).map(Some);
        }
        let found = FIND_NAME.call(self.py, (name,))?;
        Ok((!found.is(PyEllipsis::get(self.py))).then_some(found))
    }

    /// Finds a name or a path, and remembers that the meaning hangs on it.
    fn bind(&mut self, path: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = self.find(path)?;
        let is_rusts = !self.shadows(path) && plain(path).is_some();
        if !is_rusts && found.is_some() && !self.used.iter().any(|known| **known == *path) {
            self.used.push(path.into());
        }
        Ok(found)
    }

    /// The object that an expression stands for, by the rules of DSPy's own evaluation.
    fn evaluate(&mut self, expr: &Expr<'_>) -> Result<Bound<'py, PyAny>, SignatureError> {
        match &expr.kind {
            ExprKind::Name(name) => match self.bind(name) {
                Ok(Some(found)) => Ok(found),
                Ok(None) => self.not_found(expr, name),
                Err(error) => Err(self.fail(expr, error)),
            },
            ExprKind::Attribute(base, name) => {
                let found = if let Some(path) = path_of(expr) {
                    // Unknown at its head, it is the head's name that the error shows.
                    if !self.finds(base)? {
                        return self.evaluate(base);
                    }
                    self.bind(&path)
                } else {
                    self.all_named = false;
                    let object = self.evaluate(base)?;
                    attribute(&object, name)
                };
                match found {
                    Ok(Some(found)) => Ok(found),
                    Ok(None) => {
                        let message = format!("there is no '{name}' here");
                        Err(SignatureError::new(
                            Code::UnknownAttribute,
                            expr.span,
                            message,
                        ))
                    }
                    Err(error) => Err(self.fail(expr, error)),
                }
            }
            ExprKind::Subscript(base, args) => {
                let object = self.evaluate(base)?;
                let args = self.all(args)?;
                self.subscript(expr, &object, args)
            }
            ExprKind::Union(members) => {
                let members = self.all(members)?;
                let union = UNION.get(self.py);
                let union = union.map_err(|error| self.fail(expr, error))?;
                self.subscript(expr, union, members)
            }
            ExprKind::Constant(constant) => {
                let value = annotation::constant_to_python(self.py, constant, &[]);
                value.map_err(|error| self.fail(expr, error))
            }
            ExprKind::Ellipsis => Ok(PyEllipsis::get(self.py).to_owned().into_any()),
            ExprKind::Tuple(items) => {
                let items = self.all(items)?;
                let tuple = PyTuple::new(self.py, items).map(Bound::into_any);
                tuple.map_err(|error| self.fail(expr, error))
            }
            ExprKind::Field(settings) => {
                let kwargs = PyDict::new(self.py);
                for (name, value) in settings {
                    let value = self.evaluate(value)?;
                    kwargs
                        .set_item(&**name, value)
                        .map_err(|error| self.fail(expr, error))?;
                }
                let field = PYDANTIC_FIELD.get(self.py);
                field
                    .and_then(|field| field.call((), Some(&kwargs)))
                    .map_err(|error| self.refuse(expr, &error))
            }
        }
    }

    /// The error for a name that nobody knows, with one like it that somebody does.
    fn not_found<T>(&mut self, expr: &Expr<'_>, name: &str) -> Result<T, SignatureError> {
        if suggestion(name).is_some() {
            return Err(unknown(expr));
        }
        let similar = SIMILAR_NAME.call(self.py, (name, self.types.as_ref()));
        match similar.and_then(|found| found.extract::<Option<String>>()) {
            Ok(Some(meant)) => Err(unknown(expr).suggest(&meant)),
            Ok(None) => Err(unknown(expr)),
            Err(error) => Err(self.fail(expr, error)),
        }
    }

    fn finds(&mut self, base: &Expr<'_>) -> Result<bool, SignatureError> {
        let path = path_of(base).unwrap_or_default();
        self.find(&path)
            .map(|found| found.is_some())
            .map_err(|error| self.fail(base, error))
    }

    fn all(&mut self, exprs: &[Expr<'_>]) -> Result<Vec<Bound<'py, PyAny>>, SignatureError> {
        exprs.iter().map(|expr| self.evaluate(expr)).collect()
    }

    fn subscript(
        &mut self,
        expr: &Expr<'_>,
        object: &Bound<'py, PyAny>,
        args: Vec<Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>, SignatureError> {
        let item = PyTuple::new(self.py, args).and_then(|args| {
            // `Optional` alone among the aliases does not take its argument in a tuple; a class may look
            // at it, as `dspy.Code["sql"]` does.
            let bare = object.is_instance_of::<PyType>() || object.is(OPTIONAL.get(self.py)?);
            if bare && args.len() == 1 {
                object.get_item(args.get_item(0)?)
            } else {
                object.get_item(args)
            }
        });
        item.map_err(|error| {
            SignatureError::new(
                Code::TypeArguments,
                expr.span,
                error.value(self.py).to_string(),
            )
        })
    }

    /// The refusal of whoever was asked, in their words.
    fn refuse(&self, expr: &Expr<'_>, error: &PyErr) -> SignatureError {
        SignatureError::new(
            Code::Expression,
            expr.span,
            error.value(self.py).to_string(),
        )
    }

    fn fail(&mut self, expr: &Expr<'_>, error: PyErr) -> SignatureError {
        self.error = Some(error);
        unknown(expr)
    }
}

/// `a.b.c`, where an expression is nothing but names and dots.
fn path_of(expr: &Expr<'_>) -> Option<String> {
    match &expr.kind {
        ExprKind::Name(name) => Some(name.to_string()),
        ExprKind::Attribute(base, name) => Some(format!("{}.{name}", path_of(base)?)),
        _ => None,
    }
}

/// The attribute, if there is one. An object that fails to say has none; what is no mere exception goes on.
fn attribute<'py>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    match object.getattr(name) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_instance_of::<PyException>(object.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Resolver for NameResolver<'_> {
    fn shadows(&self, name: &str) -> bool {
        self.shadowed.iter().any(|shadowed| shadowed == name)
    }

    fn resolve(&mut self, expr: &Expr<'_>) -> Result<Type, SignatureError> {
        let object = self.evaluate(expr)?;
        let converted = annotation::from_python(&object, &mut self.objects);
        converted.map_err(|error| self.fail(expr, error))
    }

    fn annotated(
        &mut self,
        name: &str,
        kind: FieldKind,
        expr: &Expr<'_>,
    ) -> Result<Field, SignatureError> {
        let annotation = self.evaluate(expr)?;
        let describe = || -> PyResult<FieldSpec<'_>> {
            READ_ANNOTATED
                .call(self.py, (name, kind.name(), annotation))?
                .extract()
        };
        let lowered = describe().and_then(|spec| spec.lower(&mut self.objects));
        lowered.map_err(|error| self.refuse(expr, &error))
    }

    fn finish(&mut self, expr: &Expr<'_>, ty: Type) -> Result<Type, SignatureError> {
        let found = annotation::to_python(self.py, &ty, &self.objects).and_then(|object| {
            let stripped = WITHOUT_NOTES.call(self.py, (&object,))?;
            let ty = if stripped.is(&object) {
                ty
            } else {
                annotation::from_python(&stripped, &mut self.objects)?
            };
            let problem = TYPE_PROBLEM.call(self.py, (stripped,))?;
            Ok((ty, problem.extract::<Option<(bool, String, String)>>()?))
        });
        match found {
            Ok((ty, None)) => Ok(ty),
            Ok((_, Some((is_type, message, hint)))) => Err(if is_type {
                let error = SignatureError::new(Code::UnsupportedType, expr.span, message);
                SignatureError { hint, ..error }
            } else {
                SignatureError::new(Code::NotAType, expr.span, message)
            }),
            Err(error) => Err(self.fail(expr, error)),
        }
    }
}

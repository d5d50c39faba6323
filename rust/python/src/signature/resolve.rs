//! Names that Rust does not know, given their meaning by Python.

use dspex_core::signature::ast::{Expr, ExprKind};
use dspex_core::signature::{
    Code, Field, FieldKind, Resolver, SignatureError, is_native, plain, unknown,
};
use dspex_core::types::Type;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyEllipsis, PyTuple, PyType};

use super::annotation;
use super::field::FieldSpec;

/// A name, and what it stood for.
pub(super) type Binding = (Box<str>, Py<PyAny>);

/// Looks names up in `types`, then through the one callback `dspex.signature.names.find`, and remembers
/// what they stood for.
pub(super) struct NameResolver<'py> {
    py: Python<'py>,
    types: Option<Bound<'py, PyDict>>,
    shadowed: Vec<String>,
    bindings: Vec<Binding>,
    objects: Vec<Py<PyAny>>,
    error: Option<PyErr>,
}

impl<'py> NameResolver<'py> {
    pub(super) fn new(py: Python<'py>, types: Option<&Bound<'py, PyDict>>) -> PyResult<Self> {
        let mut shadowed = Vec::new();
        if let Some(types) = types {
            for name in types.keys() {
                let name: String = name.extract()?;
                if is_native(&name) {
                    shadowed.push(name);
                }
            }
            shadowed.sort_unstable();
        }
        Ok(Self {
            py,
            types: types.cloned(),
            shadowed,
            bindings: Vec::new(),
            objects: Vec::new(),
            error: None,
        })
    }

    /// Names of Rust's that mean something else here, sorted.
    pub(super) fn shadowed(&self) -> &[String] {
        &self.shadowed
    }

    /// Whether all these names mean here what they meant before.
    pub(super) fn agrees(&self, bindings: &[Binding]) -> PyResult<bool> {
        for (name, object) in bindings {
            if !self.find(name)?.is_some_and(|found| found.is(object)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn objects(&self) -> &[Py<PyAny>] {
        &self.objects
    }

    pub(super) fn into_bindings(self) -> (Vec<String>, Vec<Binding>) {
        (self.shadowed, self.bindings)
    }

    /// An exception that is not about the text and must reach the caller as it is.
    pub(super) fn take_error(&mut self) -> Option<PyErr> {
        self.error.take()
    }

    fn find(&self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(types) = &self.types
            && let Some(found) = types.get_item(name)?
        {
            return Ok(Some(found));
        }
        let found = self
            .py
            .import("dspex.signature.names")?
            .getattr("find")?
            .call1((name,))?;
        Ok((!found.is(PyEllipsis::get(self.py))).then_some(found))
    }

    /// Finds a name and remembers what it stood for.
    fn bind(&mut self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.shadows(name)
            && let Some(ty) = plain(name)
        {
            return annotation::to_python(self.py, &ty, &[]).map(Some);
        }
        let found = self.find(name)?;
        if let Some(object) = &found
            && !self.bindings.iter().any(|(known, _)| **known == *name)
        {
            self.bindings.push((name.into(), object.clone().unbind()));
        }
        Ok(found)
    }

    /// The object that an expression stands for, by the rules of DSPy's own evaluation.
    fn evaluate(&mut self, expr: &Expr<'_>) -> Result<Bound<'py, PyAny>, SignatureError> {
        match &expr.kind {
            ExprKind::Name(name) => match self.bind(name) {
                Ok(Some(found)) => Ok(found),
                Ok(None) => Err(unknown(expr)),
                Err(error) => Err(self.fail(expr, error)),
            },
            ExprKind::Attribute(base, name) => {
                let object = self.evaluate(base)?;
                object.getattr(&**name).map_err(|_| {
                    let message = format!("there is no '{name}' here");
                    SignatureError::new(Code::UnknownAttribute, expr.span, message)
                })
            }
            ExprKind::Subscript(base, args) => {
                let object = self.evaluate(base)?;
                let args = self.all(args)?;
                self.subscript(expr, &object, args)
            }
            ExprKind::Union(members) => {
                let members = self.all(members)?;
                let union = self
                    .py
                    .import("typing")
                    .and_then(|typing| typing.getattr("Union"));
                let union = union.map_err(|error| self.fail(expr, error))?;
                self.subscript(expr, &union, members)
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
                let call = || {
                    self.py
                        .import("pydantic")?
                        .getattr("Field")?
                        .call((), Some(&kwargs))
                };
                call().map_err(|error| self.refuse(expr, &error))
            }
        }
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
            let bare = object.is_instance_of::<PyType>()
                || object.is(&self.py.import("typing")?.getattr("Optional")?);
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
            let fields = self.py.import("dspex.signature.fields")?;
            let spec = fields.getattr("read_annotated")?;
            spec.call1((name, kind.name(), annotation))?.extract()
        };
        let lowered = describe().and_then(|spec| spec.lower(&mut self.objects));
        lowered.map_err(|error| self.refuse(expr, &error))
    }

    fn finish(&mut self, expr: &Expr<'_>, ty: Type) -> Result<Type, SignatureError> {
        let found = annotation::to_python(self.py, &ty, &self.objects).and_then(|object| {
            let names = self.py.import("dspex.signature.names")?;
            let stripped = names.getattr("without_notes")?.call1((&object,))?;
            let ty = if stripped.is(&object) {
                ty
            } else {
                annotation::from_python(&stripped, &mut self.objects)?
            };
            let problem = names.getattr("problem")?.call1((stripped,))?;
            Ok((ty, problem.extract::<Option<(bool, String)>>()?))
        });
        match found {
            Ok((ty, None)) => Ok(ty),
            Ok((_, Some((is_type, message)))) => {
                let code = if is_type {
                    Code::UnsupportedType
                } else {
                    Code::NotAType
                };
                Err(SignatureError::new(code, expr.span, message))
            }
            Err(error) => Err(self.fail(expr, error)),
        }
    }
}

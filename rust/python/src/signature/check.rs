//! Whether values are what a signature says.
//!
//! A check may run code of the caller's: validators, `__eq__`, `__repr__`. So no container is walked while that
//! could change it: of a dict it is a list of its entries as they were, which Python makes in one step.

use std::collections::HashSet;

use dspex_core::signature::FieldKind;
use dspex_core::types::{Constant, Container, Type};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple,
};

use super::Compiled;
use super::annotation;
use crate::imports::TYPE_ADAPTER;

/// A path into the values, and what is wrong there.
type Problem = (String, String);

/// What does not fit, or None. `none_passes` takes None for any type, as DSPy does; `constraints` are
/// checked by pydantic.
pub(super) fn check(
    compiled: &Compiled,
    outputs: bool,
    values: &Bound<'_, PyDict>,
    none_passes: bool,
    constraints: bool,
) -> PyResult<Option<Vec<Problem>>> {
    let py = values.py();
    let kind = if outputs {
        FieldKind::Output
    } else {
        FieldKind::Input
    };
    let mut problems = Vec::new();
    let mut present = 0;
    for (index, field) in compiled.core.fields().iter().enumerate() {
        if field.kind != kind {
            continue;
        }
        let Some(value) = values.get_item(&compiled.names(py)[index])? else {
            if !field.is_optional() {
                problems.push((field.name.to_string(), "missing".into()));
            }
            continue;
        };
        present += 1;
        // DSPy never checks an input whose type was left out.
        if (none_passes && value.is_none()) || (!outputs && !field.typed) {
            continue;
        }
        let checker = Checker {
            py,
            compiled,
            index,
        };
        if field.external.is_some() && constraints {
            checker.whole_field(&value, &mut problems)?;
        } else if !checker.fits(&field.ty, &value)? {
            checker.explain(&field.ty, &value, &field.name, &mut problems)?;
        }
    }
    if present < values.len() {
        let fields = compiled.core.fields().iter();
        let fields: HashSet<&str> = fields
            .filter(|field| field.kind == kind)
            .map(|field| &*field.name)
            .collect();
        for name in values.keys() {
            let known = name
                .cast::<PyString>()
                .ok()
                .and_then(|name| name.to_str().ok());
            if known.is_none_or(|name| !fields.contains(name)) {
                problems.push((
                    name.str()?.to_string(),
                    format!("not an {} of this signature", kind.name()),
                ));
            }
        }
    }
    Ok((!problems.is_empty()).then_some(problems))
}

struct Checker<'a, 'py> {
    py: Python<'py>,
    compiled: &'a Compiled,
    index: usize,
}

impl<'py> Checker<'_, 'py> {
    /// The quick answer, for the common case that all is well.
    fn fits(&self, ty: &Type, value: &Bound<'py, PyAny>) -> PyResult<bool> {
        Ok(match ty {
            Type::Any => true,
            Type::Str => value.is_instance_of::<PyString>(),
            Type::Int => is_int(value),
            Type::Float => value.is_instance_of::<PyFloat>() || is_int(value),
            Type::Bool => value.is_instance_of::<PyBool>(),
            Type::Complex => {
                value.is_instance_of::<PyComplex>()
                    || value.is_instance_of::<PyFloat>()
                    || is_int(value)
            }
            Type::Bytes => value.is_instance_of::<PyBytes>(),
            Type::None | Type::NoneValue => value.is_none(),
            Type::Bare(container, _) => is_container(*container, value),
            Type::List(item, _) => value.is_instance_of::<PyList>() && self.all_fit(item, value)?,
            Type::Set(item, _) => value.is_instance_of::<PySet>() && self.all_fit(item, value)?,
            Type::FrozenSet(item, _) => {
                value.is_instance_of::<PyFrozenSet>() && self.all_fit(item, value)?
            }
            Type::VariadicTuple(item, _) => {
                value.is_instance_of::<PyTuple>() && self.all_fit(item, value)?
            }
            Type::Tuple(types, _) => match value.cast::<PyTuple>() {
                Ok(values) => self.tuple_fits(types, values)?,
                Err(_) => false,
            },
            Type::Dict(entry, _) => match value.cast::<PyDict>() {
                Ok(dict) => self.dict_fits(entry, dict)?,
                Err(_) => false,
            },
            Type::Union { members, .. } => {
                for member in members {
                    if self.fits(member, value)? {
                        return Ok(true);
                    }
                }
                false
            }
            Type::Literal(choices) => {
                for choice in choices {
                    if self.is_choice(choice, value)? {
                        return Ok(true);
                    }
                }
                false
            }
            Type::External(external) => {
                let object = &self.compiled.objects[external.index as usize];
                value.get_type().is(object) || self.ask_pydantic(external.index, value)?.is_none()
            }
        })
    }

    fn all_fit(&self, item: &Type, values: &Bound<'py, PyAny>) -> PyResult<bool> {
        // A list may shrink meanwhile, and this iterator knows; what is added is not looked at.
        if let Ok(list) = values.cast::<PyList>() {
            for value in list {
                if !self.fits(item, &value)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        for value in items(values)?.try_iter()? {
            if !self.fits(item, &value?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn dict_fits(&self, [key, item]: &[Type; 2], dict: &Bound<'py, PyDict>) -> PyResult<bool> {
        let fits = |(k, v): Entry<'py>| Ok(self.fits(key, &k)? && self.fits(item, &v)?);
        if runs_no_code(key) && runs_no_code(item) {
            all(dict.iter(), fits)
        } else {
            all(entries(dict)?.into_iter(), fits)
        }
    }

    fn tuple_fits(&self, types: &[Type], values: &Bound<'py, PyTuple>) -> PyResult<bool> {
        if values.len() != types.len() {
            return Ok(false);
        }
        for (ty, value) in types.iter().zip(values) {
            if !self.fits(ty, &value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Equal and of the same type: `True` is not a choice where `1` is one.
    fn is_choice(&self, choice: &Constant, value: &Bound<'py, PyAny>) -> PyResult<bool> {
        if let (Constant::Str(text), Ok(value)) = (choice, value.cast::<PyString>()) {
            return Ok(value.to_str().is_ok_and(|value| *value == **text));
        }
        let choice = annotation::constant_to_python(self.py, choice, &self.compiled.objects)?;
        Ok(value.get_type().is(choice.get_type()) && value.eq(choice)?)
    }

    /// The slow answer: where, and what was wanted.
    fn explain(
        &self,
        ty: &Type,
        value: &Bound<'py, PyAny>,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> PyResult<()> {
        if self.fits(ty, value)? {
            return Ok(());
        }
        match ty {
            Type::List(item, _)
            | Type::Set(item, _)
            | Type::FrozenSet(item, _)
            | Type::VariadicTuple(item, _)
                if is_of_class(ty, value) =>
            {
                return self.explain_items(item, value, path, problems);
            }
            Type::Dict(entry, _) if is_of_class(ty, value) => {
                for (key, item) in entries(value.cast()?)? {
                    let at = format!("{path}[{}]", key.repr()?);
                    self.explain(&entry[0], &key, &format!("{at} (key)"), problems)?;
                    self.explain(&entry[1], &item, &at, problems)?;
                }
                return Ok(());
            }
            Type::Tuple(types, _) if is_of_class(ty, value) => {
                let values = value.cast::<PyTuple>()?;
                if values.len() == types.len() {
                    for (i, (ty, value)) in types.iter().zip(values).enumerate() {
                        self.explain(ty, &value, &format!("{path}[{i}]"), problems)?;
                    }
                    return Ok(());
                }
                let message = format!("expected {} items, got {}", types.len(), values.len());
                problems.push((path.into(), message));
                return Ok(());
            }
            Type::External(external) => {
                if let Some(found) = self.ask_pydantic(external.index, value)? {
                    problems.extend(
                        found
                            .into_iter()
                            .map(|(at, message)| (format!("{path}{at}"), message)),
                    );
                }
                return Ok(());
            }
            Type::Literal(choices) => {
                let mut message = String::from("expected one of ");
                for (i, choice) in choices.iter().enumerate() {
                    message.push_str(if i > 0 { ", " } else { "" });
                    choice.write_source(&mut message);
                }
                problems.push((path.into(), message));
                return Ok(());
            }
            _ => {}
        }
        let message = format!(
            "expected {}, got {}",
            ty.display_name(),
            value.get_type().name()?
        );
        problems.push((path.into(), message));
        Ok(())
    }

    fn explain_items(
        &self,
        item: &Type,
        values: &Bound<'py, PyAny>,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> PyResult<()> {
        for (i, value) in items(values)?.try_iter()?.enumerate() {
            self.explain(item, &value?, &format!("{path}[{i}]"), problems)?;
        }
        Ok(())
    }

    fn ask_pydantic(
        &self,
        object: u32,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Vec<Problem>>> {
        let py = self.py;
        let adapter = self.compiled.adapter(py, object as usize, || {
            let annotation = self.compiled.objects[object as usize].bind(py);
            TYPE_ADAPTER.call(py, (annotation, py.None()))
        })?;
        adapter.call1((value,))?.extract()
    }

    /// Type and constraints of a field together.
    fn whole_field(&self, value: &Bound<'py, PyAny>, problems: &mut Vec<Problem>) -> PyResult<()> {
        let py = self.py;
        let field = &self.compiled.core.fields()[self.index];
        if !self.fits(&field.ty, value)? {
            return self.explain(&field.ty, value, &field.name, problems);
        }
        let slot = self.compiled.objects.len() + self.index;
        let adapter = self.compiled.adapter(py, slot, || {
            let annotation = self.compiled.annotation(py, self.index)?;
            TYPE_ADAPTER.call(py, (annotation, self.compiled.details(py, self.index)))
        })?;
        let found: Option<Vec<Problem>> = adapter.call1((value,))?.extract()?;
        let found = found.unwrap_or_default();
        problems.extend(
            found
                .into_iter()
                .map(|(at, message)| (format!("{}{at}", field.name), message)),
        );
        Ok(())
    }
}

/// Whether a value can be checked against a type without any code of the caller's being run.
fn runs_no_code(ty: &Type) -> bool {
    match ty {
        Type::External(_) => false,
        Type::Literal(choices) => choices
            .iter()
            .all(|choice| matches!(choice, Constant::Str(_))),
        _ => ty.parts().iter().all(runs_no_code),
    }
}

/// A key and a value.
type Entry<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

/// The entries of a dict as they are now.
fn entries<'py>(dict: &Bound<'py, PyDict>) -> PyResult<Vec<Entry<'py>>> {
    dict.items().iter().map(|entry| entry.extract()).collect()
}

fn all<T>(items: impl Iterator<Item = T>, fits: impl Fn(T) -> PyResult<bool>) -> PyResult<bool> {
    for item in items {
        if !fits(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The items of a list, a tuple or a set as they are now, in an object that nobody else has. It asks the container
/// itself, not a subclass that says something else of what is in it.
fn items<'py>(values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = values.py();
    if let Ok(list) = values.cast::<PyList>() {
        Ok(list.to_tuple().into_any())
    } else if let Ok(tuple) = values.cast::<PyTuple>() {
        Ok(PyTuple::new(py, tuple)?.into_any())
    } else {
        py.get_type::<PyFrozenSet>().call1((values,))
    }
}

/// An integer, and not a bool, which Python takes for one.
fn is_int(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>()
}

/// Whether a value is of the class that a container type is of.
fn is_of_class(ty: &Type, value: &Bound<'_, PyAny>) -> bool {
    ty.container()
        .is_some_and(|(container, _)| is_container(container, value))
}

fn is_container(container: Container, value: &Bound<'_, PyAny>) -> bool {
    match container {
        Container::List => value.is_instance_of::<PyList>(),
        Container::Tuple => value.is_instance_of::<PyTuple>(),
        Container::Dict => value.is_instance_of::<PyDict>(),
        Container::Set => value.is_instance_of::<PySet>(),
        Container::FrozenSet => value.is_instance_of::<PyFrozenSet>(),
    }
}

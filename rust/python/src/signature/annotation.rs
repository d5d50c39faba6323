//! Types to annotations and back.

use dspex_core::types::{Constant, Container, External, Real, Spelling, Type, UnionSpelling};
use pyo3::exceptions::PyRecursionError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyComplex, PyDict, PyEllipsis, PyFloat, PyFrozenSet, PyInt, PyList, PySet,
    PyString, PyTuple,
};

use super::compiled::intern;
use crate::errors;
use crate::guard::guarded;
use crate::imports::{
    ANY, DICT, FROZEN_SET, GENERIC_ALIAS, GET_ARGS, GET_ORIGIN, LIST, LITERAL, NAMES_OF, SET,
    TUPLE, UNION, UNION_TYPE,
};

fn container_type(
    py: Python<'_>,
    container: Container,
    spelling: Spelling,
) -> PyResult<Bound<'_, PyAny>> {
    let alias = match (container, spelling) {
        (Container::List, Spelling::Builtin) => return Ok(py.get_type::<PyList>().into_any()),
        (Container::Tuple, Spelling::Builtin) => return Ok(py.get_type::<PyTuple>().into_any()),
        (Container::Dict, Spelling::Builtin) => return Ok(py.get_type::<PyDict>().into_any()),
        (Container::Set, Spelling::Builtin) => return Ok(py.get_type::<PySet>().into_any()),
        (Container::FrozenSet, Spelling::Builtin) => {
            return Ok(py.get_type::<PyFrozenSet>().into_any());
        }
        (Container::List, Spelling::Typing) => &LIST,
        (Container::Tuple, Spelling::Typing) => &TUPLE,
        (Container::Dict, Spelling::Typing) => &DICT,
        (Container::Set, Spelling::Typing) => &SET,
        (Container::FrozenSet, Spelling::Typing) => &FROZEN_SET,
    };
    alias.get(py).cloned()
}

/// The annotation that a type stands for.
pub(super) fn to_python<'py>(
    py: Python<'py>,
    ty: &Type,
    objects: &[Py<PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let all = |types: &[Type]| -> PyResult<Vec<Bound<'py, PyAny>>> {
        types.iter().map(|ty| to_python(py, ty, objects)).collect()
    };
    let generic = |container: Container, spelling: &Spelling| {
        container_type(py, container, *spelling)?.get_item(PyTuple::new(py, all(ty.parts())?)?)
    };
    Ok(match ty {
        Type::Str => py.get_type::<PyString>().into_any(),
        Type::Int => py.get_type::<PyInt>().into_any(),
        Type::Float => py.get_type::<PyFloat>().into_any(),
        Type::Bool => py.get_type::<PyBool>().into_any(),
        Type::Complex => py.get_type::<PyComplex>().into_any(),
        Type::Bytes => py.get_type::<PyBytes>().into_any(),
        Type::None => py.None().bind(py).get_type().into_any(),
        Type::NoneValue => py.None().into_bound(py),
        Type::Any => ANY.get(py)?.clone(),
        Type::Bare(container, spelling) => container_type(py, *container, *spelling)?,
        Type::List(_, spelling) => generic(Container::List, spelling)?,
        Type::Set(_, spelling) => generic(Container::Set, spelling)?,
        Type::FrozenSet(_, spelling) => generic(Container::FrozenSet, spelling)?,
        Type::Dict(_, spelling) => generic(Container::Dict, spelling)?,
        Type::Tuple(_, spelling) => generic(Container::Tuple, spelling)?,
        Type::VariadicTuple(item, spelling) => container_type(py, Container::Tuple, *spelling)?
            .get_item((to_python(py, item, objects)?, PyEllipsis::get(py)))?,
        Type::Union {
            members,
            spelling: UnionSpelling::Typing,
        } => UNION.get(py)?.get_item(PyTuple::new(py, all(members)?)?)?,
        Type::Union {
            members,
            spelling: UnionSpelling::Pipe,
        } => {
            let mut members = all(members)?.into_iter();
            let first = members.next().unwrap_or_else(|| py.None().into_bound(py));
            members.try_fold(first, |left, right| left.bitor(right))?
        }
        Type::Literal(values) => {
            let values = values
                .iter()
                .map(|value| constant_to_python(py, value, objects))
                .collect::<PyResult<Vec<_>>>()?;
            LITERAL.get(py)?.get_item(PyTuple::new(py, values)?)?
        }
        Type::External(external) => objects[external.index as usize].bind(py).clone(),
    })
}

pub(super) fn constant_to_python<'py>(
    py: Python<'py>,
    value: &Constant,
    objects: &[Py<PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Constant::None => py.None().into_bound(py),
        Constant::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Constant::Int(digits) => py.get_type::<PyInt>().call1((&**digits,))?,
        Constant::Float(value) => PyFloat::new(py, value.0).into_any(),
        Constant::Imaginary(value) => PyComplex::from_doubles(py, 0.0, value.0).into_any(),
        Constant::Str(text) => PyString::new(py, text).into_any(),
        Constant::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Constant::External(external) => objects[external.index as usize].bind(py).clone(),
    })
}

/// Levels of types within types. More can only be made by a program, and would end in an overflow of the stack.
const MAX_DEPTH: usize = 256;

/// The type that an annotation stands for; what Rust does not know joins `objects`.
pub(super) fn from_python(
    annotation: &Bound<'_, PyAny>,
    objects: &mut Vec<Py<PyAny>>,
) -> PyResult<Type> {
    from_part(annotation, objects, MAX_DEPTH)
}

/// Like [`from_python`], for a part that may have so many `levels` more.
fn from_part(
    annotation: &Bound<'_, PyAny>,
    objects: &mut Vec<Py<PyAny>>,
    levels: usize,
) -> PyResult<Type> {
    let py = annotation.py();
    let Some(levels) = levels.checked_sub(1) else {
        return Err(too_deep(py));
    };
    if annotation.is_none() {
        return Ok(Type::NoneValue);
    }
    if let Some(ty) = scalar(annotation) {
        return Ok(ty);
    }
    if annotation.is(ANY.get(py)?) {
        return Ok(Type::Any);
    }
    for container in Container::ALL {
        for spelling in [Spelling::Builtin, Spelling::Typing] {
            if annotation.is(&container_type(py, container, spelling)?) {
                return Ok(Type::Bare(container, spelling));
            }
        }
    }
    let origin = GET_ORIGIN.call(py, (annotation,))?;
    let args: Vec<Bound<'_, PyAny>> = GET_ARGS.call(py, (annotation,))?.extract()?;
    let union = UNION.get(py)?;
    if origin.is(union) || origin.is(UNION_TYPE.get(py)?) {
        let members = args
            .iter()
            .map(|arg| from_part(arg, objects, levels))
            .collect::<PyResult<_>>()?;
        let spelling = if origin.is(union) {
            UnionSpelling::Typing
        } else {
            UnionSpelling::Pipe
        };
        return Ok(Type::Union { members, spelling });
    }
    if origin.is(LITERAL.get(py)?) {
        let values = args
            .iter()
            .map(|arg| constant_from_python(arg, objects))
            .collect::<PyResult<_>>()?;
        return Ok(Type::Literal(values));
    }
    for container in Container::ALL {
        if origin.is(&container_type(py, container, Spelling::Builtin)?)
            && let Some(ty) = generic(annotation, container, &args, objects, levels)?
        {
            return Ok(ty);
        }
    }
    external(annotation, objects).map(Type::External)
}

fn scalar(annotation: &Bound<'_, PyAny>) -> Option<Type> {
    let py = annotation.py();
    let known = [
        (py.get_type::<PyString>(), Type::Str),
        (py.get_type::<PyInt>(), Type::Int),
        (py.get_type::<PyFloat>(), Type::Float),
        (py.get_type::<PyBool>(), Type::Bool),
        (py.get_type::<PyComplex>(), Type::Complex),
        (py.get_type::<PyBytes>(), Type::Bytes),
        (py.None().bind(py).get_type(), Type::None),
    ];
    known
        .into_iter()
        .find_map(|(class, ty)| annotation.is(&class).then_some(ty))
}

/// A container with arguments, or None where their number is none that Rust knows.
fn generic(
    annotation: &Bound<'_, PyAny>,
    container: Container,
    args: &[Bound<'_, PyAny>],
    objects: &mut Vec<Py<PyAny>>,
    levels: usize,
) -> PyResult<Option<Type>> {
    let py = annotation.py();
    let builtin = annotation.get_type().is(GENERIC_ALIAS.get(py)?);
    let spelling = if builtin {
        Spelling::Builtin
    } else {
        Spelling::Typing
    };
    if let (Container::Tuple, [item, rest]) = (container, args)
        && rest.is(PyEllipsis::get(py))
    {
        let item = from_part(item, objects, levels)?;
        return Ok(Some(Type::VariadicTuple(Box::new(item), spelling)));
    }
    let read = |arg: &Bound<'_, PyAny>| from_part(arg, objects, levels);
    Type::generic(container, spelling, args, read)
}

fn constant_from_python(
    value: &Bound<'_, PyAny>,
    objects: &mut Vec<Py<PyAny>>,
) -> PyResult<Constant> {
    // Exact types only: a member of an IntEnum is an int, but not one that Rust knows.
    Ok(if value.is_none() {
        Constant::None
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        Constant::Bool(value.is_true())
    } else if value.cast_exact::<PyInt>().is_ok() {
        Constant::Int(value.str()?.to_str()?.into())
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        match text.to_str() {
            Ok(text) => Constant::Str(text.into()),
            Err(_) => Constant::External(external(value, objects)?),
        }
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        Constant::Bytes(bytes.as_bytes().into())
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        Constant::Float(Real(value.value()))
    } else {
        Constant::External(external(value, objects)?)
    })
}

fn too_deep(py: Python<'_>) -> PyErr {
    errors::raise(
        py,
        "SignatureError",
        "a type is nested too deep",
        "too-deep",
        "give the parts in the middle a class of their own",
    )
}

/// Keeps the object, so that its identity means something as long as the signature lives.
fn external(object: &Bound<'_, PyAny>, objects: &mut Vec<Py<PyAny>>) -> PyResult<External> {
    let found = NAMES_OF.call(object.py(), (object,));
    let (name, pipe_name, source): (String, Option<String>, String) = found
        .map_err(|error| {
            let py = object.py();
            if error.is_instance_of::<PyRecursionError>(py) {
                too_deep(py)
            } else {
                error
            }
        })?
        .extract()?;
    Ok(External {
        index: intern(objects, object),
        name: name.into(),
        pipe_name: pipe_name.map(Into::into),
        source: source.into(),
    })
}

/// An annotation as the text of a signature writes it.
#[pyfunction]
pub(crate) fn type_source(annotation: &Bound<'_, PyAny>) -> PyResult<String> {
    guarded(annotation.py(), || {
        let mut out = String::new();
        from_python(annotation, &mut Vec::new())?.write_source(&mut out);
        Ok(out)
    })
}

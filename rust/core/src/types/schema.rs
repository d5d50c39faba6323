//! The JSON schema that pydantic makes of a type, as text, with DSPy's order of keys.
//!
//! DSPy sorts every mapping's keys, `type` first. With so few keys in play each shape below is written
//! in that order from the start.

use std::collections::HashSet;

use super::{Constant, Container, Type};

impl Type {
    /// The JSON schema as DSPy prints it, or None where only pydantic can make it.
    #[must_use]
    pub fn json_schema(&self) -> Option<String> {
        match self {
            Self::Str | Self::Complex => Some(r#"{"type": "string"}"#.into()),
            Self::Int => Some(r#"{"type": "integer"}"#.into()),
            Self::Float => Some(r#"{"type": "number"}"#.into()),
            Self::Bool => Some(r#"{"type": "boolean"}"#.into()),
            Self::Bytes => Some(r#"{"type": "string", "format": "binary"}"#.into()),
            Self::None | Self::NoneValue => Some(r#"{"type": "null"}"#.into()),
            Self::Any => Some("{}".into()),
            Self::Bare(Container::Dict, _) => {
                Some(r#"{"type": "object", "additionalProperties": true}"#.into())
            }
            Self::Bare(Container::Set | Container::FrozenSet, _) => Some(set("{}")),
            Self::Bare(Container::List | Container::Tuple, _) => Some(list("{}")),
            Self::List(item, _) | Self::VariadicTuple(item, _) => Some(list(&item.json_schema()?)),
            Self::Set(item, _) | Self::FrozenSet(item, _) => Some(set(&item.json_schema()?)),
            Self::Tuple(types, _) => fixed_tuple(types),
            Self::Dict(entry, _) => dict(entry),
            Self::Union { members, .. } => union(members),
            Self::Literal(values) => literal(values, true),
            Self::External(_) => None,
        }
    }
}

fn list(items: &str) -> String {
    format!(r#"{{"type": "array", "items": {items}}}"#)
}

fn set(items: &str) -> String {
    format!(r#"{{"type": "array", "items": {items}, "uniqueItems": true}}"#)
}

fn fixed_tuple(types: &[Type]) -> Option<String> {
    let n = types.len();
    let mut out = format!(r#"{{"type": "array", "maxItems": {n}, "minItems": {n}"#);
    if n > 0 {
        out.push_str(r#", "prefixItems": ["#);
        for (i, ty) in types.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push_str(&ty.json_schema()?);
        }
        out.push(']');
    }
    out.push('}');
    Some(out)
}

fn dict([key, value]: &[Type; 2]) -> Option<String> {
    let values = match value.json_schema()? {
        any if any == "{}" => "true".into(),
        schema => schema,
    };
    // pydantic tells about keys only where they are strings of a special kind.
    let names = match key {
        Type::Bytes => Some(r#"{"format": "binary"}"#.into()),
        Type::Literal(choices) if choices.iter().all(is_text) => Some(literal(choices, false)?),
        _ if key.is_native() => None,
        _ => return None,
    };
    let names = names.map_or_else(String::new, |names| {
        format!(r#", "propertyNames": {names}"#)
    });
    Some(format!(
        r#"{{"type": "object", "additionalProperties": {values}{names}}}"#
    ))
}

fn union(members: &[Type]) -> Option<String> {
    let mut schemas: Vec<String> = Vec::with_capacity(members.len());
    let mut seen: HashSet<String> = HashSet::with_capacity(members.len());
    let mut null = false;
    for member in members {
        if *member == Type::None {
            null = true;
            continue;
        }
        let schema = member.json_schema()?;
        if seen.insert(schema.clone()) {
            schemas.push(schema);
        }
    }
    if null {
        // pydantic takes `None` out of a union and puts it behind all the others.
        schemas.push(r#"{"type": "null"}"#.into());
    }
    if schemas.len() == 1 {
        return schemas.pop();
    }
    Some(format!(r#"{{"anyOf": [{}]}}"#, schemas.join(", ")))
}

fn literal(values: &[Constant], with_type: bool) -> Option<String> {
    let mut out = String::from("{");
    if with_type && let Some(name) = shared_type(values) {
        out.push_str(r#""type": ""#);
        out.push_str(name);
        out.push_str(r#"", "#);
    }
    if let [only] = values {
        out.push_str(r#""const": "#);
        if !only.write_json(&mut out) {
            return None;
        }
    } else {
        out.push_str(r#""enum": ["#);
        for (i, value) in values.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            if !value.write_json(&mut out) {
                return None;
            }
        }
        out.push(']');
    }
    out.push('}');
    Some(out)
}

/// The JSON type that all values have, if they have one.
fn shared_type(values: &[Constant]) -> Option<&'static str> {
    let (first, rest) = values.split_first()?;
    let name = json_type(first)?;
    rest.iter()
        .all(|value| json_type(value) == Some(name))
        .then_some(name)
}

fn json_type(value: &Constant) -> Option<&'static str> {
    match value {
        Constant::None => Some("null"),
        Constant::Bool(_) => Some("boolean"),
        Constant::Int(_) => Some("integer"),
        Constant::Float(_) => Some("number"),
        Constant::Str(_) | Constant::Bytes(_) | Constant::Imaginary(_) => Some("string"),
        Constant::External(_) => None,
    }
}

fn is_text(value: &Constant) -> bool {
    json_type(value) == Some("string")
}

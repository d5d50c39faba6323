//! What somebody meant who wrote the name of a type that nobody knows.

/// What other languages and schemas call Python's types.
const ALIASES: &[(&str, &str)] = &[
    ("string", "str"),
    ("text", "str"),
    ("char", "str"),
    ("integer", "int"),
    ("long", "int"),
    ("number", "float"),
    ("double", "float"),
    ("real", "float"),
    ("boolean", "bool"),
    ("binary", "bytes"),
    ("blob", "bytes"),
    ("array", "list"),
    ("vector", "list"),
    ("dictionary", "dict"),
    ("mapping", "dict"),
    ("map", "dict"),
    ("hash", "dict"),
    ("object", "dict"),
    ("json", "dict"),
    ("none", "None"),
    ("null", "None"),
    ("nil", "None"),
    ("void", "None"),
    ("date", "datetime.date"),
    ("time", "datetime.time"),
    ("timestamp", "datetime.datetime"),
    ("uuid", "uuid.UUID"),
    ("decimal", "decimal.Decimal"),
    ("path", "pathlib.Path"),
];

/// The names that Rust knows and people type.
const KNOWN: &[&str] = &[
    "str",
    "int",
    "float",
    "bool",
    "complex",
    "bytes",
    "list",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "Any",
    "Optional",
    "Union",
    "Literal",
    "Annotated",
    "List",
    "Tuple",
    "Dict",
    "Set",
    "FrozenSet",
];

/// Longer names are nobody's slip of the finger.
const LONGEST: usize = 16;

/// The type that was meant: another word for it, the same in other letters, or one slip away.
///
/// ```
/// use dspex_core::signature::suggestion;
///
/// assert_eq!(suggestion("string"), Some("str"));
/// assert_eq!(suggestion("lst"), Some("list"));
/// assert_eq!(suggestion("Person"), None);
/// ```
#[must_use]
pub fn suggestion(name: &str) -> Option<&'static str> {
    if !name.is_ascii() || name.len() > LONGEST {
        return None;
    }
    let alias = |name: &str| {
        let found = ALIASES.iter().find(|(word, _)| *word == name);
        found.map(|(_, meant)| *meant)
    };
    let same = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(name));
    let lower = name.to_ascii_lowercase();
    alias(&lower)
        .or(same.copied())
        // A class of the caller's, which is what a capital letter says, is not to be taken for a builtin.
        .or_else(|| KNOWN.iter().copied().find(|known| one_slip(name, known)))
        .or_else(|| {
            let near = ALIASES.iter().find(|(word, _)| one_slip(name, word));
            near.map(|(_, meant)| *meant)
        })
}

/// Whether one letter added, left out, changed, or two neighbours swapped make the one of the other. Short words
/// are too near to each other.
fn one_slip(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().min(b.len()) < 3 || a.len().abs_diff(b.len()) > 1 || a[0] != b[0] {
        return false;
    }
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match (a, b) {
        ([a, a_rest @ ..], [b, b_rest @ ..]) if a_rest.len() == b_rest.len() => {
            a_rest == b_rest
                || matches!((a_rest, b_rest), ([x, xs @ ..], [y, ys @ ..]) if x == b && y == a && xs == ys)
        }
        ([_, rest @ ..], b) if rest.len() == b.len() => rest == b,
        (a, [_, rest @ ..]) => a == rest,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::suggestion;

    #[test]
    fn what_was_meant_is_found() {
        for (name, meant) in [
            ("string", "str"),
            ("String", "str"),
            ("sting", "str"),
            ("STR", "str"),
            ("lst", "list"),
            ("lits", "list"),
            ("lis", "list"),
            ("listt", "list"),
            ("integer", "int"),
            ("boolean", "bool"),
            ("boolen", "bool"),
            ("array", "list"),
            ("dictionary", "dict"),
            ("any", "Any"),
            ("optional", "Optional"),
            ("Optionl", "Optional"),
            ("null", "None"),
            ("date", "datetime.date"),
        ] {
            assert_eq!(suggestion(name), Some(meant), "{name}");
        }
    }

    #[test]
    fn a_class_of_the_callers_is_not_taken_for_a_slip() {
        for name in [
            "Person", "Answer", "Tone", "Page", "st", "", "é", "Node", "Doc",
        ] {
            assert_eq!(suggestion(name), None, "{name}");
        }
    }
}

//! A reply in the layout of XML: each value between tags of its field's name.
//!
//! DSPy parses with expat and lets pydantic convert what stands between the tags. Here a reply is read that is
//! XML of the plain kind, with values that need no judgement; of anything else the host is the judge.

use std::borrow::Cow;
use std::collections::HashMap;

use roxmltree::{Document, Node};

use super::value::{Reading, Value, read_text};
use crate::dialect::Dialect;
use crate::signature::Field;
use crate::text::strip;
use crate::types::{Constant, Container, Type};

const ROOT: &str = "dspy_root";

/// Deeper elements than this are left to the host, which has a limit of its own: values are read by recursion.
const MAX_DEPTH: usize = 64;

/// The values of `outputs`, None for those that the reply lacks; None for a reply that only the host can read.
#[must_use]
pub fn read_xml(
    reply: &str,
    outputs: &[Field],
    dialect: &Dialect,
) -> Option<Vec<Option<Reading<'static>>>> {
    // Comments, declarations, prefixes that are empty and odd characters are where parsers differ.
    const DOUBTFUL: [&str; 6] = ["<!", "<?", "]]>", "<:", "</:", ":key"];
    let odd = |b: u8| b < b' ' && b != b'\n' && b != b'\t';
    if DOUBTFUL.iter().any(|part| reply.contains(part)) || reply.bytes().any(odd) {
        return None;
    }
    // Each attribute is compared with all others of its element, and more than a key makes an element odd anyway.
    let has_attributes = |tag: &str| {
        let inside = tag.split('>').next().unwrap_or_default();
        inside.matches('=').nth(1).is_some()
    };
    if reply.contains('=') && reply.split('<').skip(1).any(has_attributes) {
        return None;
    }
    let text = format!("<{ROOT}>{reply}</{ROOT}>");
    let document = Document::parse(&text).ok()?;
    let root = document.root_element();
    let mut values: Vec<Option<Reading<'static>>> = vec![None; outputs.len()];
    let mut names: Vec<Option<Vec<Node<'_, '_>>>> = vec![None; outputs.len()];
    for child in root.children().filter(Node::is_element) {
        let name = name_of(child)?;
        if let Some(at) = outputs.iter().position(|field| *field.name == *name) {
            names[at].get_or_insert_default().push(child);
        }
    }
    // Every element counts, also those inside a field that is passed over: a prefix or an attribute anywhere
    // is the host's to judge.
    let is_odd =
        |node: Node<'_, '_>| name_of(node).is_none() || node.ancestors().nth(MAX_DEPTH).is_some();
    if root
        .descendants()
        .any(|node| node.is_element() && is_odd(node))
    {
        return None;
    }
    for ((field, elements), value) in outputs.iter().zip(names).zip(&mut values) {
        if let Some(elements) = elements {
            *value = Some(read_field(&elements, &field.ty, dialect)?);
        }
    }
    Some(values)
}

/// The name of an element: its tag, or the key of an entry. None where it has anything else about it.
fn name_of<'a>(element: Node<'a, '_>) -> Option<&'a str> {
    if element.tag_name().namespace().is_some() || element.namespaces().len() > 0 {
        return None;
    }
    let tag = element.tag_name().name();
    match element.attributes().len() {
        0 => Some(tag),
        1 if tag == "entry" => element.attribute("key"),
        _ => None,
    }
}

/// The value of a field of type `ty`.
fn read_field(elements: &[Node<'_, '_>], ty: &Type, dialect: &Dialect) -> Option<Reading<'static>> {
    // What is not None, of a type that allows it.
    let container = ty.as_optional().unwrap_or(ty).container();
    let is_list = matches!(container, Some((Container::List, _)));
    let is_map = matches!(container, Some((Container::Dict, _)));
    match content(elements) {
        Content::Elements => {}
        Content::Odd => return None,
        Content::Text(text) if text.is_empty() && ty.allows_none() => {
            return Some(Reading::Value(Value::None));
        }
        Content::Text(text) if text.is_empty() && is_map => {
            return Some(Reading::Value(Value::Map(Vec::new())));
        }
        // In a list, text is JSON or else the one item.
        Content::Text(text) if is_list && !text.starts_with('[') => {}
        // One of the types may be a list that only the host knows for one.
        Content::Text(_) if !ty.is_native() => return None,
        Content::Text(text) => {
            return match read_text(&text, ty, dialect).into_owned() {
                Reading::Deferred => None,
                read => Some(read),
            };
        }
    }
    if is_list || is_map {
        read_elements(elements, ty).map(Reading::Value)
    } else {
        None
    }
}

/// Whether the first of some elements of one name says nothing, which is None whatever the others say.
fn says_nothing(elements: &[Node<'_, '_>]) -> bool {
    matches!(content(&elements[..1]), Content::Text(text) if text.is_empty())
}

/// What is between the tags of the elements of one name.
enum Content {
    /// The text of the one element there is, stripped.
    Text(String),
    /// Other elements, or several of the name.
    Elements,
    /// Text that is odd.
    Odd,
}

impl Content {
    /// The text, if it is one.
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Elements | Self::Odd => None,
        }
    }
}

fn content(elements: &[Node<'_, '_>]) -> Content {
    let [element] = elements else {
        return Content::Elements;
    };
    if element.children().any(|child| child.is_element()) {
        return Content::Elements;
    }
    let mut text = String::new();
    for child in element.children() {
        match child.text() {
            Some(part) => text.push_str(part),
            None => return Content::Odd,
        }
    }
    Content::Text(strip(&text).to_owned())
}

/// Elements as a value of `ty`, from the inside of a list or mapping: every text is converted as pydantic
/// converts it, where that is plain.
fn read_elements(elements: &[Node<'_, '_>], ty: &Type) -> Option<Value<'static>> {
    match ty {
        Type::Bare(Container::List, _) => read_items(elements, &Type::Any),
        Type::List(item, _) => read_items(elements, item),
        Type::Bare(Container::Dict, _) => read_entries(elements, &Type::Any),
        Type::Dict(entry, _) => match &**entry {
            [Type::Str | Type::Any, value] => read_entries(elements, value),
            _ => None,
        },
        Type::Any => match elements {
            [only] if only.children().any(|n| n.is_element()) => read_entries(elements, &Type::Any),
            [_] => content(elements).text().map(|text| Value::Str(text.into())),
            _ => None,
        },
        Type::Union { .. } => {
            let inner = ty.as_optional()?;
            if says_nothing(elements) {
                return Some(Value::None);
            }
            read_elements(elements, inner)
        }
        _ => convert(content(elements).text()?, ty),
    }
}

/// The elements `item` inside the one element, or else the elements themselves, as a list.
fn read_items(elements: &[Node<'_, '_>], item: &Type) -> Option<Value<'static>> {
    match content(elements) {
        Content::Odd => return None,
        Content::Text(text) if text.is_empty() => return Some(Value::List(Vec::new())),
        Content::Text(text) if text.starts_with('[') => return None,
        Content::Text(_) | Content::Elements => {}
    }
    let items: Vec<Node<'_, '_>> = match elements {
        [only] => only
            .children()
            .filter(|n| n.is_element() && name_of(*n) == Some("item"))
            .collect(),
        _ => Vec::new(),
    };
    let items = if items.is_empty() { elements } else { &items };
    items
        .iter()
        .map(|one| read_elements(&[*one], item))
        .collect::<Option<_>>()
        .map(Value::List)
}

/// The children of the one element as a mapping.
fn read_entries(elements: &[Node<'_, '_>], value: &Type) -> Option<Value<'static>> {
    let [element] = elements else { return None };
    let mut groups: Vec<(&str, Vec<Node<'_, '_>>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for child in element.children().filter(Node::is_element) {
        let name = name_of(child)?;
        let place = *places.entry(name).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, group)) => group.push(child),
            None => groups.push((name, vec![child])),
        }
    }
    if groups.is_empty() {
        // An empty text is an empty mapping; any other is no mapping at all.
        return content(elements)
            .text()?
            .is_empty()
            .then(|| Value::Map(Vec::new()));
    }
    let entries = groups
        .into_iter()
        .map(|(name, group)| Some((Cow::Owned(name.to_owned()), read_elements(&group, value)?)));
    entries.collect::<Option<_>>().map(Value::Map)
}

/// A text between tags as pydantic converts it, where the conversion is plain.
fn convert(text: String, ty: &Type) -> Option<Value<'static>> {
    match ty {
        Type::Str => Some(Value::Str(text.into())),
        Type::Int => {
            let digits = text.strip_prefix('-').unwrap_or(&text);
            let plain = digits.bytes().all(|b| b.is_ascii_digit())
                && !(digits.len() > 1 && digits.starts_with('0'));
            if plain {
                text.parse().ok().map(Value::Int)
            } else {
                None
            }
        }
        Type::Float => {
            let plain = text
                .bytes()
                .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'e' | b'+'))
                && text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            if plain {
                text.parse().ok().map(Value::Float)
            } else {
                None
            }
        }
        Type::Bool => match text.as_str() {
            "True" | "true" => Some(Value::Bool(true)),
            "False" | "false" => Some(Value::Bool(false)),
            _ => None,
        },
        Type::Literal(choices) => {
            let known = choices
                .iter()
                .any(|choice| matches!(choice, Constant::Str(s) if **s == *text));
            known.then(|| Value::Str(text.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Instructions, Limits, NativeOnly, lower, parse};

    fn outputs(text: &str) -> Vec<Field> {
        let source = format!("q -> {text}");
        let ast = parse(&source, &Limits::default()).expect("a signature");
        let signature = lower(
            &source,
            &ast,
            &Instructions::Default,
            &Limits::default(),
            &mut NativeOnly,
        )
        .expect("native types");
        signature.outputs().to_vec()
    }

    /// The values of a reply, if the host is not needed for them.
    fn values(reply: &str, outputs: &[Field]) -> Option<Vec<Option<Value<'static>>>> {
        let read = read_xml(reply, outputs, Dialect::newest())?;
        Some(read.into_iter().map(|one| one?.value()).collect())
    }

    #[test]
    fn text_between_tags_is_read_as_the_type() {
        let read = values(
            "So:\n<a>\n1 &lt; 2\n</a>\n<n>\n42\n</n>",
            &outputs("a, n: int"),
        );
        assert_eq!(
            read,
            Some(vec![Some(Value::Str("1 < 2".into())), Some(Value::Int(42))])
        );
    }

    #[test]
    fn nested_elements_are_lists_and_mappings() {
        let read = values(
            "<l><item>1</item><item>-2</item></l><d><a>x</a><entry key=\"b c\">y</entry></d>",
            &outputs("l: list[int], d: dict[str, str]"),
        );
        let map = vec![
            ("a".into(), Value::Str("x".into())),
            ("b c".into(), Value::Str("y".into())),
        ];
        let list = vec![Value::Int(1), Value::Int(-2)];
        assert_eq!(
            read,
            Some(vec![Some(Value::List(list)), Some(Value::Map(map))])
        );
    }

    #[test]
    fn what_is_odd_is_deferred() {
        let outputs = outputs("a: int");
        for reply in [
            "<a>1",
            "<a>1 & 2</a>",
            "<a><!-- c -->1</a>",
            "<a x=\"1\">1</a>",
            "<a>1</a><a>2</a>",
            "<x:a/>",
            "<:a>1</a>",
            "<a>1</:a>",
            "\r",
        ] {
            assert_eq!(values(reply, &outputs), None, "{reply}");
        }
    }
}

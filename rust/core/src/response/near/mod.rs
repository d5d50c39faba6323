//! A value that is nearly one of its type: each chance it gets, in a fixed order, and what was done.
//!
//! First as DSPy reads it. Then a text without its fence and decoration, and as the choice, boolean or number that it is
//! in other words. Then what stands inside a list, a mapping or a class of the caller's, which is the host's to mend.
//! Last a list that was cut off, or that is the one item. What could be two values is none.
//!
//! ```text
//! mod      the order of the chances; lists
//! bare     a text without its fence and decoration
//! words    a choice or a boolean in other words
//! number   a number with separators or a unit
//! ```

mod bare;
mod number;
mod words;

pub use self::bare::bare;
use self::number::{Number, Scaled};
use self::words::Said;
use super::read::{
    Choices, Coerced, Host, HostError, Kind, ReadError, ReadErrorKind, Reader, RepairCode, SHOWN,
    Target, Values, braced,
};
use super::value::{Reading, Value, read_text};
use crate::text::{casefold, is_space, strip};
use crate::types::Type;

/// Why there is no value.
#[derive(Debug)]
pub enum Miss<E> {
    /// It is none of its type, as the host says if it was asked.
    Refused(Option<E>),
    /// It could be several.
    Ambiguous(String),
    /// Something else is wrong.
    Error(ReadError<E>),
}

impl<E> From<ReadError<E>> for Miss<E> {
    fn from(error: ReadError<E>) -> Self {
        Self::Error(error)
    }
}

impl<E> From<E> for Miss<E> {
    fn from(error: E) -> Self {
        Self::Error(ReadError::from(error))
    }
}

/// A value, with the codes of what was done to get it.
type Near<H> = Result<(<H as Host>::Value, Vec<RepairCode>), Miss<<H as Host>::Error>>;

impl<H: Host> Reader<'_, H> {
    /// The value of a text or of JSON.
    pub(super) fn near_value(&mut self, target: Target, ty: &Type, raw: &H::Value) -> Near<H> {
        let refusal = match self.as_dspy(target, raw) {
            Ok((value, code)) => return Ok((value, code.into_iter().collect())),
            Err(Miss::Refused(refusal)) => refusal,
            Err(miss) => return Err(miss),
        };
        let kind = self.host.values().kind(raw)?;
        if let Kind::Text(text) = &kind {
            for (code, candidate) in bare(text) {
                match self.text_as_dspy(target, ty, candidate) {
                    Ok((value, more)) => {
                        return Ok((value, [code].into_iter().chain(more).collect()));
                    }
                    Err(Miss::Refused(_)) => {}
                    Err(miss) => return Err(miss),
                }
            }
            if let Some(wanted) = self.wanted(target, ty)?
                && let Some((code, value)) = convert(self.host.values(), text, &wanted)?
            {
                return Ok((value, vec![code]));
            }
        }
        if let Some(refusal) = &refusal {
            match self.host.mend(target, raw, refusal) {
                Ok(None) => {}
                Ok(Some(mended)) => return Ok(mended),
                Err(error) => return Err(self.miss(target, error)),
            }
        }
        match item_of(ty) {
            Some(item) => self.near_list(target, ty, item, raw, kind),
            None => Err(Miss::Refused(refusal)),
        }
    }

    /// What DSPy makes of it.
    fn as_dspy(
        &mut self,
        target: Target,
        raw: &H::Value,
    ) -> Result<Coerced<H::Value>, Miss<H::Error>> {
        let read = self.host.coerce(target, raw);
        read.map_err(|error| self.miss(target, error))
    }

    fn text_as_dspy(
        &mut self,
        target: Target,
        ty: &Type,
        text: &str,
    ) -> Result<Coerced<H::Value>, Miss<H::Error>> {
        Ok(match read_text(text, ty, self.plan.dialect) {
            Reading::Value(value) => (self.host.values().make(&value)?, None),
            Reading::Repaired(value, code) => (self.host.values().make(&value)?, Some(code)),
            Reading::Deferred => {
                let raw = self.host.values().make(&Value::Str(text.into()))?;
                return self.as_dspy(target, &raw);
            }
        })
    }

    fn miss(&self, target: Target, error: HostError<H::Error>) -> Miss<H::Error> {
        match error {
            HostError::Refused(error) => Miss::Refused(Some(error)),
            HostError::Raised(error) if self.plan.dialect.any_error_refuses => {
                Miss::Refused(Some(error))
            }
            HostError::Ambiguous(reason) => Miss::Ambiguous(reason),
            HostError::TooCostly => {
                Miss::Error(self.error(ReadErrorKind::TooCostly(Some(target.output))))
            }
            HostError::Raised(error) | HostError::Failed(error) => {
                Miss::Error(self.error(ReadErrorKind::Host(error)))
            }
        }
    }

    /// What a text may be in other words, as a type; None where it can be nothing.
    fn wanted(&mut self, target: Target, ty: &Type) -> Result<Option<Wanted<H::Value>>, H::Error> {
        Ok(match only_type(ty) {
            Some(Type::Bool) => Some(Wanted::Bool),
            Some(Type::Int) => Some(Wanted::Int),
            Some(Type::Float) => Some(Wanted::Float),
            Some(Type::Literal(_) | Type::External(_)) => {
                self.host.choices(target)?.map(Wanted::Choice)
            }
            _ => None,
        })
    }

    /// A list that was cut off inside an item, or the one item that stands where a list should.
    fn near_list(
        &mut self,
        target: Target,
        ty: &Type,
        item: &Type,
        raw: &H::Value,
        kind: Kind,
    ) -> Near<H> {
        let inside = Target {
            items: target.items + 1,
            ..target
        };
        let given = match kind {
            Kind::Text(text) => text,
            Kind::None | Kind::List => return Err(Miss::Refused(None)),
            Kind::Other if *item == Type::Str => return Err(Miss::Refused(None)),
            Kind::Other => return self.one_item(inside, item, raw),
        };
        let text = strip(&given);
        if text.starts_with('[') {
            let Some(whole) = whole_items(text) else {
                return Err(Miss::Refused(None));
            };
            if whole == "]" {
                let reason = "it is cut off in its first item";
                return Err(Miss::Ambiguous(reason.into()));
            }
            let whole = self.host.values().make(&Value::Str(whole.into()))?;
            let (value, mut codes) = self.near_value(target, ty, &whole)?;
            codes.insert(0, RepairCode::CutOff);
            return Ok((value, codes));
        }
        if text.starts_with('{') && *item != Type::Str && braced(text) == Some(text) {
            let Some((json, _)) = self.loads(text)? else {
                return Err(Miss::Refused(None));
            };
            let json = self.make_json(json)?;
            return self.one_item(inside, item, &json);
        }
        if text.starts_with('{') || says_nothing(text) {
            return Err(Miss::Refused(None));
        }
        if may_be_several(text) {
            let shown = shown(self.host.values(), text)?;
            return Err(Miss::Ambiguous(format!(
                "{shown} may be one item or several"
            )));
        }
        if text.len() == given.len() {
            return self.one_item(inside, item, raw); // with the halves of surrogate pairs that it may have
        }
        let text = self.host.values().make(&Value::Str(text.into()))?;
        self.one_item(inside, item, &text)
    }

    fn one_item(&mut self, target: Target, item: &Type, raw: &H::Value) -> Near<H> {
        let (value, mut codes) = self.near_value(target, item, raw)?;
        codes.insert(0, RepairCode::OneItem);
        Ok((self.host.values().make_list(value)?, codes))
    }
}

/// What a text may be in other words.
#[derive(Debug)]
pub enum Wanted<V> {
    /// True or False.
    Bool,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// One of some values.
    Choice(Choices<V>),
}

/// The value that a text is in other words, with the code of what was done; None if it is nothing.
type Converted<V> = Result<Option<(RepairCode, <V as Values>::Value)>, Miss<<V as Values>::Error>>;

/// What a text is in other words, with the code of what was done; None if it is nothing.
pub fn convert<V: Values>(values: &mut V, text: &str, wanted: &Wanted<V::Value>) -> Converted<V> {
    let text = bare(text).last().map_or(text, |(_, bare)| bare);
    match wanted {
        Wanted::Bool => {
            let choices = [
                values.make(&Value::Bool(true))?,
                values.make(&Value::Bool(false))?,
            ];
            choice_of(values, text, &words::BOOLEANS, &choices)
        }
        Wanted::Choice(Choices {
            values: choices,
            names,
        }) => {
            let names = names.iter().map(|(name, at)| (&**name, *at));
            choice_of(values, text, &names.collect::<Vec<_>>(), choices)
        }
        Wanted::Int => number_of(values, text, false),
        Wanted::Float => number_of(values, text, true),
    }
}

fn choice_of<V: Values>(
    values: &mut V,
    text: &str,
    names: &[(&str, usize)],
    choices: &[V::Value],
) -> Converted<V> {
    match words::find(text, names) {
        Said::One(at) => Ok(Some((RepairCode::Case, choices[at].clone()))),
        Said::Nothing => Ok(None),
        Said::Several(places) => {
            let mut names = Vec::with_capacity(places.len());
            for at in places {
                names.push(values.repr(&choices[at])?);
            }
            let shown = shown(values, text)?;
            let reason = format!("{shown} may be {}", names.join(" or "));
            Err(Miss::Ambiguous(reason))
        }
    }
}

fn number_of<V: Values>(values: &mut V, text: &str, is_float: bool) -> Converted<V> {
    let value = match number::read(text, is_float) {
        Scaled::Number(Number::Int(value)) => values.make(&Value::Int(value))?,
        Scaled::Number(Number::Float(value)) => values.make(&Value::Float(value))?,
        Scaled::Number(Number::Long(digits)) => {
            values.make_guess(&super::guess::Guess::Long(digits))?
        }
        Scaled::Nothing => return Ok(None),
        Scaled::Several => {
            let shown = shown(values, text)?;
            return Err(Miss::Ambiguous(format!(
                "{shown} may be one number or several"
            )));
        }
        Scaled::Multiple(digits) => {
            let shown = shown(values, text)?;
            return Err(Miss::Ambiguous(format!(
                "{shown} may be {digits} or a multiple of it"
            )));
        }
    };
    Ok(Some((RepairCode::Number, value)))
}

/// As much of a text as a reason shows, between quotes.
fn shown<V: Values>(values: &mut V, text: &str) -> Result<String, V::Error> {
    let shown = match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    };
    let shown = values.make(&Value::Str(shown.into()))?;
    values.repr(&shown)
}

/// The type, or the one member of a union that is not None.
fn only_type(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Union { .. } => only_type(ty.as_optional()?),
        _ => Some(ty),
    }
}

/// The type of a list's items; None for what is no list.
fn item_of(ty: &Type) -> Option<&Type> {
    match only_type(ty)? {
        Type::List(item, _) => Some(item),
        _ => None,
    }
}

/// Whether a text says that there is no item.
fn says_nothing(text: &str) -> bool {
    const WORDS: [&str; 9] = [
        "", "none", "null", "nothing", "empty", "n/a", "na", "-", "[]",
    ];
    WORDS.contains(&&*casefold(text))
}

/// Whether a text may name several items.
fn may_be_several(text: &str) -> bool {
    if text.contains([',', ';', '|', '\n']) {
        return true;
    }
    let mut rest = text.chars();
    if matches!(rest.next(), Some('-' | '*' | '•')) && rest.next().is_some_and(is_space) {
        return true;
    }
    let is_word = |word: &str| word.eq_ignore_ascii_case("and") || word.eq_ignore_ascii_case("or");
    let inner: Vec<&str> = text.split(' ').collect();
    inner.len() > 2 && inner[1..inner.len() - 1].iter().any(|word| is_word(word))
}

/// A list that is cut off inside an item, without that item; None for any other list.
fn whole_items(text: &str) -> Option<String> {
    let (mut depth, mut end, mut in_string, mut escaped) = (0_i64, 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if in_string => {
                in_string = escaped || c != '"';
                escaped = c == '\\' && !escaped;
            }
            '"' => in_string = true,
            '[' | '{' => depth += 1,
            ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return None;
                }
            }
            ',' if depth == 1 => end = at,
            _ => {}
        }
    }
    Some(format!("{}]", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_cut_off_keeps_its_whole_items() {
        assert_eq!(
            whole_items("[1, \"a, b\", {\"c\": [2, 3]}, 4").as_deref(),
            Some("[1, \"a, b\", {\"c\": [2, 3]}]")
        );
        assert_eq!(whole_items("[\"a").as_deref(), Some("]"));
        assert_eq!(whole_items("[1, 2]"), None);
    }

    #[test]
    fn what_may_be_several_items_is_seen() {
        for text in [
            "a, b", "a;b", "a\nb", "a and b", "a OR b", "- a", "•\ta", "a|b",
        ] {
            assert!(may_be_several(text), "{text}");
        }
        for text in ["a", "sand or", "and b", "Andorra", "-a", "a-b", "a  b"] {
            assert!(!may_be_several(text), "{text}");
        }
        assert!(says_nothing("None") && says_nothing("N/A") && !says_nothing("no"));
    }
}

//! How large a value may be that a template makes, and what it costs to compare one.
//!
//! The filters here stand in no template: [`super::rewrite`] puts them round each expression that makes a value.
//! What they let pass is *settled*: a list is a [`Made`] one, which knows what it holds, or a tuple or map of settled
//! values. It takes up no more than [`Limits::value`](super::Limits) bytes, every part counted as often as it
//! is in it, and nests no deeper than [`MAX_NESTING`]. So whoever walks through a value, in the engine or out of
//! it, comes to an end, and needs neither more memory nor more stack than there is.

use std::marker::PhantomData;
use std::sync::Arc;

use minijinja::value::{
    Enumerator, Kwargs, Object, ObjectRepr, Rest, Tuple, Value, ValueKind, ValueOrKwargs,
};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::container::{Container, External};
use super::error::Cause;
use super::value::text;
use super::{Limits, unwritable};

/// Looks at a value that was made, and makes a list of what is to be walked through only later.
pub(super) const SETTLE: &str = "=";
/// Refuses what must not be kept in another value.
pub(super) const STORE: &str = "<-";
/// Pays for walking through a value.
pub(super) const CHARGE: &str = "#";
/// Refuses what cannot be the key of a map.
pub(super) const KEY: &str = ":";
/// `a ~ b`
pub(super) const CONCAT: &str = "~";

/// How deep a value that a template makes may nest.
pub(super) const MAX_NESTING: usize = 200;

/// What an entry of a list takes up, in bytes; one of a map twice that.
const ENTRY: usize = 32;

/// How many entries are looked at for one step.
const ENTRIES_A_STEP: usize = 32;

/// A list that a template made.
#[derive(Debug)]
struct Made {
    items: Vec<Value>,
    extent: Extent,
}

/// What a value takes up.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    bytes: usize,
    entries: usize,
    depth: usize,
}

impl Object for Made {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// Add the filters to an environment.
pub(super) fn add<C: Container>(environment: &mut Environment<'static>, limits: Limits) {
    let most = limits.value();
    environment.add_filter(SETTLE, move |state: &State, value: Value| {
        settle_whole::<C>(state, value, most)
    });
    environment.add_filter(STORE, |value: Value| {
        if is_data(&value) {
            Ok(value)
        } else {
            Err(no_data())
        }
    });
    environment.add_filter(CHARGE, move |state: &State, value: Value| {
        let mut settling = Settling::<C>::new(most);
        let extent = match value.downcast_object_ref::<Made>() {
            Some(made) => made.extent,
            None => settling.part(&value, 0)?.1,
        };
        pay(state, extent.entries)?;
        Ok::<Value, Error>(value)
    });
    environment.add_filter(KEY, |value: Value| {
        if value.as_object().is_some() {
            Err(unwritable("a list or a map cannot be a key"))
        } else {
            Ok(value)
        }
    });
    environment.add_filter(CONCAT, move |left: &Value, right: &Value| {
        let (a, b) = (text::<C>(left, most)?, text::<C>(right, most)?);
        if a.len() + b.len() > most {
            return Err(too_large(most));
        }
        let both = [a, b].concat();
        Ok(if left.is_safe() && right.is_safe() {
            Value::from_safe_string(both)
        } else {
            Value::from(both)
        })
    });
    // One part of the text may ask for the same long value again and again.
    environment.add_filter(
        "format",
        move |state: &mut State, pattern: &Value, args: Rest<ValueOrKwargs>| {
            let longest = args.iter().map(|value| written(value)).max().unwrap_or(0);
            let places = pattern.as_str().map_or(0, |text| text.matches('%').count());
            if places.saturating_mul(longest) > most {
                return Err(too_large(most));
            }
            filters::format(state, pattern, args)
        },
    );
    // The engine adds up lists and texts too, each time copying what there is.
    environment.add_filter(
        "sum",
        |state: &State,
         values: Value,
         attribute: Option<&str>,
         start: Option<Value>,
         kwargs: Kwargs| {
            let first = match &start {
                Some(start) => Some(start.clone()),
                None => kwargs.peek::<Option<Value>>("start").unwrap_or_default(),
            };
            if first.is_some_and(|start| !start.is_number()) {
                return Err(unwritable("only numbers can be summed"));
            }
            filters::sum(state, values, attribute, start, kwargs)
        },
    );
}

/// Some bytes that a value has as a text at the most; of what was given nothing is known, and it has its own limit.
fn written(value: &Value) -> usize {
    match (value.as_bytes(), value.downcast_object_ref::<Made>()) {
        (Some(text), _) => text.len(),
        (None, Some(made)) => 2 * made.extent.bytes,
        (None, None) if value.kind() == ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            let values = keys.filter_map(|key| value.get_item(&key).ok());
            values
                .map(|value| written(&value))
                .fold(0, usize::saturating_add)
        }
        _ => ENTRY,
    }
}

/// The steps for walking through so many entries.
fn pay(state: &State, entries: usize) -> Result<(), Error> {
    match entries / ENTRIES_A_STEP {
        0 => Ok(()),
        steps => state.consume_fuel(steps as u64),
    }
}

fn settle_whole<C: Container>(state: &State, value: Value, most: usize) -> Result<Value, Error> {
    let Some(object) = value.as_object() else {
        return match value.as_str() {
            Some(text) if text.len() > most => Err(too_large(most)),
            _ => Ok(value),
        };
    };
    if object.is::<Made>() || object.is::<External<C>>() {
        return Ok(value);
    }
    if !is_data(&value) {
        // A namespace, made a moment ago: what is in it must not be one.
        for key in value.try_iter()? {
            if !is_data(&value.get_item(&key)?) {
                return Err(no_data());
            }
        }
        return Ok(value);
    }
    let mut settling = Settling::<C>::new(most);
    let (changed, _) = settling.part(&value, 0)?;
    pay(state, settling.seen)?;
    Ok(changed.unwrap_or(value))
}

/// Whether this is a value that others may hold. A namespace could come to hold itself, and a loop holds what it
/// runs over.
fn is_data(value: &Value) -> bool {
    value.as_object().is_none_or(|object| {
        let name = object.type_name();
        !name.ends_with("::Namespace") && !name.ends_with("::Loop")
    })
}

/// One walk through a value.
struct Settling<C> {
    left: usize,
    most: usize,
    /// How many entries were looked at; those of a list that is settled already are not.
    seen: usize,
    container: PhantomData<C>,
}

impl<C: Container> Settling<C> {
    fn new(most: usize) -> Self {
        Self {
            left: most,
            most,
            seen: 0,
            container: PhantomData,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| too_large(self.most))?;
        Ok(())
    }

    /// The value settled, if it was not, and what it takes up.
    fn part(&mut self, value: &Value, depth: usize) -> Result<(Option<Value>, Extent), Error> {
        let Some(object) = value.as_object() else {
            let bytes = value.as_bytes().map_or(0, <[u8]>::len);
            self.take(bytes)?;
            let extent = Extent {
                bytes,
                ..Extent::default()
            };
            return Ok((None, extent));
        };
        if object.is::<External<C>>() {
            let entries = value.len().unwrap_or(0);
            let extent = Extent {
                entries,
                ..Extent::default()
            };
            return Ok((None, extent));
        }
        if let Some(made) = object.downcast_ref::<Made>() {
            if depth + made.extent.depth > MAX_NESTING {
                return Err(too_deep());
            }
            self.take(made.extent.bytes)?;
            return Ok((None, made.extent));
        }
        if !is_data(value) {
            return Err(no_data());
        }
        if depth > MAX_NESTING {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth),
            ValueKind::Map => self.map(value, depth),
            _ => Ok((None, Extent::default())),
        }
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(Option<Value>, Extent), Error> {
        let before = self.left;
        let known = value.len().unwrap_or(0);
        if known > self.left / ENTRY {
            return Err(too_large(self.most));
        }
        let mut items = Vec::with_capacity(known);
        let mut extent = Extent::default();
        let mut changed = false;
        for item in value.try_iter()? {
            self.take(ENTRY)?;
            self.seen += 1;
            let (settled, inner) = self.valid(&item, depth)?;
            extent.entries += 1 + inner.entries;
            extent.depth = extent.depth.max(inner.depth);
            changed |= settled.is_some();
            items.push(settled.unwrap_or(item));
        }
        extent.depth += 1;
        extent.bytes = before - self.left;
        let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
        let made = match (is_tuple, changed) {
            (true, false) => None,
            (true, true) => Some(Value::from(Tuple::from(items))),
            (false, _) => Some(Value::from_object(Made { items, extent })),
        };
        Ok((made, extent))
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(Option<Value>, Extent), Error> {
        let before = self.left;
        let mut entries = Vec::new();
        let mut extent = Extent::default();
        for key in value.try_iter()? {
            if key.as_object().is_some() {
                return Err(unwritable("a list or a map cannot be a key"));
            }
            self.take(2 * ENTRY + key.as_bytes().map_or(0, <[u8]>::len))?;
            self.seen += 1;
            let item = value.get_item(&key)?;
            let (settled, inner) = self.valid(&item, depth)?;
            extent.entries += 1 + inner.entries;
            extent.depth = extent.depth.max(inner.depth);
            entries.push((key, settled.unwrap_or(item)));
        }
        extent.depth += 1;
        extent.bytes = before - self.left;
        Ok((Some(Value::from_pairs(entries)), extent))
    }

    /// A part of a value, or the error that stands in its place.
    fn valid(&mut self, item: &Value, depth: usize) -> Result<(Option<Value>, Extent), Error> {
        if item.kind() == ValueKind::Invalid {
            // The engine has no other way to get at it.
            return Err(match item.clone().try_iter() {
                Err(error) => error,
                Ok(_) => unwritable("a part of the value cannot be had"),
            });
        }
        self.part(item, depth + 1)
    }
}

/// The error of a value that has reached its limit.
fn too_large(most: usize) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("a value grew beyond {most} bytes"),
    )
    .with_source(Cause::TooLarge)
}

/// The error of a value that nests too deep.
pub(super) fn too_deep() -> Error {
    let detail = format!("a value nests deeper than {MAX_NESTING} levels");
    Error::new(ErrorKind::InvalidOperation, detail).with_source(Cause::TooDeep)
}

fn no_data() -> Error {
    unwritable("a namespace or a loop cannot be part of a value")
}

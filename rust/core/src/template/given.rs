//! Values that stay where they are until a template asks for them.

use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind, State};

use super::rendering::Rendering;

/// A list or a map that belongs to the caller.
pub trait Source: Debug + Send + Sync + 'static {
    /// Whether it is a map; else it is a list.
    fn is_map(&self) -> bool;

    /// How many entries it has.
    fn len(&self) -> usize;

    /// Whether it has no entries.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a map at this name.
    fn entry(&self, name: &str) -> Option<Value>;

    /// The entry of a list at an index.
    fn item(&self, index: usize) -> Option<Value>;

    /// The entry of a map at any other key.
    fn get(&self, key: &Value) -> Option<Value>;

    /// The keys of a map, in order.
    fn keys(&self) -> Vec<Value>;

    /// The whole of it as one line of JSON. None if it cannot be written: nothing takes its place, and the source
    /// says why when the template is done.
    fn json(&self) -> Option<String>;

    /// Whether it says the same as another. If that cannot be known, it does.
    fn is_equal(&self, other: &Self) -> bool;
}

/// A [`Source`] as a value. It is asked for an entry only where the template uses that entry.
#[derive(Debug)]
pub struct Given<S>(pub S);

impl<S: Source> Given<S> {
    /// The value that stands for this source.
    pub fn value(source: S) -> Value {
        Value::from_object(Self(source))
    }
}

/// The source of a template that is given none.
#[derive(Debug)]
pub enum NoSource {}

impl Source for NoSource {
    fn is_map(&self) -> bool {
        match *self {}
    }

    fn len(&self) -> usize {
        match *self {}
    }

    fn entry(&self, _: &str) -> Option<Value> {
        match *self {}
    }

    fn item(&self, _: usize) -> Option<Value> {
        match *self {}
    }

    fn get(&self, _: &Value) -> Option<Value> {
        match *self {}
    }

    fn keys(&self) -> Vec<Value> {
        match *self {}
    }

    fn json(&self) -> Option<String> {
        match *self {}
    }

    fn is_equal(&self, _: &Self) -> bool {
        match *self {}
    }
}

impl<S: Source> Object for Given<S> {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.0.is_map() {
            ObjectRepr::Map
        } else {
            ObjectRepr::Seq
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some(name) => self.0.entry(name),
            None if self.0.is_map() => self.0.get(key),
            None => self.0.item(key.as_usize()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        self.0.entry(name)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if self.0.is_map() {
            Enumerator::Values(self.0.keys())
        } else {
            let list = Arc::clone(self);
            let items = (0..self.0.len()).map(move |index| list.0.item(index).unwrap_or_default());
            Enumerator::Iter(Box::new(items))
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }

    /// The engine would follow a list that holds itself for ever; whoever has it finds the circle.
    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        self.0.is_equal(&other.0).then_some(Ordering::Equal)
    }

    /// For the engine's own filters, which make a text of any value in passing. They cannot be told that this one has
    /// none, or that there has been enough: an error would be a panic there. Then nothing is written, and the
    /// rendering fails at its end.
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Rendering::is_spent() {
            return Ok(());
        }
        match self.0.json() {
            Some(text) if Rendering::spend(text.len()) => f.write_str(&text),
            _ => Ok(()),
        }
    }

    /// The methods of a dict that templates use; nothing else of a value can be called.
    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let found = |key: &Value| self.get_value(key);
        let entry = |key: &Value| found(key).unwrap_or_default();
        match (method, args) {
            ("keys", []) if self.0.is_map() => Ok(Value::from(self.0.keys())),
            ("values", []) if self.0.is_map() => {
                Ok(self.0.keys().iter().map(entry).collect::<Vec<_>>().into())
            }
            ("items", []) if self.0.is_map() => Ok(self
                .0
                .keys()
                .into_iter()
                .map(|key| Value::from(vec![key.clone(), entry(&key)]))
                .collect::<Vec<_>>()
                .into()),
            ("get", [key]) if self.0.is_map() => Ok(found(key).unwrap_or(().into())),
            ("get", [key, other]) if self.0.is_map() => {
                Ok(found(key).unwrap_or_else(|| other.clone()))
            }
            _ => Err(ErrorKind::UnknownMethod.into()),
        }
    }
}

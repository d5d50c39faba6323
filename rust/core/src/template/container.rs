//! Values that stay where they are until a template asks for them.

use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value};
use minijinja::{Error, ErrorKind, State};

use super::rendering::{fail, is_spent, spend};

/// A list or a map that belongs to the caller. Its first error ends the rendering, whatever the template does with the
/// entry.
pub trait Container: Debug + Send + Sync + Sized + 'static {
    /// Why something cannot be had of it.
    type Error: Debug + Send + 'static;

    /// Whether it is a map; else it is a list.
    fn is_map(&self) -> bool;

    /// How many entries it has.
    fn len(&self) -> usize;

    /// Whether it has no entries.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of a map at this name.
    fn entry(&self, name: &str) -> Result<Option<Entry<Self>>, Self::Error>;

    /// The entry of a list at an index.
    fn item(&self, index: usize) -> Result<Option<Entry<Self>>, Self::Error>;

    /// The entry of a map at any other key.
    fn get(&self, key: &Value) -> Result<Option<Entry<Self>>, Self::Error>;

    /// The keys of a map, in order.
    fn keys(&self) -> Result<Vec<Entry<Self>>, Self::Error>;

    /// The whole of it as one line of JSON.
    fn json(&self) -> Result<String, Self::Error>;

    /// Whether it says the same as another.
    fn is_equal(&self, other: &Self) -> Result<bool, Self::Error>;
}

/// What is in a container, and what a template is given.
#[derive(Clone, Debug)]
pub enum Entry<C> {
    /// A value of the engine's.
    Value(Value),
    /// A container of the caller's. It is asked for an entry only where the template uses that entry.
    Container(C),
}

impl<C> From<Value> for Entry<C> {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl<C: Container> Entry<C> {
    /// The entry as a value of the rendering that goes on.
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Container(container) => Value::from_object(External(container)),
        }
    }
}

/// The container of a template that is given none.
#[derive(Debug)]
pub enum NoContainer {}

impl Container for NoContainer {
    type Error = NoContainer;

    fn is_map(&self) -> bool {
        match *self {}
    }

    fn len(&self) -> usize {
        match *self {}
    }

    fn entry(&self, _: &str) -> Result<Option<Entry<Self>>, Self> {
        match *self {}
    }

    fn item(&self, _: usize) -> Result<Option<Entry<Self>>, Self> {
        match *self {}
    }

    fn get(&self, _: &Value) -> Result<Option<Entry<Self>>, Self> {
        match *self {}
    }

    fn keys(&self) -> Result<Vec<Entry<Self>>, Self> {
        match *self {}
    }

    fn json(&self) -> Result<String, Self> {
        match *self {}
    }

    fn is_equal(&self, _: &Self) -> Result<bool, Self> {
        match *self {}
    }
}

/// A container of the caller's as a value of one rendering.
#[derive(Debug)]
pub(super) struct External<C: Container>(C);

impl<C: Container> External<C> {
    /// The whole of it as one line of JSON. None if it cannot be written, and then the rendering ends with the reason.
    pub(super) fn json(&self) -> Option<String> {
        self.0.json().map_err(fail).ok()
    }

    /// What a look-up found. Where it failed an error stands in its place, at which the engine stops: a name that was
    /// not found would be undefined, and the rendering would go on.
    fn found(entry: Result<Option<Entry<C>>, C::Error>) -> Option<Value> {
        match entry {
            Ok(entry) => Some(entry?.into_value()),
            Err(error) => Some(failed(error)),
        }
    }

    fn keys(&self) -> Vec<Value> {
        match self.0.keys() {
            Ok(keys) => keys.into_iter().map(Entry::into_value).collect(),
            Err(error) => vec![failed(error)],
        }
    }
}

fn failed(error: impl std::any::Any) -> Value {
    fail(error);
    Value::from(Error::from(ErrorKind::BadSerialization))
}

impl<C: Container> Object for External<C> {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.0.is_map() {
            ObjectRepr::Map
        } else {
            ObjectRepr::Seq
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Self::found(match key.as_str() {
            Some(name) => self.0.entry(name),
            None if self.0.is_map() => self.0.get(key),
            None => self.0.item(key.as_usize()?),
        })
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Value> {
        Self::found(self.0.entry(name))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if self.0.is_map() {
            Enumerator::Values(self.keys())
        } else {
            let list = Arc::clone(self);
            let item = move |index| Self::found(list.0.item(index)).unwrap_or_default();
            Enumerator::Iter(Box::new((0..self.0.len()).map(item)))
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }

    /// The engine would follow a list that holds itself for ever; whoever has it finds the circle.
    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        let is_equal = self.0.is_equal(&other.0);
        let is_equal = is_equal.unwrap_or_else(|error| {
            fail(error);
            true
        });
        is_equal.then_some(Ordering::Equal)
    }

    /// For the engine's own filters, which make a text of any value in passing. They cannot be told that this one has
    /// none, or that there has been enough: an error would be a panic there. Then nothing is written, and the
    /// rendering fails at its end.
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_spent() {
            return Ok(());
        }
        match self.json() {
            Some(text) if spend(text.len()) => f.write_str(&text),
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
        if !self.0.is_map() {
            return Err(ErrorKind::UnknownMethod.into());
        }
        let found = |key: &Value| self.get_value(key);
        let entry = |key: &Value| found(key).unwrap_or_default();
        match (method, args) {
            ("keys", []) => Ok(Value::from(self.keys())),
            ("values", []) => Ok(self.keys().iter().map(entry).collect::<Vec<_>>().into()),
            ("items", []) => Ok(self
                .keys()
                .into_iter()
                .map(|key| Value::from(vec![key.clone(), entry(&key)]))
                .collect::<Vec<_>>()
                .into()),
            ("get", [key]) => Ok(found(key).unwrap_or(().into())),
            ("get", [key, other]) => Ok(found(key).unwrap_or_else(|| other.clone())),
            _ => Err(ErrorKind::UnknownMethod.into()),
        }
    }
}

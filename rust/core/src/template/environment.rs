//! The engine with our rules, made once for all templates with the same limits and policy.

use std::any::TypeId;
use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lru::LruCache;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior};

use super::container::Container;
use super::rendering::Injected;
use super::{Limits, bounds, value};
use crate::header;
use crate::prompt::Markers;
use crate::prompt::markers::{self, headers_in};

/// What an environment is made for: the type of the values, the limits and the policy.
type Key = (TypeId, Limits, Markers);

/// How many environments are kept. A program has as many as it has different limits; one that makes limits up for
/// each template makes an environment for each.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();

static ENVIRONMENTS: LazyLock<Mutex<LruCache<Key, Arc<Environment<'static>>>>> =
    LazyLock::new(|| Mutex::new(LruCache::new(KEPT)));

/// The environment for templates whose values are in a `C`. To make one takes as long as to compile a short template.
pub(super) fn environment<C: Container>(
    limits: Limits,
    policy: Markers,
) -> Arc<Environment<'static>> {
    let key = (TypeId::of::<C>(), limits, policy);
    let mut known = ENVIRONMENTS.lock().unwrap_or_else(PoisonError::into_inner);
    let environment = known.get_or_insert(key, || Arc::new(make::<C>(limits, policy)));
    Arc::clone(environment)
}

fn make<C: Container>(limits: Limits, policy: Markers) -> Environment<'static> {
    let mut environment = Environment::new();
    // The debugger would show every value, and its notes on an error would carry them into logs.
    environment.remove_global("debug");
    environment.remove_filter("pprint");
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(limits.fuel));
    environment.set_recursion_limit(limits.depth);
    environment.set_formatter(move |out, state, value| {
        if let Some(number) = value::integer(value) {
            return out
                .write_str(itoa::Buffer::new().format(number))
                .map_err(Error::from);
        }
        let text = value::text::<C>(value, limits.output)?;
        if policy == Markers::AsIs || value.is_safe() {
            return out.write_str(&text).map_err(Error::from);
        }
        let found = headers_in(&text);
        if found.is_empty() {
            return out.write_str(&text).map_err(Error::from);
        }
        state.get_or_insert_extension_with(Injected::default).0 += found.len();
        let mut text = text.into_owned();
        if policy == Markers::Escape {
            markers::escape(&mut text, 0, &found);
        }
        out.write_str(&text).map_err(Error::from)
    });
    bounds::add::<C>(&mut environment, limits);
    let most = limits.output;
    for name in ["json", "tojson"] {
        environment.add_filter(name, move |value: &Value| value::json::<C>(value, most));
    }
    // The engine's own `string` would write a list to its end before anybody counts the bytes.
    for name in ["text", "string"] {
        environment.add_filter(name, move |value: &Value| {
            value::text::<C>(value, most).map(Cow::into_owned)
        });
    }
    environment.add_filter("numbered", move |value: &Value| {
        value::numbered::<C>(value, most)
    });
    environment.add_filter("marker", |name: &str| {
        Value::from_safe_string(header::marker(name))
    });
    environment
}

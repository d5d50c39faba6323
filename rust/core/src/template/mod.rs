//! Prompts that the user writes: Jinja's syntax, compiled once, and bounded.
//!
//! The engine is `minijinja`. What this module adds is what a prompt needs: values are written as DSPy
//! writes them, a name that is not there is an error with its place, a template can neither run for ever
//! nor grow without end, and it reaches nothing but the values it is given: no files, no other templates,
//! no attributes of objects. A value is never read as a template, whatever it contains.

mod bounds;
mod chains;
mod error;
mod given;
mod program;
mod rendering;
mod rewrite;
mod value;

use std::borrow::Cow;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

pub use error::{Code, TemplateError};
pub use given::{Given, NoSource, Source};
/// What a template's values are made of.
pub mod data {
    pub use minijinja::value::{Value, ValueKind};
    pub use minijinja::{Error, ErrorKind};
}

use crate::header;
use crate::prompt::Markers;
use crate::prompt::markers::{self, headers_in};
use program::Program;
use rendering::Rendering;

/// How much a template may be and do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Steps of one rendering. A step is an instruction, or some 64 bytes of text made on the way.
    pub fuel: u64,
    /// Bytes of the rendered text.
    pub output: usize,
    /// How deep blocks, macros and loops may nest while rendering.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 1_000_000,
            output: 8 << 20,
            depth: 100,
        }
    }
}

/// What a value that a template makes on the way may take up, in bytes, if no more than that is to be written.
const VALUE: usize = 32 << 20;

/// Bytes of text that the engine takes for one step.
const BYTES_A_STEP: u64 = 64;

impl Limits {
    /// Bytes that a value may take up.
    fn value(&self) -> usize {
        VALUE.max(self.output)
    }
}

/// The longest source that is compiled, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;

/// A compiled template.
///
/// ```
/// use dspex_core::prompt::Markers;
/// use dspex_core::template::{Limits, Template, data::Value};
///
/// let source = "Hi {{ name }}{% for x in xs %}, {{ x }}{% endfor %}!";
/// let template = Template::compile(source, Limits::default(), Markers::AsIs)?;
/// assert_eq!(template.variables(), ["name", "xs"]);
/// let values = Value::from_pairs([("name", Value::from("{{ 1 }}")), ("xs", Value::from(vec![1.0, 1e20]))]);
/// assert_eq!(template.render(values)?.text, "Hi {{ 1 }}, 1.0, 1e+20!");
/// # Ok::<(), dspex_core::template::TemplateError>(())
/// ```
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    program: Program,
    variables: Vec<String>,
    limits: Limits,
}

impl Template {
    /// Compile a source; `markers` is for values that hold a field's header. What the filter `marker` makes, and
    /// what the source declares `safe`, is none of those.
    ///
    /// # Errors
    /// If it is not Jinja, or longer than [`MAX_SOURCE`].
    pub fn compile(source: &str, limits: Limits, markers: Markers) -> Result<Self, TemplateError> {
        Self::compile_for::<NoSource>(source, limits, markers)
    }

    /// Compile a source whose values come from an `S`: see [`Given`].
    ///
    /// # Errors
    /// As for [`Template::compile`].
    pub fn compile_for<S: Source>(
        source: &str,
        limits: Limits,
        markers: Markers,
    ) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::new(
                Code::SourceTooLong,
                format!("the template is longer than {MAX_SOURCE} bytes"),
            ));
        }
        if let Some(span) = chains::too_long(source) {
            return Err(TemplateError {
                span: Some(span),
                ..TemplateError::new(
                    Code::Syntax,
                    format!("more than {} operators in a row", chains::MOST),
                )
            });
        }
        let environment = environment::<S>(limits, markers);
        let (program, mut variables) =
            Program::compile(source).map_err(|error| TemplateError::from_engine(&error, source))?;
        variables.retain(|name| environment.globals().all(|(global, _)| global != name));
        variables.sort();
        Ok(Self {
            environment,
            program,
            variables,
            limits,
        })
    }

    /// The names that the template asks for, sorted.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Render with these values: a map, or an object that is asked for each name when it is needed.
    ///
    /// # Errors
    /// If a name is missing, a filter cannot do its work, or a limit is reached.
    pub fn render(&self, values: data::Value) -> Result<Rendered, TemplateError> {
        let source = self.program.source();
        let mut text = String::with_capacity((2 * source.len()).min(self.limits.output));
        let bytes = self.limits.fuel.saturating_mul(BYTES_A_STEP);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let (result, rendering) = Rendering::run(bytes, || {
            self.program.run(&self.environment, values, &mut text)
        });
        match result {
            // Steps bound the text while it is made, 64 bytes each.
            Ok(()) | Err(_) if text.len() > self.limits.output => Err(TemplateError::new(
                Code::OutputTooLong,
                format!("the text grew beyond {} bytes", self.limits.output),
            )),
            Err(error) => Err(TemplateError::from_engine(&error, source)),
            Ok(()) if rendering.spent => Err(TemplateError::new(
                Code::OutOfFuel,
                "the texts made of values are longer than `fuel` allows",
            )),
            Ok(()) => Ok(Rendered {
                text,
                forged: rendering.forged,
            }),
        }
    }
}

/// What a template gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// How many field markers the values in it held; not counted where nobody looks.
    pub forged: usize,
}

fn environment<S: Source>(limits: Limits, policy: Markers) -> Environment<'static> {
    let mut environment = Environment::new();
    // The debugger would show every value, and its notes on an error would carry them into logs.
    environment.remove_global("debug");
    environment.remove_filter("pprint");
    environment.set_debug(false);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(limits.fuel));
    environment.set_recursion_limit(limits.depth);
    environment.set_formatter(move |out, _, value| {
        if let Some(number) = value::integer(value) {
            return out
                .write_str(itoa::Buffer::new().format(number))
                .map_err(Error::from);
        }
        let text = value::text::<S>(value, limits.output)?;
        if policy == Markers::AsIs || value.is_safe() {
            return out.write_str(&text).map_err(Error::from);
        }
        let found = headers_in(&text);
        if found.is_empty() {
            return out.write_str(&text).map_err(Error::from);
        }
        Rendering::add_forged(found.len());
        let mut text = text.into_owned();
        if policy == Markers::Escape {
            markers::escape(&mut text, 0, &found);
        }
        out.write_str(&text).map_err(Error::from)
    });
    bounds::add::<S>(&mut environment, limits);
    let most = limits.output;
    for name in ["json", "tojson"] {
        environment.add_filter(name, move |value: &data::Value| {
            value::json::<S>(value, most)
        });
    }
    // The engine's own `string` would write a list to its end before anybody counts the bytes.
    for name in ["text", "string"] {
        environment.add_filter(name, move |value: &data::Value| {
            value::text::<S>(value, most).map(Cow::into_owned)
        });
    }
    environment.add_filter("numbered", move |value: &data::Value| {
        value::numbered::<S>(value, most)
    });
    environment.add_filter("marker", |name: &str| {
        data::Value::from_safe_string(header::marker(name))
    });
    environment
}

/// The error of a value that cannot be written.
fn unwritable(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

#[cfg(test)]
mod tests;

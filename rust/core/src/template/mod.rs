//! Prompts that the user writes: Jinja's syntax, compiled once, and bounded.
//!
//! The engine is `minijinja`. What this module adds is what a prompt needs: values are written as DSPy
//! writes them, a name that is not there is an error with its place, a template can neither run for ever
//! nor grow without end, and it reaches nothing but the values it is given: no files, no other templates,
//! no attributes of objects. A value is never read as a template, whatever it contains.

mod bounds;
mod chains;
mod container;
mod environment;
mod error;
mod program;
mod rendering;
mod rewrite;
mod value;

use std::marker::PhantomData;
use std::sync::Arc;

use minijinja::{Environment, Error, ErrorKind};

pub use container::{Container, Entry, NoContainer};
pub use error::{Code, Failure, TemplateError};
/// What a template's values are made of.
pub mod data {
    pub use minijinja::value::{Value, ValueKind};
}

use crate::prompt::Markers;
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
/// use dspex_core::template::{Limits, NoContainer, Template, data::Value};
///
/// let source = "Hi {{ name }}{% for x in xs %}, {{ x }}{% endfor %}!";
/// let template = Template::<NoContainer>::compile(source, Limits::default(), Markers::AsIs)?;
/// assert_eq!(template.variables(), ["name", "xs"]);
/// let values = Value::from_pairs([("name", Value::from("{{ 1 }}")), ("xs", Value::from(vec![1.0, 1e20]))]);
/// assert_eq!(template.render(values)?.text, "Hi {{ 1 }}, 1.0, 1e+20!");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Template<C> {
    environment: Arc<Environment<'static>>,
    program: Program,
    variables: Vec<String>,
    limits: Limits,
    /// Where its values are.
    container: PhantomData<fn(C)>,
}

impl<C: Container> Template<C> {
    /// Compile a source; `markers` is for values that hold a field's header. What the filter `marker` makes, and
    /// what the source declares `safe`, is none of those.
    ///
    /// # Errors
    /// If it is not Jinja, or longer than [`MAX_SOURCE`].
    pub fn compile(source: &str, limits: Limits, markers: Markers) -> Result<Self, TemplateError> {
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
                    format!("more than {} operators in a row", chains::MAX_OPERATORS),
                )
            });
        }
        let environment = environment::environment::<C>(limits, markers);
        let (program, mut variables) =
            Program::compile(source).map_err(|error| TemplateError::from_engine(&error, source))?;
        variables.retain(|name| environment.globals().all(|(global, _)| global != name));
        variables.sort();
        Ok(Self {
            environment,
            program,
            variables,
            limits,
            container: PhantomData,
        })
    }

    /// The names that the template asks for, sorted.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Render with these values: a map, or a container that is asked for each name when it is needed.
    ///
    /// # Errors
    /// If a name is missing, a filter cannot do its work, a limit is reached, or a container has an error of its own.
    pub fn render(&self, values: impl Into<Entry<C>>) -> Result<Rendered, Failure<C::Error>> {
        let source = self.program.source();
        let mut text = String::with_capacity((2 * source.len()).min(self.limits.output));
        let bytes = self.limits.fuel.saturating_mul(BYTES_A_STEP);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let (result, mut rendering) = Rendering::run(bytes, || {
            let values = values.into().into_value();
            self.program.run(&self.environment, values, &mut text)
        });
        if let Some(error) = rendering.take_error() {
            return Err(Failure::Container(error));
        }
        let error = match result {
            // Steps bound the text while it is made, 64 bytes each.
            Ok(_) | Err(_) if text.len() > self.limits.output => TemplateError::new(
                Code::OutputTooLong,
                format!("the text grew beyond {} bytes", self.limits.output),
            ),
            Err(error) => TemplateError::from_engine(&error, source),
            Ok(_) if rendering.is_spent() => TemplateError::new(
                Code::OutOfFuel,
                "the texts made of values are longer than `fuel` allows",
            ),
            Ok(injected) => return Ok(Rendered { text, injected }),
        };
        Err(Failure::Template(error))
    }
}

/// What a template gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// How many field markers the values in it held; not counted where nobody looks.
    pub injected: usize,
}

/// The error of a value that cannot be written.
fn unwritable(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

#[cfg(test)]
mod tests;

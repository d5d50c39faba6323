//! The constant text of a prompt: the system message, and the reminder at the end of a request.

use std::fmt::Write as _;

use super::plan::{Layout, Part, frame};
use crate::dialect::Dialect;
use crate::header::{self, COMPLETED};
use crate::signature::FieldKind;
use crate::text::{JsonStyle, JsonWriter, dedent, splitlines, strip};
use crate::types::Type;

const STRUCTURE: &str = "All interactions will be structured in the following way, with the appropriate values filled in.";

/// The whole system message.
pub(super) fn message(
    layout: Layout,
    inputs: &[Part<'_>],
    outputs: &[Part<'_>],
    instructions: &str,
    dialect: &Dialect,
) -> String {
    format!(
        "Your input fields are:\n{}\nYour output fields are:\n{}\n{}\n{}",
        descriptions(inputs, dialect),
        descriptions(outputs, dialect),
        structure(layout, inputs, outputs),
        objective(instructions),
    )
}

/// What messages are made of.
fn structure(layout: Layout, inputs: &[Part<'_>], outputs: &[Part<'_>]) -> String {
    let (inputs, outputs_as_text) = (fields(layout, inputs), fields(layout, outputs));
    match layout {
        Layout::Chat => {
            let parts = [
                STRUCTURE,
                strip(&inputs),
                strip(&outputs_as_text),
                &header::marker(COMPLETED),
            ];
            parts.join("\n\n")
        }
        Layout::Json => [
            STRUCTURE,
            "Inputs will have the following structure:",
            strip(&inputs),
            "Outputs will be a JSON object with the following fields.",
            &json_fields(outputs),
        ]
        .join("\n\n"),
        Layout::Xml => [STRUCTURE, &inputs, &outputs_as_text].join("\n\n"),
    }
}

/// The numbered list of fields.
fn descriptions(parts: &[Part<'_>], dialect: &Dialect) -> String {
    let mut out = String::new();
    for (at, part) in parts.iter().enumerate() {
        let field = part.field;
        if at > 0 {
            out.push('\n');
        }
        _ = write!(out, "{}. `{}` (", at + 1, field.name);
        field.ty.write_display_name(&mut out, dialect);
        _ = write!(
            out,
            "): {}{}",
            field.desc.as_deref().unwrap_or_default(),
            part.external.types
        );
        if let Some(constraints) = field.constraints.as_deref().filter(|text| !text.is_empty()) {
            _ = write!(out, "\nConstraints: {constraints}");
        }
    }
    strip(&out).to_owned()
}

/// What stands for a field's value: its name in braces and, for an output, what the value must be.
fn hint(part: &Part<'_>) -> String {
    let name = &part.field.name;
    let note = if part.field.kind == FieldKind::Output {
        part.note()
    } else {
        String::new()
    };
    if note.is_empty() {
        format!("{{{name}}}")
    } else {
        format!("{{{name}}}        # note: the value you produce {note}")
    }
}

fn fields(layout: Layout, parts: &[Part<'_>]) -> String {
    let field = |part: &Part<'_>| {
        if layout == Layout::Xml
            && part.field.kind == FieldKind::Output
            && let Some(pattern) = part.pattern()
        {
            return pattern;
        }
        let (open, close) = frame(layout, &part.field.name);
        [open, hint(part), close].concat()
    };
    parts.iter().map(field).collect::<Vec<_>>().join("\n\n")
}

fn json_fields(parts: &[Part<'_>]) -> String {
    let mut out = String::new();
    let mut json = JsonWriter::new(&mut out, JsonStyle::Indented);
    json.open('{');
    for part in parts {
        json.key(&part.field.name);
        json.string(&hint(part));
    }
    json.close('}');
    out
}

fn objective(instructions: &str) -> String {
    let mut out = String::from("In adhering to this structure, your objective is: ");
    for line in splitlines(&dedent(instructions)) {
        out.push_str("\n        ");
        out.push_str(line);
    }
    out
}

/// The reminder of what the reply must look like, at the end of a request.
pub(super) fn requirements(layout: Layout, outputs: &[Part<'_>], dialect: &Dialect) -> String {
    let ending = format!(
        ", and then ending with the marker for `{}`.",
        header::marker(COMPLETED)
    );
    let (start, mark, end): (_, fn(&str) -> String, _) = match layout {
        Layout::Chat => (
            "Respond with the corresponding output fields, starting with the field ",
            header::marker,
            &*ending,
        ),
        Layout::Json => (
            "Respond with a JSON object in the following order of fields: ",
            str::to_owned,
            ".",
        ),
        Layout::Xml => (
            "Respond with the corresponding output fields wrapped in XML tags ",
            |name| format!("<{name}>"),
            ".",
        ),
    };
    let mut out = String::from(start);
    for (at, part) in outputs.iter().enumerate() {
        if at > 0 {
            out.push_str(", then ");
        }
        _ = write!(out, "`{}`", mark(&part.field.name));
        if layout != Layout::Xml {
            push_type(&mut out, part, dialect);
        }
    }
    out.push_str(end);
    if layout == Layout::Xml {
        let patterns: Vec<String> = outputs.iter().filter_map(Part::pattern).collect();
        if !patterns.is_empty() {
            _ = write!(
                out,
                " Use this nested XML structure: {}",
                patterns.join(" ")
            );
        }
    }
    out
}

/// Of which type an output must be; text may be any.
fn push_type(out: &mut String, part: &Part<'_>, dialect: &Dialect) {
    if part.external.tool_calls {
        out.push_str(
            r#" (must be a JSON object like {"tool_calls": [{"name": "...", "args": {...}}]})"#,
        );
    } else if part.field.ty != Type::Str {
        out.push_str(" (must be formatted as a valid Python ");
        part.field.ty.write_display_name(out, dialect);
        out.push(')');
    }
}

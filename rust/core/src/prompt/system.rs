//! The constant text of a prompt: the system message, and the reminder at the end of a request.

use std::fmt::Write as _;

use super::plan::{Layout, Part, header};
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
) -> String {
    let structure = match layout {
        Layout::Chat => [
            STRUCTURE,
            &chat_fields(inputs),
            &chat_fields(outputs),
            "[[ ## completed ## ]]\n",
        ]
        .join("\n\n"),
        Layout::Json => [
            STRUCTURE,
            "Inputs will have the following structure:",
            &chat_fields(inputs),
            "Outputs will be a JSON object with the following fields.",
            &json_fields(outputs),
        ]
        .join("\n\n"),
    };
    format!(
        "Your input fields are:\n{}\nYour output fields are:\n{}\n{}\n{}",
        descriptions(inputs),
        descriptions(outputs),
        strip(&structure),
        objective(instructions),
    )
}

/// The numbered list of fields.
fn descriptions(parts: &[Part<'_>]) -> String {
    let mut out = String::new();
    for (at, part) in parts.iter().enumerate() {
        let field = part.field;
        if at > 0 {
            out.push('\n');
        }
        _ = write!(out, "{}. `{}` (", at + 1, field.name);
        field.ty.write_display_name(&mut out);
        _ = write!(
            out,
            "): {}{}",
            field.desc.as_deref().unwrap_or_default(),
            part.foreign.types
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

fn chat_fields(parts: &[Part<'_>]) -> String {
    let fields: Vec<String> = parts
        .iter()
        .map(|part| header(&part.field.name) + &hint(part))
        .collect();
    strip(&fields.join("\n\n")).to_owned()
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
pub(super) fn requirements(layout: Layout, outputs: &[Part<'_>]) -> String {
    let (start, marker, end) = match layout {
        Layout::Chat => (
            "Respond with the corresponding output fields, starting with the field ",
            ("`[[ ## ", " ## ]]`"),
            ", and then ending with the marker for `[[ ## completed ## ]]`.",
        ),
        Layout::Json => (
            "Respond with a JSON object in the following order of fields: ",
            ("`", "`"),
            ".",
        ),
    };
    let mut out = String::from(start);
    for (at, part) in outputs.iter().enumerate() {
        if at > 0 {
            out.push_str(", then ");
        }
        out.push_str(marker.0);
        out.push_str(&part.field.name);
        out.push_str(marker.1);
        if part.foreign.tool_calls {
            out.push_str(
                r#" (must be a JSON object like {"tool_calls": [{"name": "...", "args": {...}}]})"#,
            );
        } else if part.field.ty != Type::Str {
            out.push_str(" (must be formatted as a valid Python ");
            part.field.ty.write_display_name(&mut out);
            out.push(')');
        }
    }
    out.push_str(end);
    out
}

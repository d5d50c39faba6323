//! What a prompt asks of the value of an output field.

use super::Type;

/// The note that a prompt puts beside an output field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Plain text: nothing to ask.
    Nothing,
    /// The whole note, from "must be" on.
    Text(String),
    /// Only Python can say: the type, or a part of it, is not Rust's.
    Deferred,
}

impl Type {
    /// The note for an output field of this type; input fields have none.
    #[must_use]
    pub fn note(&self) -> Note {
        match self {
            Self::Str => Note::Nothing,
            Self::Bool => Note::Text("must be True or False".into()),
            Self::Int => Note::Text("must be a single int value".into()),
            Self::Float => Note::Text("must be a single float value".into()),
            Self::Literal(_) if !self.is_native() => Note::Deferred,
            Self::Literal(values) => {
                let mut text = String::from("must exactly match (no extra characters) one of: ");
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        text.push_str("; ");
                    }
                    value.write_str(&mut text);
                }
                Note::Text(text)
            }
            _ => self.json_schema().map_or(Note::Deferred, |schema| {
                Note::Text(format!("must adhere to the JSON schema: {schema}"))
            }),
        }
    }
}

//! Messages as the JSON of a request's body.

use super::render::Role;
use crate::text::push_json_string;

/// The messages of a call as a JSON array, each written as it is rendered: no message is ever an object.
///
/// The text is that of Python's `json.dumps(messages, ensure_ascii=False, separators=(",", ":"))`.
#[derive(Debug)]
pub struct Body(String);

impl Body {
    /// The array with its first message, the system's, which a plan has as JSON.
    pub(super) fn new(system: &str) -> Self {
        let mut out = String::with_capacity(2 * system.len() + 512);
        out.push('[');
        out.push_str(system);
        Self(out)
    }

    /// Append a message.
    pub fn message(&mut self, role: Role, text: &str) {
        self.0.push(',');
        let role = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        push(role, text, &mut self.0);
    }

    /// The array.
    #[must_use]
    pub fn finish(self) -> String {
        self.0 + "]"
    }
}

/// The system message as JSON.
pub(super) fn system(text: &str) -> Box<str> {
    let mut out = String::with_capacity(text.len() + text.len() / 16 + 32);
    push("system", text, &mut out);
    out.into()
}

fn push(role: &str, text: &str, out: &mut String) {
    out.push_str("{\"role\":\"");
    out.push_str(role);
    out.push_str("\",\"content\":");
    push_json_string(text, out);
    out.push('}');
}

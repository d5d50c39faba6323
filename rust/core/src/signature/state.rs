//! What DSPy saves of a signature: the instructions, and prefix and description by position.

use super::{Field, Instructions, Signature};

/// The saved part of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldState {
    /// The prefix.
    pub prefix: String,
    /// The description.
    pub desc: String,
}

impl Signature {
    /// The saved part of every field, in order.
    #[must_use]
    pub fn field_states(&self) -> Vec<FieldState> {
        let state = |field: &Field| FieldState {
            prefix: field.prefix().into_owned(),
            desc: field.desc().into_owned(),
        };
        self.fields.iter().map(state).collect()
    }

    /// This signature with saved instructions and saved texts.
    ///
    /// Fields are matched by position, as DSPy does: what is missing stays as it is, what is left over is
    /// ignored. Empty instructions stay empty here.
    #[must_use]
    pub fn with_state(&self, instructions: &str, states: &[FieldState]) -> Self {
        let mut fields = self.fields.to_vec();
        for (field, state) in fields.iter_mut().zip(states) {
            field.set_prefix(&state.prefix);
            field.set_desc(&state.desc);
        }
        let clean = crate::text::cleandoc(instructions);
        Self::new(fields, &Instructions::Exact(&clean))
    }
}

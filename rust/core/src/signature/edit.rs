//! New signatures out of old ones, by DSPy's rules.

use std::fmt;

use super::{Field, FieldKind, Instructions, Signature};

/// A place that a section of fields does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// The index as it was given.
    pub index: isize,
    /// Inputs or outputs.
    pub kind: FieldKind,
    /// How many fields the section has.
    pub len: usize,
}

impl fmt::Display for BadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, kind, len } = self;
        let (kind, first) = (kind.name(), len + 1);
        write!(
            f,
            "there is no place {index} among the {kind} fields, only -{first} to {len}"
        )
    }
}

impl std::error::Error for BadIndex {}

impl Signature {
    /// With other instructions; the empty text stands for the default.
    #[must_use]
    pub fn with_instructions(&self, instructions: &str) -> Self {
        rebuild(self.fields.to_vec(), instructions)
    }

    /// With a paragraph behind the instructions.
    #[must_use]
    pub fn append_instructions(&self, instructions: &str) -> Self {
        self.with_instructions(&format!("{}\n\n{instructions}", self.instructions))
    }

    /// With a field in the section of its kind, at `index`; negative ones count from the end, -1 appends.
    ///
    /// As in DSPy's dict of fields, a field whose name is there already takes its place.
    pub fn insert(&self, index: isize, field: Field) -> Result<Self, BadIndex> {
        let (mut inputs, mut outputs) = (self.inputs().to_vec(), self.outputs().to_vec());
        let section = match field.kind {
            FieldKind::Input => &mut inputs,
            FieldKind::Output => &mut outputs,
        };
        let len = section.len();
        let at = if index < 0 {
            index.checked_add_unsigned(len + 1)
        } else {
            Some(index)
        };
        let at = at
            .and_then(|at| usize::try_from(at).ok())
            .filter(|&at| at <= len);
        let at = at.ok_or(BadIndex {
            index,
            kind: field.kind,
            len,
        })?;
        let name = field.name.clone();
        section.insert(at, field);
        let mut fields: Vec<Field> = inputs.into_iter().chain(outputs).collect();
        let mut same = (0..fields.len()).filter(|&at| fields[at].name == name);
        if let (Some(first), Some(second)) = (same.next(), same.next()) {
            let last = fields.remove(second);
            fields[first] = last;
        }
        Ok(rebuild(fields, &self.instructions))
    }

    /// Without the field of this name, if there is one.
    #[must_use]
    pub fn delete(&self, name: &str) -> Self {
        let fields = self
            .fields
            .iter()
            .filter(|field| &*field.name != name)
            .cloned()
            .collect();
        rebuild(fields, &self.instructions)
    }

    /// With another field in the place of the one with its name, if there is one.
    #[must_use]
    pub fn replace(&self, field: &Field) -> Self {
        let swap = |known: &Field| {
            if known.name == field.name {
                field.clone()
            } else {
                known.clone()
            }
        };
        rebuild(self.fields.iter().map(swap).collect(), &self.instructions)
    }

    /// The same signature for a caller that keeps external objects in other places.
    #[must_use]
    pub fn renumber(mut self, renumber: &mut dyn FnMut(u32) -> u32) -> Self {
        for field in &mut self.fields {
            field.ty.renumber(renumber);
            field.external = field.external.map(&mut *renumber);
        }
        self
    }
}

fn rebuild(fields: Vec<Field>, instructions: &str) -> Signature {
    Signature::new(fields, &Instructions::Given(instructions))
}

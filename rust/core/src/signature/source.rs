//! A signature as text, and whether its text says all of it.

use super::{Field, FieldDefault, Signature, default_instructions};

impl Signature {
    /// The fields with their types, as text that reads back to the same fields, both here and in DSPy.
    ///
    /// ```
    /// use dspex_core::signature::{Instructions, Limits, NativeOnly, lower, parse};
    ///
    /// let source = r"a:int|None,b->c : Literal['-\x3e']";
    /// let limits = Limits::default();
    /// let ast = parse(source, &limits).unwrap();
    /// let signature = lower(source, &ast, &Instructions::Default, &limits, &mut NativeOnly).unwrap();
    /// assert_eq!(signature.text(), r"a: Optional[int], b -> c: Literal['-\x3e']");
    /// ```
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        write_fields(&mut out, self.inputs());
        out.push_str(if self.inputs().is_empty() {
            "->"
        } else {
            " ->"
        });
        if !self.outputs().is_empty() {
            out.push(' ');
        }
        write_fields(&mut out, self.outputs());
        out
    }

    /// Whether [`Signature::text`] says everything about the fields: no description, default or the like is lost.
    #[must_use]
    pub fn is_textual(&self) -> bool {
        let textual = |field: &Field| {
            let texts = [&field.desc, &field.prefix, &field.constraints];
            field.external.is_none()
                && field.default == FieldDefault::Required
                && texts.iter().all(|text| text.is_none())
        };
        self.fields.iter().all(textual)
    }

    /// Whether the instructions are the sentence made of the names.
    #[must_use]
    pub fn has_default_instructions(&self) -> bool {
        *self.instructions == *default_instructions(&self.fields, self.input_count)
    }
}

fn write_fields(out: &mut String, fields: &[Field]) {
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push_str(&field.name);
        if field.typed {
            out.push_str(": ");
            field.ty.write_source(out);
        }
    }
}

//! How much text a signature may be.

/// Bounds on text that may come from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bytes of UTF-8. Default: 65,536.
    pub length: usize,
    /// Nested brackets, subscripts, dots and quoted types. At zero only plain names pass. Default: 64.
    pub depth: usize,
    /// Fields on both sides together. Default: 1,024.
    pub fields: usize,
}

impl Limits {
    /// Room for any signature that people write, and little enough for text from anywhere.
    pub const DEFAULT: Self = Self {
        length: 65_536,
        depth: 64,
        fields: 1_024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

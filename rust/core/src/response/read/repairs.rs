//! What was done to a reply before it could be read.

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairCode {
    /// Halves of surrogate pairs were put together or replaced.
    Surrogate,
    /// Broken JSON was made whole.
    Json,
    /// JSON was cut off, and closed.
    CutOff,
    /// The value is what stands between the field's own keys, of a reply that is no JSON.
    JsonKeys,
    /// The value was found between the field's own tags.
    Xml,
    /// The field's marker is decorated.
    MarkerDecorated,
    /// The field's marker stands inside a line.
    MarkerInLine,
    /// The whole reply is the value of the only field.
    NoMarker,
    /// A fence around the value was taken off.
    Fence,
    /// Emphasis, quotes or a full stop around the value were taken off.
    Decoration,
    /// A choice was found in other words.
    Case,
    /// A number was found with a unit or separators.
    Number,
    /// The one item stands where a list should.
    OneItem,
}

impl RepairCode {
    const ALL: [Self; 13] = [
        Self::Surrogate,
        Self::Json,
        Self::CutOff,
        Self::JsonKeys,
        Self::Xml,
        Self::MarkerDecorated,
        Self::MarkerInLine,
        Self::NoMarker,
        Self::Fence,
        Self::Decoration,
        Self::Case,
        Self::Number,
        Self::OneItem,
    ];

    /// The code as users know it, which stays as it is.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Surrogate => "surrogate",
            Self::Json => "json",
            Self::CutOff => "cut-off",
            Self::JsonKeys => "json-keys",
            Self::Xml => "xml",
            Self::MarkerDecorated => "marker-decorated",
            Self::MarkerInLine => "marker-in-line",
            Self::NoMarker => "no-marker",
            Self::Fence => "fence",
            Self::Decoration => "decoration",
            Self::Case => "case",
            Self::Number => "number",
            Self::OneItem => "one-item",
        }
    }

    /// The code of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The output that it was done for; None for the reply as a whole.
    pub output: Option<usize>,
    /// What it was.
    pub code: RepairCode,
    /// The text it was done to, as much as is shown of it.
    pub text: String,
}

impl Repair {
    /// A repair that shows the beginning of `text`.
    #[must_use]
    pub fn new(output: Option<usize>, code: RepairCode, text: &str) -> Self {
        Self {
            output,
            code,
            text: text.chars().take(SHOWN).collect(),
        }
    }
}

/// Characters of a reply that a repair or a reason shows.
pub(crate) const SHOWN: usize = 80;

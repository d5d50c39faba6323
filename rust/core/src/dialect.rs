//! What DSPy's versions write and read differently, in one table.
//!
//! DSPy's prompts change between its minor versions. A *dialect* is the set of those differences for one of
//! them: whoever renders or reads asks the dialect, and nobody asks for a version. A new version of DSPy is a
//! new row here, and differential tests against it.

/// One version of DSPy, as far as it differs from the others.
///
/// ```
/// use dspex_core::dialect::Dialect;
///
/// assert!(Dialect::named("3.3").unwrap().names_pipes);
/// assert_eq!(Dialect::newest(), Dialect::all().last().unwrap());
/// ```
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // a table has as many columns as there are differences
pub struct Dialect {
    /// The first two numbers of DSPy's version.
    pub name: &'static str,
    /// Whether a union that Python code writes as `int | None` is called `UnionType[...]`; otherwise all unions
    /// are `Union[...]`.
    pub names_pipes: bool,
    /// Whether a type of DSPy's that stands beside another in `Annotated` describes itself in the prompt.
    pub noted_types: bool,
    /// Whether a user's turn in a conversation ends in the reminder of the layout, as the request does.
    pub turns_end_in_reminder: bool,
    /// Whether a part that pydantic cannot write becomes text alone; otherwise the whole value does.
    pub parts_become_text: bool,
    /// Whether text is converted to a choice that is none: `2` for `Literal[1, 2]`.
    pub converts_choices: bool,
    /// Whether an error of any class says that a reply cannot be read; otherwise only a `ValueError` does,
    /// and what else a type of the user's raises reaches the caller.
    pub any_error_refuses: bool,
}

/// In order of their versions.
static DIALECTS: [Dialect; 2] = [
    Dialect {
        name: "3.3",
        names_pipes: true,
        noted_types: false,
        turns_end_in_reminder: false,
        parts_become_text: false,
        converts_choices: false,
        any_error_refuses: true,
    },
    Dialect {
        name: "3.4",
        names_pipes: false,
        noted_types: true,
        turns_end_in_reminder: true,
        parts_become_text: true,
        converts_choices: true,
        any_error_refuses: false,
    },
];

impl Dialect {
    /// All dialects, the oldest first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &DIALECTS
    }

    /// The dialect of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|dialect| dialect.name == name)
    }

    /// The newest dialect.
    #[must_use]
    pub fn newest() -> &'static Self {
        &DIALECTS[DIALECTS.len() - 1]
    }
}

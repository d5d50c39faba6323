//! A template compiled: the engine's instructions, and the source that they borrow from.

use std::collections::BTreeMap;
use std::fmt;

use minijinja::machinery::{CodeGenerator, Instructions, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, Value};
use self_cell::self_cell;

use super::rendering::Injected;
use super::rewrite::rewrite;

/// What stands for the template's name. It never reaches the user.
const NAME: &str = "template";

struct Code<'source> {
    instructions: Instructions<'source>,
    blocks: BTreeMap<&'source str, Instructions<'source>>,
}

self_cell!(
    struct Cell {
        owner: Box<str>,
        #[covariant]
        dependent: Code,
    }
);

/// A source and what became of it.
pub(super) struct Program(Cell);

impl Program {
    /// Compile a source. The names that it asks for come with it.
    pub(super) fn compile(source: &str) -> Result<(Self, Vec<String>), Error> {
        let mut names = Vec::new();
        let cell = Cell::try_new(source.into(), |source| {
            let tree = parse(source, NAME, SyntaxConfig::default())?;
            let (tree, asked) = rewrite(&tree);
            names.extend(asked.into_iter().map(str::to_owned));
            let mut generator = CodeGenerator::new(NAME, source);
            generator.compile_stmt(&tree);
            let (instructions, blocks) = generator.finish();
            Ok::<_, Error>(Code {
                instructions,
                blocks,
            })
        })?;
        Ok((Self(cell), names))
    }

    pub(super) fn source(&self) -> &str {
        self.0.borrow_owner()
    }

    /// Run it; the text goes to the end of `out`. Gives how many field markers the values held.
    pub(super) fn run(
        &self,
        environment: &Environment<'static>,
        values: Value,
        out: &mut String,
    ) -> Result<usize, Error> {
        let code = self.0.borrow_dependent();
        let mut out = make_string_output(out);
        let (instructions, blocks) = (&code.instructions, &code.blocks);
        let (_, state) = eval(
            environment,
            instructions,
            values,
            blocks,
            &mut out,
            AutoEscape::None,
        )?;
        let injected = state.get_extension::<Injected>();
        Ok(injected.map_or(0, |injected| injected.0))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.source()).finish()
    }
}

//! Text to tokens, by Python's rules for what stands between a function's parentheses.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfkc};

use super::cursor::Cursor;
use super::error::{Code, SignatureError, Span};
use super::literal;
use crate::text::unicode::{is_xid_continue, is_xid_start};
use crate::types::Constant;

/// The smallest piece of a signature that means something.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// An identifier in NFKC.
    Name(Cow<'a, str>),
    /// A word that Python keeps for itself, `None`, `True` and `False` aside.
    Keyword(&'a str),
    /// A number, a string, bytes, `None`, `True` or `False`.
    Constant(Constant),
    /// `...`
    Ellipsis,
    /// One of `, : = [ ] ( ) { } | . - + * /` or any other character that Python has a use for.
    Symbol(char),
    /// The end of this side of the arrow.
    End,
}

/// Makes tokens of one side of the arrow.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(source: &'a str, side: Span) -> Self {
        Self {
            cursor: Cursor::new(source, side),
        }
    }

    pub(super) fn next(&mut self) -> Result<(Token<'a>, Span), SignatureError> {
        self.eat_blank()?;
        let start = self.cursor.position();
        let token = match self.cursor.peek() {
            None => Token::End,
            Some(c) if is_name_start(c) => {
                if literal::string_starts(self.cursor.rest()) {
                    Token::Constant(literal::string(&mut self.cursor)?)
                } else {
                    self.word()
                }
            }
            Some('\'' | '"') => Token::Constant(literal::string(&mut self.cursor)?),
            Some('0'..='9') => Token::Constant(literal::number(&mut self.cursor)?),
            Some('.') if self.cursor.eat_str("...") => Token::Ellipsis,
            Some('.')
                if self
                    .cursor
                    .rest()
                    .as_bytes()
                    .get(1)
                    .is_some_and(u8::is_ascii_digit) =>
            {
                Token::Constant(literal::number(&mut self.cursor)?)
            }
            Some(c) if c.is_ascii_punctuation() && !matches!(c, '$' | '?' | '!' | '`' | '\\') => {
                self.cursor.bump();
                Token::Symbol(c)
            }
            Some(c) => {
                self.cursor.bump();
                let message = format!("{} has no place in a signature", describe(c));
                return Err(SignatureError::new(
                    Code::Syntax,
                    self.cursor.span_from(start),
                    message,
                ));
            }
        };
        Ok((token, self.cursor.span_from(start)))
    }

    /// Blanks, line breaks, joined lines and comments.
    fn eat_blank(&mut self) -> Result<(), SignatureError> {
        loop {
            self.cursor
                .eat_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            let start = self.cursor.position();
            if self.cursor.eat('#') {
                self.cursor.eat_while(|c| !matches!(c, '\n' | '\r'));
                if self.cursor.peek().is_none() {
                    let message = "the comment runs to the end of this side and hides it";
                    return Err(SignatureError::new(
                        Code::CommentAtEnd,
                        self.cursor.span_from(start),
                        message,
                    ));
                }
            } else if !(self.cursor.eat_str("\\\n") || self.cursor.eat_str("\\\r")) {
                return Ok(());
            }
        }
    }

    fn word(&mut self) -> Token<'a> {
        let text = self.cursor.eat_while(is_name_continue);
        match text {
            "None" => Token::Constant(Constant::None),
            "True" => Token::Constant(Constant::Bool(true)),
            "False" => Token::Constant(Constant::Bool(false)),
            word if word.is_ascii() || is_nfkc(word) => match keyword(word) {
                Some(keyword) => Token::Keyword(keyword),
                None => Token::Name(Cow::Borrowed(word)),
            },
            word => {
                // Python looks for keywords before it normalises and would take this one for a name, which no
                // call could pass and no text could write again.
                let name: String = word.nfkc().collect();
                match keyword(&name) {
                    Some(keyword) => Token::Keyword(keyword),
                    None => Token::Name(Cow::Owned(name)),
                }
            }
        }
    }
}

/// The keyword that a word is. A `match` compares a word with those of its length alone, by whole registers: a search
/// in a sorted list took a sixth of the time that a signature takes.
fn keyword(word: &str) -> Option<&'static str> {
    macro_rules! one_of {
        ($($keyword:literal)*) => {
            match word {
                $($keyword => Some($keyword),)*
                _ => None,
            }
        };
    }
    one_of! {
        "False" "None" "True" "and" "as" "assert" "async" "await" "break" "class" "continue"
        "def" "del" "elif" "else" "except" "finally" "for" "from" "global" "if" "import"
        "in" "is" "lambda" "nonlocal" "not" "or" "pass" "raise" "return" "try" "while"
        "with" "yield"
    }
}

/// A character for an error message: itself, or its code where it would not show.
pub(super) fn describe(c: char) -> String {
    if c.is_ascii_graphic() || c.is_alphanumeric() {
        format!("'{c}'")
    } else {
        format!("U+{:04X}", u32::from(c))
    }
}

fn is_name_start(c: char) -> bool {
    c == '_' || is_xid_start(c)
}

pub(super) fn is_name_continue(c: char) -> bool {
    is_xid_continue(c)
}

//! Tokens to a tree. One function per production; the grammar stands in front of each.

use std::borrow::Cow;
use std::mem;

use super::ast::{Expr, ExprKind, Parameter};
use super::error::{Code, SignatureError, Span};
use super::lexer::{Lexer, Token, describe};
use super::limits::Limits;
use crate::types::Constant;

type Result<T> = std::result::Result<T, SignatureError>;

/// Both sides of the arrow, as they were written.
#[derive(Clone, Debug)]
pub struct Ast<'a> {
    /// The fields before the arrow.
    pub inputs: Vec<Parameter<'a>>,
    /// The fields behind it.
    pub outputs: Vec<Parameter<'a>>,
}

/// Reads a signature.
///
/// ```text
/// signature: side '->' side
/// ```
///
/// Like DSPy, this looks for the arrow before anything else, so that it counts in strings and comments too.
///
/// ```
/// use dspex_core::signature::{Limits, parse};
///
/// let source = "question -> answer: str]";
/// let error = parse(source, &Limits::default()).unwrap_err();
/// assert_eq!(&source[error.span.start..error.span.end], "]");
/// ```
pub fn parse<'a>(source: &'a str, limits: &Limits) -> Result<Ast<'a>> {
    if source.len() > limits.length {
        // The whole text is the place: any shorter one might cut a character in two.
        let (length, limit) = (source.len(), limits.length);
        let message = format!("the text has {length} bytes, more than the {limit} allowed");
        return Err(SignatureError::new(
            Code::TooLong,
            Span {
                start: 0,
                end: source.len(),
            },
            message,
        ));
    }
    let mut arrows = source.match_indices("->").map(|(start, _)| Span {
        start,
        end: start + 2,
    });
    let Some(arrow) = arrows.next() else {
        let end = Span {
            start: source.len(),
            end: source.len(),
        };
        return Err(SignatureError::new(
            Code::MissingArrow,
            end,
            "there is no '->'",
        ));
    };
    if let Some(second) = arrows.next() {
        return Err(SignatureError::new(
            Code::ManyArrows,
            second,
            "there is more than one '->'",
        ));
    }
    let left = Span {
        start: 0,
        end: arrow.start,
    };
    let right = Span {
        start: arrow.end,
        end: source.len(),
    };
    let inputs = Parser::new(source, left, limits)?
        .side()
        .map_err(|error| blame_arrow(error, arrow))?;
    let outputs = Parser::new(source, right, limits)?.side()?;
    let count = inputs.len() + outputs.len();
    if count > limits.fields {
        let beyond = inputs
            .iter()
            .chain(&outputs)
            .nth(limits.fields)
            .map_or(arrow, |field| field.span);
        let limit = limits.fields;
        let message = format!("there are {count} fields, more than the {limit} allowed");
        return Err(SignatureError::new(Code::TooManyFields, beyond, message));
    }
    Ok(Ast { inputs, outputs })
}

/// Reads a type on its own: what stands in quotes, as in `list['int']`.
pub(super) fn parse_type<'a>(source: &'a str, part: Span, limits: &Limits) -> Result<Expr<'a>> {
    let mut parser = Parser::new(source, part, limits)?;
    let expr = parser.expr()?;
    match parser.token {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("the end of the quoted type")),
    }
}

/// A string without an end that stops at the arrow was cut in two by it.
fn blame_arrow(error: SignatureError, arrow: Span) -> SignatureError {
    if error.code == Code::UnterminatedString && error.span.end == arrow.start {
        return SignatureError::new(Code::ArrowInString, arrow, "the '->' stands inside quotes");
    }
    error
}

struct Parser<'a, 'l> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    span: Span,
    depth: usize,
    limits: &'l Limits,
}

impl<'a, 'l> Parser<'a, 'l> {
    fn new(source: &'a str, part: Span, limits: &'l Limits) -> Result<Self> {
        // Python reads no source that holds a NUL, be it in a string or a comment.
        if let Some(at) = source[part.start..part.end].find('\0') {
            let start = part.start + at;
            let span = Span {
                start,
                end: start + 1,
            };
            let message = format!("{} has no place in a signature", describe('\0'));
            return Err(SignatureError::new(Code::Syntax, span, message));
        }
        let mut lexer = Lexer::new(source, part);
        let (token, span) = lexer.next()?;
        Ok(Self {
            lexer,
            token,
            span,
            depth: 0,
            limits,
        })
    }

    /// Steps to the next token and returns the one passed, with its place.
    fn bump(&mut self) -> Result<(Token<'a>, Span)> {
        let (token, span) = self.lexer.next()?;
        Ok((
            mem::replace(&mut self.token, token),
            mem::replace(&mut self.span, span),
        ))
    }

    fn at(&self, symbol: char) -> bool {
        self.token == Token::Symbol(symbol)
    }

    fn eat(&mut self, symbol: char) -> Result<bool> {
        let found = self.at(symbol);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    /// `side: [parameter (',' parameter)* [',']]`
    fn side(mut self) -> Result<Vec<Parameter<'a>>> {
        let mut fields = Vec::new();
        let mut has_default = false;
        while self.token != Token::End {
            fields.push(self.parameter(&mut has_default)?);
            if fields.len() > self.limits.fields || !self.eat(',')? {
                break;
            }
        }
        match self.token {
            Token::End => Ok(fields),
            // Beyond the limit the caller reports it; nothing more is read.
            _ if fields.len() > self.limits.fields => Ok(fields),
            _ => Err(self.unexpected("',' or the end of the fields")),
        }
    }

    /// `parameter: NAME [':' expr] ['=' default]`
    fn parameter(&mut self, has_default: &mut bool) -> Result<Parameter<'a>> {
        let (name, span) = match &mut self.token {
            Token::Name(name) => (mem::take(name), self.span),
            Token::Keyword(word) => {
                let message = format!("'{word}' is a keyword and cannot name a field");
                return Err(SignatureError::new(Code::KeywordName, self.span, message));
            }
            Token::Constant(constant @ (Constant::None | Constant::Bool(_))) => {
                let mut message = String::from("'");
                constant.write_str(&mut message);
                message.push_str("' is a keyword and cannot name a field");
                return Err(SignatureError::new(Code::KeywordName, self.span, message));
            }
            Token::Symbol(symbol @ ('*' | '/')) => {
                let message = format!("'{symbol}' marks parameters of a function, not fields");
                return Err(SignatureError::new(
                    Code::ParameterMarker,
                    self.span,
                    message,
                ));
            }
            _ => return Err(self.unexpected("the name of a field")),
        };
        self.bump()?;
        let annotation = if self.eat(':')? {
            Some(self.expr()?)
        } else {
            None
        };
        if self.eat('=')? {
            *has_default = true;
            self.default()?;
        } else if *has_default {
            let message = format!("'{name}' has no default and stands behind a field that has one");
            return Err(SignatureError::new(Code::DefaultOrder, span, message));
        }
        Ok(Parameter {
            name,
            span,
            annotation,
        })
    }

    /// `expr: postfix ('|' postfix)*`
    fn expr(&mut self) -> Result<Expr<'a>> {
        let first = self.postfix()?;
        if !self.at('|') {
            return self.refuse_operator(first);
        }
        let mut span = first.span;
        let mut members = vec![first];
        while self.eat('|')? {
            let member = self.postfix()?;
            span = span.to(member.span);
            members.push(member);
        }
        self.refuse_operator(Expr {
            kind: ExprKind::Union(members),
            span,
        })
    }

    /// Python would go on reading an expression here, DSPy would refuse it: say so, and not that a comma is missing.
    fn refuse_operator(&self, left: Expr<'a>) -> Result<Expr<'a>> {
        const OPERATORS: &str = "+-*/%&^@<>~";
        let operator = match &self.token {
            Token::Symbol(symbol) if OPERATORS.contains(*symbol) => symbol.to_string(),
            Token::Keyword(word @ ("and" | "or" | "if" | "is" | "in" | "not")) => (*word).into(),
            _ => return Ok(left),
        };
        let message = format!("'{operator}' does not make a type");
        Err(SignatureError::new(Code::Expression, self.span, message))
    }

    /// `postfix: atom ('.' NAME | '[' arguments ']' | '(' fields ')')*`
    fn postfix(&mut self) -> Result<Expr<'a>> {
        let depth = self.depth;
        let mut expr = self.atom()?;
        loop {
            expr = match self.token {
                Token::Symbol('.') => self.attribute(expr)?,
                Token::Symbol('[') => self.subscript(expr)?,
                Token::Symbol('(') => self.field_call(&expr)?,
                _ => break,
            };
        }
        self.depth = depth;
        Ok(expr)
    }

    /// `'.' NAME`
    fn attribute(&mut self, base: Expr<'a>) -> Result<Expr<'a>> {
        self.deepen()?;
        self.bump()?;
        let Token::Name(name) = &mut self.token else {
            return Err(self.unexpected("a name behind the dot"));
        };
        let name = mem::take(name);
        let (_, end) = self.bump()?;
        Ok(Expr {
            span: base.span.to(end),
            kind: ExprKind::Attribute(Box::new(base), name),
        })
    }

    /// `'[' arguments ']'`
    fn subscript(&mut self, base: Expr<'a>) -> Result<Expr<'a>> {
        self.deepen()?;
        let (_, open) = self.bump()?;
        let arguments = self.expressions(']', open)?;
        let (_, close) = self.bump()?;
        // Python reads `dict[(str, int)]` as `dict[str, int]`.
        let arguments = arguments.only().map_or_else(|items| items, into_items);
        Ok(Expr {
            span: base.span.to(close),
            kind: ExprKind::Subscript(Box::new(base), arguments),
        })
    }

    /// `atom: NAME | CONSTANT | '...' | '(' [expr (',' expr)* [',']] ')'`
    fn atom(&mut self) -> Result<Expr<'a>> {
        let kind = match &mut self.token {
            Token::Name(name) => ExprKind::Name(mem::take(name)),
            Token::Constant(text @ (Constant::Str(_) | Constant::Bytes(_))) => {
                let first = mem::replace(text, Constant::None);
                return self.strings(first);
            }
            Token::Constant(constant) => ExprKind::Constant(mem::replace(constant, Constant::None)),
            Token::Ellipsis => ExprKind::Ellipsis,
            Token::Symbol('(') => return self.parenthesised(),
            Token::Symbol('[' | '{' | '-' | '+' | '~' | '*')
            | Token::Keyword("lambda" | "not" | "await" | "yield") => {
                let message = "this is an expression, not a type";
                return Err(SignatureError::new(Code::Expression, self.span, message));
            }
            _ => return Err(self.unexpected("a type")),
        };
        let (_, span) = self.bump()?;
        Ok(Expr { kind, span })
    }

    fn parenthesised(&mut self) -> Result<Expr<'a>> {
        let depth = self.depth;
        self.deepen()?;
        let (_, open) = self.bump()?;
        let arguments = if self.at(')') {
            Arguments {
                items: Vec::new(),
                comma: true,
            }
        } else {
            self.expressions(')', open)?
        };
        let (_, close) = self.bump()?;
        self.depth = depth;
        let span = open.to(close);
        match arguments.only() {
            Ok(only) => Ok(Expr {
                kind: only.kind,
                span,
            }),
            Err(items) => Ok(Expr {
                kind: ExprKind::Tuple(items),
                span,
            }),
        }
    }

    /// `expr (',' expr)* [',']`, up to the closing bracket, which is left for the caller.
    fn expressions(&mut self, close: char, open: Span) -> Result<Arguments<'a>> {
        let mut items = vec![self.bracketed_expr(close, open)?];
        let mut comma = false;
        while self.eat(',')? {
            comma = true;
            if self.at(close) {
                break;
            }
            items.push(self.bracketed_expr(close, open)?);
        }
        if self.at(close) {
            return Ok(Arguments { items, comma });
        }
        Err(self.unclosed_or(open, &format!("',' or '{close}'")))
    }

    fn bracketed_expr(&mut self, close: char, open: Span) -> Result<Expr<'a>> {
        if self.token == Token::End {
            return Err(self.unclosed_or(open, &format!("a type or '{close}'")));
        }
        self.expr()
    }

    /// `fields: [NAME '=' expr (',' NAME '=' expr)* [',']]`
    fn field_call(&mut self, callee: &Expr<'a>) -> Result<Expr<'a>> {
        if !matches!(&callee.kind, ExprKind::Name(name) if name == "Field") {
            let message = "a call does not make a type";
            return Err(SignatureError::new(Code::Expression, self.span, message));
        }
        self.deepen()?;
        let (_, open) = self.bump()?;
        let mut arguments: Vec<(Cow<'a, str>, Expr<'a>)> = Vec::new();
        while !self.at(')') {
            let key = match &mut self.token {
                Token::Name(key) => mem::take(key),
                _ => return Err(self.unclosed_or(open, "the name of an argument")),
            };
            self.bump()?;
            if !self.eat('=')? {
                return Err(self.unclosed_or(open, "'=' behind the name of an argument"));
            }
            let value = self.bracketed_expr(')', open)?;
            arguments.push((key, value));
            if !self.eat(',')? && !self.at(')') {
                return Err(self.unclosed_or(open, "',' or ')'"));
            }
        }
        let (_, close) = self.bump()?;
        Ok(Expr {
            kind: ExprKind::Field(arguments),
            span: callee.span.to(close),
        })
    }

    /// Strings side by side are one string.
    fn strings(&mut self, first: Constant) -> Result<Expr<'a>> {
        let (_, mut span) = self.bump()?;
        let mut parts = vec![first];
        while let Token::Constant(next @ (Constant::Str(_) | Constant::Bytes(_))) = &mut self.token
        {
            if mem::discriminant(&parts[0]) != mem::discriminant(next) {
                let message = "bytes and text cannot be joined";
                return Err(SignatureError::new(Code::Syntax, self.span, message));
            }
            parts.push(mem::replace(next, Constant::None));
            span = span.to(self.bump()?.1);
        }
        let kind = ExprKind::Constant(join(parts));
        Ok(Expr { kind, span })
    }

    /// A default is read and dropped, as DSPy does.
    ///
    /// ```text
    /// default: ['-' | '+'] postfix | '[' [default (',' default)* [',']] ']'
    ///        | '{' [default [':' default] (',' default [':' default])* [',']] '}'
    /// ```
    fn default(&mut self) -> Result<()> {
        let depth = self.depth;
        self.deepen()?;
        let close = match self.token {
            Token::Symbol('[') => Some(']'),
            Token::Symbol('{') => Some('}'),
            _ => None,
        };
        if let Some(close) = close {
            let (_, open) = self.bump()?;
            // The first item says whether braces hold a dict or a set.
            let mut pairs = None;
            while !self.at(close) {
                if self.token == Token::End {
                    return Err(self.unclosed_or(open, "a value"));
                }
                self.default()?;
                let pair = close == '}' && pairs != Some(false) && self.eat(':')?;
                if pair {
                    self.default()?;
                } else if pairs == Some(true) {
                    return Err(self.unclosed_or(open, "':' behind the key"));
                }
                pairs = Some(pair);
                if !self.eat(',')? && !self.at(close) {
                    return Err(self.unclosed_or(open, &format!("',' or '{close}'")));
                }
            }
            self.bump()?;
        } else {
            while matches!(self.token, Token::Symbol('-' | '+')) {
                self.bump()?;
            }
            let value = self.postfix().and_then(|value| self.refuse_operator(value));
            value.map_err(computed_default)?;
            // A bar makes a union of types, so `refuse_operator` lets it pass; of values it is a computation.
            if self.at('|') {
                return Err(computed(self.span));
            }
        }
        self.depth = depth;
        Ok(())
    }

    fn deepen(&mut self) -> Result<()> {
        if self.depth >= self.limits.depth {
            let limit = self.limits.depth;
            let message = format!("the type is nested deeper than the {limit} levels allowed");
            return Err(SignatureError::new(Code::TooDeep, self.span, message));
        }
        self.depth += 1;
        Ok(())
    }

    /// The side ended inside a bracket, or something else is wrong in it.
    fn unclosed_or(&self, open: Span, expected: &str) -> SignatureError {
        match self.token {
            Token::End => {
                SignatureError::new(Code::UnclosedBracket, open, "the bracket is not closed")
            }
            _ => self.unexpected(expected),
        }
    }

    fn unexpected(&self, expected: &str) -> SignatureError {
        let found = match &self.token {
            Token::Name(name) => format!("'{name}'"),
            Token::Keyword(word) => format!("the keyword '{word}'"),
            Token::Constant(_) => "a value".into(),
            Token::Ellipsis => "'...'".into(),
            Token::Symbol(c) => describe(*c),
            Token::End => "nothing".into(),
        };
        SignatureError::new(
            Code::Syntax,
            self.span,
            format!("expected {expected}, found {found}"),
        )
    }
}

/// Strings, or else bytes, as one.
fn join(mut parts: Vec<Constant>) -> Constant {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    let (mut text, mut bytes) = (String::new(), Vec::new());
    let is_text = matches!(parts.first(), Some(Constant::Str(_)));
    for part in parts {
        match part {
            Constant::Str(part) => text.push_str(&part),
            Constant::Bytes(part) => bytes.extend_from_slice(&part),
            _ => {}
        }
    }
    if is_text {
        Constant::Str(text.into())
    } else {
        Constant::Bytes(bytes.into())
    }
}

/// The items of a tuple, or the one expression that it is.
fn into_items(expr: Expr<'_>) -> Vec<Expr<'_>> {
    match expr.kind {
        ExprKind::Tuple(items) => items,
        _ => vec![expr],
    }
}

/// What is no type may be a value; then the mistake is another.
fn computed_default(error: SignatureError) -> SignatureError {
    if error.code != Code::Expression {
        return error;
    }
    computed(error.span)
}

fn computed(span: Span) -> SignatureError {
    SignatureError::new(Code::DefaultValue, span, "the default is computed")
}

/// What stands between brackets.
struct Arguments<'a> {
    items: Vec<Expr<'a>>,
    /// Whether there was a comma: `(int,)` is a tuple, `(int)` is not.
    comma: bool,
}

impl<'a> Arguments<'a> {
    /// The one expression there is, if no comma makes a tuple of it; else all of them.
    fn only(mut self) -> std::result::Result<Expr<'a>, Vec<Expr<'a>>> {
        match self.items.pop() {
            Some(only) if self.items.is_empty() && !self.comma => Ok(only),
            last => {
                self.items.extend(last);
                Err(self.items)
            }
        }
    }
}

//! A template's tree made anew, so that what it makes of values passes through our hands.
//!
//! The engine counts steps and bytes of text. It does not count what a list made of shared parts is worth to
//! whoever walks through it: `x + x`, forty times over, is one instruction each, and ends the process that looks
//! at the result. There is no hook for operators. So each expression that makes a value is given to a filter of
//! ours (see [`super::bounds`]), whose name no template can write: `x + x` becomes `(x + x) | settle`.
//!
//! The same walk finds the names that a template asks for. The nodes of the engine's tree cannot be changed in
//! place, which is why all of them are built again.

use std::collections::HashSet;

use minijinja::Value;
use minijinja::machinery::Span;
use minijinja::machinery::ast::{
    AutoEscape, BinOp, BinOpKind, Call, CallArg, CallBlock, Compare, CompareOp, Const, Do,
    EmitExpr, EmitRaw, Expr, Filter, FilterBlock, ForLoop, GetAttr, GetItem, IfCond, IfExpr, List,
    Macro, Map, Set, SetBlock, Slice, Spanned, Stmt, Template, Test, Tuple, UnaryOp, UnaryOpKind,
    Var, WithBlock,
};

use super::bounds::{CHARGE, CONCAT, KEY, SETTLE, STORE};

/// Filters whose result is a text, a number, or a value that was there before.
const MAKES_NOTHING: &[&str] = &[
    "abs",
    "attr",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "join",
    "json",
    "last",
    "length",
    "lower",
    "marker",
    "max",
    "min",
    "numbered",
    "replace",
    "round",
    "safe",
    "string",
    "sum",
    "text",
    "title",
    "tojson",
    "trim",
    "upper",
];

/// Filters and tests that compare values with each other.
const COMPARES: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "dictsort",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "groupby",
    "gt",
    "in",
    "le",
    "lessthan",
    "lt",
    "max",
    "min",
    "ne",
    "reject",
    "rejectattr",
    "select",
    "selectattr",
    "sort",
    "unique",
];

/// The tree made anew, and the names that it asks for.
pub(super) fn rewrite<'a>(template: &Stmt<'a>) -> (Stmt<'a>, HashSet<&'a str>) {
    let mut rewriter = Rewriter {
        asked: HashSet::new(),
        assigned: vec![HashSet::new()],
    };
    let tree = rewriter.stmt(template);
    (tree, rewriter.asked)
}

struct Rewriter<'a> {
    /// Names that are asked for and were given no value before.
    asked: HashSet<&'a str>,
    /// Names that have a value, block by block.
    assigned: Vec<HashSet<&'a str>>,
}

impl<'a> Rewriter<'a> {
    fn assign(&mut self, name: &'a str) {
        if let Some(block) = self.assigned.last_mut() {
            block.insert(name);
        }
    }

    /// The names of a target get values.
    fn assign_all(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(var) => self.assign(var.id),
            Expr::List(list) => list.items.iter().for_each(|item| self.assign_all(item)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.assign_all(item)),
            _ => {}
        }
    }

    fn inside<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.assigned.push(HashSet::new());
        let made = work(self);
        self.assigned.pop();
        made
    }

    fn block(&mut self, body: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
        self.inside(|this| this.stmts(body))
    }

    fn stmts(&mut self, body: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
        body.iter().map(|stmt| self.stmt(stmt)).collect()
    }

    fn stmt(&mut self, stmt: &Stmt<'a>) -> Stmt<'a> {
        match stmt {
            Stmt::Template(node) => {
                self.assign("self");
                let children = self.stmts(&node.children);
                Stmt::Template(Spanned::new(Template { children }, node.span()))
            }
            Stmt::EmitExpr(node) => {
                let expr = self.expr(&node.expr);
                Stmt::EmitExpr(Spanned::new(EmitExpr { expr }, node.span()))
            }
            Stmt::EmitRaw(node) => {
                Stmt::EmitRaw(Spanned::new(EmitRaw { raw: node.raw }, node.span()))
            }
            Stmt::ForLoop(node) => Stmt::ForLoop(Spanned::new(self.for_loop(node), node.span())),
            Stmt::IfCond(node) => {
                let made = IfCond {
                    expr: self.expr(&node.expr),
                    true_body: self.block(&node.true_body),
                    false_body: self.block(&node.false_body),
                };
                Stmt::IfCond(Spanned::new(made, node.span()))
            }
            Stmt::WithBlock(node) => {
                let made = self.inside(|this| WithBlock {
                    assignments: node
                        .assignments
                        .iter()
                        .map(|(target, expr)| {
                            this.assign_all(target);
                            (this.target(target), this.expr(expr))
                        })
                        .collect(),
                    body: this.stmts(&node.body),
                });
                Stmt::WithBlock(Spanned::new(made, node.span()))
            }
            Stmt::Set(node) => {
                self.assign_all(&node.target);
                let mut expr = self.expr(&node.expr);
                if matches!(node.target, Expr::GetAttr(_)) {
                    expr = filtered(STORE, expr);
                }
                let target = self.target(&node.target);
                Stmt::Set(Spanned::new(Set { target, expr }, node.span()))
            }
            Stmt::SetBlock(node) => {
                self.assign_all(&node.target);
                let made = SetBlock {
                    target: self.target(&node.target),
                    filter: node.filter.as_ref().map(|filter| {
                        let filter = self.expr(filter);
                        if matches!(node.target, Expr::GetAttr(_)) {
                            filtered(STORE, filter)
                        } else {
                            filter
                        }
                    }),
                    body: self.block(&node.body),
                };
                Stmt::SetBlock(Spanned::new(made, node.span()))
            }
            Stmt::AutoEscape(node) => {
                let made = AutoEscape {
                    enabled: self.expr(&node.enabled),
                    body: self.block(&node.body),
                };
                Stmt::AutoEscape(Spanned::new(made, node.span()))
            }
            Stmt::FilterBlock(node) => {
                let made = FilterBlock {
                    filter: self.expr(&node.filter),
                    filter_span: node.filter_span,
                    body: self.block(&node.body),
                };
                Stmt::FilterBlock(Spanned::new(made, node.span()))
            }
            Stmt::Macro(node) => {
                self.assign(node.name);
                Stmt::Macro(self.macro_of(node))
            }
            Stmt::CallBlock(node) => {
                let made = CallBlock {
                    call: self.call(&node.call),
                    call_expr_span: node.call_expr_span,
                    macro_decl: self.macro_of(&node.macro_decl),
                };
                Stmt::CallBlock(Spanned::new(made, node.span()))
            }
            Stmt::Do(node) => {
                let call = self.call(&node.call);
                Stmt::Do(Spanned::new(Do { call }, node.span()))
            }
        }
    }

    fn for_loop(&mut self, node: &ForLoop<'a>) -> ForLoop<'a> {
        let (iter, filter_expr, body) = self.inside(|this| {
            this.assign("loop");
            let iter = this.expr(&node.iter);
            this.assign_all(&node.target);
            let filter = node.filter_expr.as_ref().map(|expr| this.expr(expr));
            (iter, filter, this.stmts(&node.body))
        });
        ForLoop {
            target: self.target(&node.target),
            iter,
            filter_expr,
            recursive: node.recursive,
            body,
            else_body: self.block(&node.else_body),
        }
    }

    fn macro_of(&mut self, node: &Spanned<Macro<'a>>) -> Spanned<Macro<'a>> {
        let made = self.inside(|this| {
            this.assign("caller");
            node.args.iter().for_each(|arg| this.assign_all(arg));
            Macro {
                name: node.name,
                args: node.args.iter().map(|arg| this.target(arg)).collect(),
                defaults: node.defaults.iter().map(|expr| this.expr(expr)).collect(),
                body: this.stmts(&node.body),
            }
        });
        Spanned::new(made, node.span())
    }

    /// What is assigned to: names, lists of them, or an attribute of a namespace.
    fn target(&mut self, target: &Expr<'a>) -> Expr<'a> {
        let all = |this: &mut Self, items: &[Expr<'a>]| -> Vec<Expr<'a>> {
            items.iter().map(|item| this.target(item)).collect()
        };
        match target {
            Expr::Var(var) => Expr::Var(Spanned::new(Var { id: var.id }, var.span())),
            Expr::List(list) => {
                let items = all(self, &list.items);
                Expr::List(Spanned::new(List { items }, list.span()))
            }
            Expr::Tuple(tuple) => {
                let items = all(self, &tuple.items);
                Expr::Tuple(Spanned::new(Tuple { items }, tuple.span()))
            }
            Expr::GetAttr(attr) => Expr::GetAttr(self.get_attr(attr)),
            other => self.expr(other),
        }
    }

    fn get_attr(&mut self, node: &Spanned<GetAttr<'a>>) -> Spanned<GetAttr<'a>> {
        let expr = self.expr(&node.expr);
        let name = node.name;
        Spanned::new(GetAttr { expr, name }, node.span())
    }

    fn exprs(&mut self, exprs: &[Expr<'a>]) -> Vec<Expr<'a>> {
        exprs.iter().map(|expr| self.expr(expr)).collect()
    }

    fn optional(&mut self, expr: Option<&Expr<'a>>) -> Option<Expr<'a>> {
        expr.map(|expr| self.expr(expr))
    }

    fn expr(&mut self, expr: &Expr<'a>) -> Expr<'a> {
        match expr {
            Expr::Var(var) => {
                if !self.assigned.iter().any(|block| block.contains(var.id)) {
                    self.asked.insert(var.id);
                    self.assign(var.id);
                }
                Expr::Var(Spanned::new(Var { id: var.id }, var.span()))
            }
            Expr::Const(node) => constant(node),
            Expr::Slice(node) => {
                let made = Slice {
                    expr: self.expr(&node.expr),
                    start: self.optional(node.start.as_ref()),
                    stop: self.optional(node.stop.as_ref()),
                    step: self.optional(node.step.as_ref()),
                };
                filtered(SETTLE, Expr::Slice(Spanned::new(made, node.span())))
            }
            Expr::UnaryOp(node) => {
                let op = if matches!(node.op, UnaryOpKind::Not) {
                    UnaryOpKind::Not
                } else {
                    UnaryOpKind::Neg
                };
                let expr = self.expr(&node.expr);
                Expr::UnaryOp(Spanned::new(UnaryOp { op, expr }, node.span()))
            }
            Expr::BinOp(node) => self.bin_op(node),
            Expr::Compare(node) => self.compare(node),
            Expr::IfExpr(node) => {
                let made = IfExpr {
                    test_expr: self.expr(&node.test_expr),
                    true_expr: self.expr(&node.true_expr),
                    false_expr: self.optional(node.false_expr.as_ref()),
                };
                Expr::IfExpr(Spanned::new(made, node.span()))
            }
            Expr::Filter(node) => self.filter(node),
            Expr::Test(node) => {
                let mut expr = self.expr(&node.expr);
                if COMPARES.contains(&node.name) {
                    expr = filtered(CHARGE, expr);
                }
                let (name, args) = (node.name, self.args(&node.args));
                Expr::Test(Spanned::new(Test { name, expr, args }, node.span()))
            }
            Expr::GetAttr(node) => Expr::GetAttr(self.get_attr(node)),
            Expr::GetItem(node) => {
                let expr = self.expr(&node.expr);
                let subscript_expr = match self.expr(&node.subscript_expr) {
                    constant @ Expr::Const(_) => constant,
                    other => filtered(KEY, other),
                };
                let made = GetItem {
                    expr,
                    subscript_expr,
                };
                Expr::GetItem(Spanned::new(made, node.span()))
            }
            Expr::Call(node) => {
                let call = Expr::Call(self.call(node));
                // What these give is text that was counted as it was written.
                match &node.expr {
                    Expr::Var(var) if matches!(var.id, "loop" | "caller") => call,
                    _ => filtered(SETTLE, call),
                }
            }
            Expr::List(node) => {
                let items = self.exprs(&node.items);
                filtered(
                    SETTLE,
                    Expr::List(Spanned::new(List { items }, node.span())),
                )
            }
            Expr::Tuple(node) => {
                let items = self.exprs(&node.items);
                let tuple = Expr::Tuple(Spanned::new(Tuple { items }, node.span()));
                filtered(SETTLE, tuple)
            }
            Expr::Map(node) => {
                let keys = self.exprs(&node.keys).into_iter();
                let keys = keys.map(|key| match key {
                    constant @ Expr::Const(_) => constant,
                    other => filtered(KEY, other),
                });
                let made = Map {
                    keys: keys.collect(),
                    values: self.exprs(&node.values),
                };
                filtered(SETTLE, Expr::Map(Spanned::new(made, node.span())))
            }
        }
    }

    fn bin_op(&mut self, node: &Spanned<BinOp<'a>>) -> Expr<'a> {
        let (op, span) = (node.op, node.span());
        let mut left = self.expr(&node.left);
        let mut right = self.expr(&node.right);
        match op {
            BinOpKind::Concat => {
                let made = Filter {
                    name: CONCAT,
                    expr: Some(left),
                    args: vec![CallArg::Pos(right)],
                };
                return Expr::Filter(Spanned::new(made, span));
            }
            // What is compared with a text or a number is compared in one step.
            BinOpKind::Eq
            | BinOpKind::Ne
            | BinOpKind::Lt
            | BinOpKind::Lte
            | BinOpKind::Gt
            | BinOpKind::Gte
            | BinOpKind::In
                if !matches!(left, Expr::Const(_)) && !matches!(right, Expr::Const(_)) =>
            {
                left = filtered(CHARGE, left);
                right = filtered(CHARGE, right);
            }
            _ => {}
        }
        let made = Expr::BinOp(Spanned::new(BinOp { op, left, right }, span));
        match op {
            BinOpKind::Add | BinOpKind::Mul => filtered(SETTLE, made),
            _ => made,
        }
    }

    fn compare(&mut self, node: &Spanned<Compare<'a>>) -> Expr<'a> {
        let charged = |expr: Expr<'a>| match expr {
            constant @ Expr::Const(_) => constant,
            other => filtered(CHARGE, other),
        };
        let expr = charged(self.expr(&node.expr));
        let ops = node.ops.iter().map(|op| CompareOp {
            op: op.op,
            expr: charged(self.expr(&op.expr)),
        });
        let ops = ops.collect();
        Expr::Compare(Spanned::new(Compare { expr, ops }, node.span()))
    }

    fn filter(&mut self, node: &Spanned<Filter<'a>>) -> Expr<'a> {
        let name = node.name;
        let mut expr = self.optional(node.expr.as_ref());
        if COMPARES.contains(&name) {
            expr = expr.map(|expr| filtered(CHARGE, expr));
        }
        let args = self.args(&node.args);
        let made = Expr::Filter(Spanned::new(Filter { name, expr, args }, node.span()));
        if MAKES_NOTHING.contains(&name) {
            made
        } else {
            filtered(SETTLE, made)
        }
    }

    fn call(&mut self, node: &Spanned<Call<'a>>) -> Spanned<Call<'a>> {
        // `loop.changed(x)` keeps what it is given.
        let keeps = matches!(&node.expr, Expr::GetAttr(attr) if attr.name == "changed");
        let expr = match &node.expr {
            // The engine finds the method by the form of the expression.
            Expr::GetAttr(attr) => Expr::GetAttr(self.get_attr(attr)),
            other => self.expr(other),
        };
        let mut args = self.args(&node.args);
        if keeps {
            args = args
                .into_iter()
                .map(|arg| match arg {
                    CallArg::Pos(expr) => CallArg::Pos(filtered(STORE, expr)),
                    CallArg::PosSplat(expr) => CallArg::PosSplat(filtered(STORE, expr)),
                    other => other,
                })
                .collect();
        }
        Spanned::new(Call { expr, args }, node.span())
    }

    fn args(&mut self, args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
        args.iter()
            .map(|arg| match arg {
                CallArg::Pos(expr) => CallArg::Pos(self.expr(expr)),
                CallArg::Kwarg(name, expr) => CallArg::Kwarg(name, self.expr(expr)),
                CallArg::PosSplat(expr) => CallArg::PosSplat(self.expr(expr)),
                CallArg::KwargSplat(expr) => CallArg::KwargSplat(self.expr(expr)),
            })
            .collect()
    }
}

/// `expr | name`
fn filtered<'a>(name: &'a str, expr: Expr<'a>) -> Expr<'a> {
    let span: Span = expr.span();
    let filter = Filter {
        name,
        expr: Some(expr),
        args: Vec::new(),
    };
    Expr::Filter(Spanned::new(filter, span))
}

fn constant<'a>(node: &Spanned<Const>) -> Expr<'a> {
    let value: Value = node.value.clone();
    Expr::Const(Spanned::new(Const { value }, node.span()))
}

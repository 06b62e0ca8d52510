//! Goes through every expression of a rule, wherever it stands. Recursion is bounded: [`crate::nesting`] looked at the text before.

use regorus::unstable::{Expr, Literal, LiteralStmt, Query, Rule, RuleHead};

/// What is told of a rule.
pub(crate) trait Visitor {
    /// An expression, before those in it.
    fn expression(&mut self, _: &Expr) {}
    /// A statement, before what stands in it.
    fn statement(&mut self, _: &LiteralStmt) {}
}

/// Goes through a rule: its name's brackets, arguments, values, bodies.
pub(crate) fn rule(rule: &Rule, visitor: &mut impl Visitor) {
    match rule {
        Rule::Default { args, value, .. } => {
            for arg in args {
                expression(arg, visitor);
            }
            expression(value, visitor);
        }
        Rule::Spec { head, bodies, .. } => {
            let (refr, value) = match head {
                RuleHead::Compr { refr, assign, .. } | RuleHead::Func { refr, assign, .. } => {
                    (refr, assign.as_ref().map(|assign| &assign.value))
                }
                RuleHead::Set { refr, key, .. } => (refr, key.as_ref()),
            };
            crate::syntax::parts(refr).0.into_iter().for_each(|index| expression(index, visitor));
            if let RuleHead::Func { args, .. } = head {
                for arg in args {
                    expression(arg, visitor);
                }
            }
            if let Some(value) = value {
                expression(value, visitor);
            }
            for body in bodies {
                body.assign.iter().for_each(|assign| expression(&assign.value, visitor));
                query(&body.query, visitor);
            }
        }
    }
}

fn query(all: &Query, visitor: &mut impl Visitor) {
    for stmt in &all.stmts {
        visitor.statement(stmt);
        match &stmt.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().chain([value, collection]).for_each(|expr| expression(expr, visitor));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => expression(expr, visitor),
            Literal::Every { domain, query: each, .. } => {
                expression(domain, visitor);
                query(each, visitor);
            }
        }
        for with in &stmt.with_mods {
            expression(&with.refr, visitor);
            expression(&with.r#as, visitor);
        }
    }
}

fn expression(expr: &Expr, visitor: &mut impl Visitor) {
    visitor.expression(expr);
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => {}
        Expr::RefDot { refr, .. } => expression(refr, visitor),
        Expr::RefBrack { refr, index, .. } => {
            expression(refr, visitor);
            expression(index, visitor);
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().for_each(|item| expression(item, visitor)),
        Expr::Object { fields, .. } => {
            for (_, key, value) in fields {
                expression(key, visitor);
                expression(value, visitor);
            }
        }
        Expr::ArrayCompr { term, query: inner, .. } | Expr::SetCompr { term, query: inner, .. } => {
            expression(term, visitor);
            query(inner, visitor);
        }
        Expr::ObjectCompr { key, value, query: inner, .. } => {
            expression(key, visitor);
            expression(value, visitor);
            query(inner, visitor);
        }
        Expr::Call { fcn, params, .. } => {
            expression(fcn, visitor);
            for param in params {
                expression(param, visitor);
            }
        }
        Expr::UnaryExpr { expr, .. } => expression(expr, visitor),
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => {
            expression(lhs, visitor);
            expression(rhs, visitor);
        }
        Expr::Membership { key, value, collection, .. } => {
            key.iter().chain([value, collection]).for_each(|expr| expression(expr, visitor));
        }
    }
}

//! From the expressions of a SQL text to typed `DataFusion` expressions.
//!
//! Always: types are settled here, with Spark's rules: integers are BIGINT, `/` gives a double, nothing
//! turns from text into a number by itself. Every cast is written into the expression.
//! Always: what can fail on a value that a record may well hold (a zero divisor, a text that is no
//! number) is refused; what fails only beyond the range of BIGINT is an error when it happens, as in
//! Spark's ANSI mode.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr, in_list,
};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, Expr, Function, Spanned, UnaryOperator, Value, visit_expressions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::aggregates::{self, Call};
use crate::coerce::{
    Case, boolean, case, compare, divide, engine, negate_if, numbers, unify, unify_all,
};
use crate::error::{Checked, Refusal};
use crate::functions;
use crate::kernel::Op;
use crate::literals::{cast_type, literal, number, text_of, time_literal};
use crate::scope::{Grouping, Key, Relation};
use crate::types::{Type, Typed};

/// Deepest nesting of an expression.
const DEPTH_MAX: usize = 200;

/// Reads expressions over one relation.
pub(crate) struct Lower<'a> {
    pub relation: &'a Relation,
    /// The name that qualifies columns.
    pub qualifier: &'a str,
    /// In SELECT of an aggregate view: the grouping.
    pub grouping: Option<&'a mut Grouping>,
    /// Where an aggregate is not allowed, for the message.
    pub clause: &'static str,
    pub depth: usize,
}

impl Lower<'_> {
    /// The schema that expressions are over.
    pub fn schema(&self) -> SchemaRef {
        match &self.grouping {
            Some(grouping) => Arc::new(grouping.schema()),
            None => Arc::clone(&self.relation.schema),
        }
    }

    /// Reads expressions over single records, with the same names.
    pub fn rows(&self, clause: &'static str) -> Lower<'_> {
        Lower {
            relation: self.relation,
            qualifier: self.qualifier,
            grouping: None,
            clause,
            depth: self.depth,
        }
    }

    /// The expression `e` means.
    pub fn lower(&mut self, e: &Expr) -> Checked<Typed> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Refusal::new(e.span(), "expressions are nested too deeply")
                .hint("split the view: a view can read a row view"));
        }
        let typed = match self.group_column(e) {
            Some(column) => Ok(column),
            None => self.lower_expression(e),
        };
        self.depth -= 1;
        typed
    }

    /// A condition: a boolean, or NULL.
    pub fn condition(&mut self, e: &Expr) -> Checked<Typed> {
        let condition = self.lower(e)?;
        match condition.ty {
            Type::Bool => Ok(condition),
            Type::Null => Ok(Typed::null(Type::Bool)),
            other => Err(Refusal::new(
                e.span(),
                format!("a condition is needed here, and this is a {}", other.name()),
            )
            .hint("compare it: `x = 'a'`, `x > 0`, `x IS NOT NULL`")),
        }
    }

    /// The column of a grouping expression that `e` repeats.
    fn group_column(&self, e: &Expr) -> Option<Typed> {
        let grouping = self.grouping.as_ref()?;
        if matches!(e, Expr::Value(_)) {
            return None;
        }
        let rows = self.rows("GROUP BY").lower(e).ok()?;
        let is = |key: &Key| matches!(key, Key::Value(k) if *k.expr == *rows.expr);
        let index = grouping.keys.iter().position(is)?;
        Some(Grouping::column(index, rows.ty))
    }

    fn lower_expression(&mut self, e: &Expr) -> Checked<Typed> {
        let span = place(e);
        match e {
            Expr::Nested(inner) => self.lower(inner),
            Expr::Value(value) => literal(&value.value, value.span),
            Expr::TypedString(typed) => {
                let text = Typed::text(&text_of(&typed.value.value, span)?);
                let ty = cast_type(&typed.data_type, span)?;
                time_literal(&text, ty, span)
            }
            Expr::Identifier(ident) => self.column(ident),
            Expr::CompoundIdentifier(parts) => self.compound(parts, span),
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.window_field(root, access_chain, span)
            }
            Expr::IsNull(x) => {
                let x = self.lower(x)?.expr;
                Ok(boolean(IsNullExpr::new(x)))
            }
            Expr::IsNotNull(x) => {
                let x = self.lower(x)?.expr;
                Ok(boolean(IsNotNullExpr::new(x)))
            }
            Expr::IsTrue(x) => self.truth(x, true, Operator::IsNotDistinctFrom),
            Expr::IsNotTrue(x) => self.truth(x, true, Operator::IsDistinctFrom),
            Expr::IsFalse(x) => self.truth(x, false, Operator::IsNotDistinctFrom),
            Expr::IsNotFalse(x) => self.truth(x, false, Operator::IsDistinctFrom),
            Expr::IsDistinctFrom(l, r) => self.comparison(l, Operator::IsDistinctFrom, r, span),
            Expr::IsNotDistinctFrom(l, r) => {
                self.comparison(l, Operator::IsNotDistinctFrom, r, span)
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right, span),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr, span),
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let low = self.comparison(expr, Operator::GtEq, low, span)?;
                let high = self.comparison(expr, Operator::LtEq, high, span)?;
                let within = boolean(BinaryExpr::new(low.expr, Operator::And, high.expr));
                Ok(negate_if(*negated, within))
            }
            Expr::InList {
                expr,
                list,
                negated,
            } => self.in_list(expr, list, *negated, span),
            Expr::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char: None,
            } => self.like(*negated, expr, pattern, span),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                let whens: Vec<_> = conditions.iter().map(|w| (&w.condition, &w.result)).collect();
                self.case(operand.as_deref(), &whens, else_result.as_deref())
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
                array: false,
            } => {
                let value = self.lower(expr)?;
                let target = cast_type(data_type, span)?;
                self.cast(value, target, span)
            }
            Expr::Cast { .. } => Err(Refusal::new(span, "this form of cast is not supported in views")
                .hint("write `CAST(x AS BIGINT)`; casts that can fail on a value are refused, as Spark stops on them")),
            Expr::Function(function) => self.function(function),
            Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. } => functions::special(self, e, span),
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Err(Refusal::new(span, "subqueries are not supported in views")
                    .hint("make the inner query a row view of its own and read that: `FROM its_name`"))
            }
            Expr::Interval(_) => Err(Refusal::new(span, "intervals are not supported in views")
                .hint("cut times with `date_trunc('hour', event_time)` or `window(event_time, '1 hour')`")),
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                Err(Refusal::new(span, "`*` is not supported here").hint("name the columns"))
            }
            _ => Err(Refusal::new(span, format!("`{}` is not supported in views", shorten(e)))
                .hint("the reference lists the functions and operators that views take")),
        }
    }

    fn truth(&mut self, x: &Expr, value: bool, op: Operator) -> Checked<Typed> {
        let condition = self.condition(x)?;
        let value = Arc::new(Literal::new(ScalarValue::Boolean(Some(value))));
        Ok(boolean(BinaryExpr::new(condition.expr, op, value)))
    }

    fn comparison(&mut self, l: &Expr, op: Operator, r: &Expr, span: Span) -> Checked<Typed> {
        let (l, r) = (self.lower(l)?, self.lower(r)?);
        compare(l, op, r, span)
    }

    fn binary(&mut self, l: &Expr, op: &BinaryOperator, r: &Expr, span: Span) -> Checked<Typed> {
        let comparison = match op {
            BinaryOperator::Eq => Some(Operator::Eq),
            BinaryOperator::NotEq => Some(Operator::NotEq),
            BinaryOperator::Lt => Some(Operator::Lt),
            BinaryOperator::LtEq => Some(Operator::LtEq),
            BinaryOperator::Gt => Some(Operator::Gt),
            BinaryOperator::GtEq => Some(Operator::GtEq),
            BinaryOperator::Spaceship => Some(Operator::IsNotDistinctFrom),
            _ => None,
        };
        if let Some(op) = comparison {
            return self.comparison(l, op, r, span);
        }
        match op {
            BinaryOperator::And | BinaryOperator::Or => {
                let op = match op {
                    BinaryOperator::And => Operator::And,
                    _ => Operator::Or,
                };
                let (l, r) = (self.condition(l)?, self.condition(r)?);
                Ok(boolean(BinaryExpr::new(l.expr, op, r.expr)))
            }
            BinaryOperator::Plus => self.arithmetic(l, Operator::Plus, r, span),
            BinaryOperator::Minus => self.arithmetic(l, Operator::Minus, r, span),
            BinaryOperator::Multiply => self.arithmetic(l, Operator::Multiply, r, span),
            BinaryOperator::Modulo => self.arithmetic(l, Operator::Modulo, r, span),
            BinaryOperator::Divide => {
                let (left, right) = (self.lower(l)?, self.lower(r)?);
                numbers(&left, &right, span)?;
                if !Self::never_zero(r, &right) {
                    return Err(Refusal::new(span, "this division may be by zero")
                        .hint("Spark stops on it: write `try_divide(a, b)` or `a / nullif(b, 0)`, which give NULL"));
                }
                Ok(divide(left, right))
            }
            BinaryOperator::StringConcat => functions::call(self, "concat", &[l, r], span),
            _ => Err(Refusal::new(
                span,
                format!("the operator `{op}` is not supported in views"),
            )
            .hint("the reference lists the functions and operators that views take")),
        }
    }

    /// Whether a divisor is never zero: a literal, `nullif(.., 0)` or `count(*)`.
    fn never_zero(e: &Expr, divisor: &Typed) -> bool {
        match e {
            Expr::Nested(inner) => Self::never_zero(inner, divisor),
            Expr::Function(f) => match functions::name(f).as_deref() {
                Some("nullif") => functions::arguments(f).is_ok_and(|args| {
                    matches!(args.as_slice(), [_, Expr::Value(v)]
                        if matches!(&v.value, Value::Number(n, _) if n.parse() == Ok(0.0)))
                }),
                // A group exists because of a record, so it has at least one.
                Some("count") => f.filter.is_none() && aggregates::is_count_star(f),
                _ => false,
            },
            _ => match divisor.value() {
                Some(ScalarValue::Int64(Some(v))) => *v != 0,
                Some(ScalarValue::Float64(Some(v))) => *v != 0.0,
                _ => false,
            },
        }
    }

    fn arithmetic(&mut self, l: &Expr, op: Operator, r: &Expr, span: Span) -> Checked<Typed> {
        let (l, r) = (self.lower(l)?, self.lower(r)?);
        numbers(&l, &r, span)?;
        let (l, r, ty) = unify(l.or_int(), r, span)?;
        if op == Operator::Modulo {
            let positive = matches!(r.value(), Some(ScalarValue::Int64(Some(1..))));
            if ty != Type::Int || !positive {
                return Err(Refusal::new(
                    span,
                    "`%` needs whole numbers and a positive number on its right",
                )
                .hint("Spark stops on zero: write for example `age % 10`"));
            }
        }
        let expr = BinaryExpr::new(l.expr, op, r.expr).with_fail_on_overflow(true);
        Ok(Typed {
            expr: Arc::new(expr),
            ty,
        })
    }

    fn unary(&mut self, op: UnaryOperator, x: &Expr, span: Span) -> Checked<Typed> {
        match op {
            UnaryOperator::Not | UnaryOperator::BangNot => {
                let condition = self.condition(x)?;
                Ok(negate_if(true, condition))
            }
            UnaryOperator::Plus => {
                let value = self.lower(x)?;
                numbers(&value, &value, span)?;
                Ok(value)
            }
            UnaryOperator::Minus => {
                if let Expr::Value(v) = x
                    && let Value::Number(digits, _) = &v.value
                {
                    return number(&format!("-{digits}"), v.span);
                }
                let value = self.lower(x)?.or_int();
                numbers(&value, &value, span)?;
                Ok(match value.ty {
                    // `0 - x` is checked, a negation wraps.
                    Type::Int => {
                        let zero = Arc::new(Literal::new(ScalarValue::Int64(Some(0))));
                        let expr = BinaryExpr::new(zero, Operator::Minus, value.expr)
                            .with_fail_on_overflow(true);
                        Typed {
                            expr: Arc::new(expr),
                            ty: Type::Int,
                        }
                    }
                    ty => Typed {
                        expr: Arc::new(NegativeExpr::new(value.expr)),
                        ty,
                    },
                })
            }
            _ => Err(Refusal::new(
                span,
                format!("the operator `{op}` is not supported in views"),
            )
            .hint("the reference lists the functions and operators that views take")),
        }
    }

    fn in_list(&mut self, x: &Expr, list: &[Expr], negated: bool, span: Span) -> Checked<Typed> {
        let mut values = vec![(self.lower(x)?, span)];
        for e in list {
            values.push((self.lower(e)?, place(e)));
        }
        let (values, _) = unify_all(values)?;
        let mut values = values.into_iter().map(|v| v.or_int().one_zero().expr);
        let Some(x) = values.next() else {
            return Err(engine(span));
        };
        let expr =
            in_list(x, values.collect(), &negated, &self.schema()).map_err(|_| engine(span))?;
        Ok(Typed {
            expr,
            ty: Type::Bool,
        })
    }

    fn like(&mut self, negated: bool, x: &Expr, pattern: &Expr, span: Span) -> Checked<Typed> {
        let (x, pattern) = (self.lower(x)?, self.lower(pattern)?);
        if x.ty != Type::Text || pattern.literal_text().is_none() {
            return Err(
                Refusal::new(span, "LIKE needs a text and a literal pattern")
                    .hint("write `name LIKE 'A%'`"),
            );
        }
        Ok(boolean(LikeExpr::new(negated, false, x.expr, pattern.expr)))
    }

    /// `CASE [operand] WHEN .. THEN .. [ELSE ..] END`
    pub fn case(
        &mut self,
        operand: Option<&Expr>,
        whens: &[(&Expr, &Expr)],
        otherwise: Option<&Expr>,
    ) -> Checked<Typed> {
        let mut conditions = Vec::with_capacity(whens.len());
        let mut results = Vec::with_capacity(whens.len() + 1);
        for (condition, result) in whens {
            let condition = match operand {
                Some(operand) => {
                    self.comparison(operand, Operator::Eq, condition, condition.span())?
                }
                None => self.condition(condition)?,
            };
            conditions.push(condition.expr);
            results.push((self.lower(result)?, result.span()));
        }
        if let Some(e) = otherwise {
            results.push((self.lower(e)?, e.span()));
        }
        let (values, ty) = unify_all(results)?;
        let mut values = values.into_iter().map(|v| v.expr);
        let cases: Vec<Case> = conditions.into_iter().zip(values.by_ref()).collect();
        case(cases, values.next(), ty)
    }

    /// `value` as `target`, where that never fails on a value, or only beyond the range of BIGINT.
    pub fn cast(&self, value: Typed, target: Type, span: Span) -> Checked<Typed> {
        match (value.ty, target) {
            (from, to) if from == to => Ok(value),
            (Type::Null, to) => Ok(Typed::null(to)),
            (Type::Int | Type::Decimal, Type::Float) => Ok(value.float()),
            (Type::Int | Type::Bool | Type::Date, Type::Text)
            | (Type::Bool | Type::Float, Type::Int) => {
                Typed::new(value.expr, target, &self.schema()).map_err(|_| engine(span))
            }
            (Type::Date, Type::Timestamp) => {
                functions::kernel(self, Op::Midnight, value, target, span)
            }
            (Type::Timestamp, Type::Date) => functions::kernel(self, Op::Day, value, target, span),
            (Type::Text, Type::Timestamp | Type::Date) if value.literal_text().is_some() => {
                time_literal(&value, target, span)
            }
            (Type::Text, Type::Int | Type::Float | Type::Bool | Type::Timestamp | Type::Date) => {
                Err(Refusal::new(
                    span,
                    format!("a cast from string to {} may fail on a value", target.name()),
                )
                .hint("declare the field with that type in [fields]: a value of another type is then a reject"))
            }
            (from, to) => Err(Refusal::new(
                span,
                format!("a cast from {} to {} is not supported in views", from.name(), to.name()),
            )
            .hint("the two engines write such values differently; keep the type")),
        }
    }

    fn function(&mut self, function: &Function) -> Checked<Typed> {
        let span = functions::span(function);
        let Some(name) = functions::name(function) else {
            return Err(
                Refusal::new(span, format!("there is no function `{}`", function.name))
                    .hint("functions have no database name"),
            );
        };
        if function.over.is_some() {
            return Err(
                Refusal::new(span, "window functions (OVER) are not supported in views").hint(
                    "group instead; time windows are `GROUP BY window(event_time, '1 minute')`",
                ),
            );
        }
        if name == "window" {
            self.windows(function)?;
            return Err(match self.grouping {
                Some(_) => Refusal::new(span, "a window is not a single value")
                    .hint("select `window.start AS window_start` or `window.end AS window_end`"),
                None => Refusal::new(span, "`window` stands in GROUP BY only")
                    .hint("add `GROUP BY window(event_time, '1 minute')`"),
            });
        }
        if aggregates::NAMES.contains(&name.as_str()) {
            return self.aggregate(&name, function, span);
        }
        functions::known(&name, span)?;
        functions::plain(function, span)?;
        let args = functions::arguments(function)?;
        functions::call(self, &name, &args, span)
    }

    fn aggregate(&mut self, name: &str, function: &Function, span: Span) -> Checked<Typed> {
        if self.grouping.is_none() {
            return Err(Refusal::new(
                span,
                format!("an aggregate is not allowed in {}", self.clause),
            )
            .hint("aggregates stand in the SELECT list, and not inside each other"));
        }
        let call = Call::read(&mut self.rows("an aggregate"), name, function, span)?;
        let Some(grouping) = self.grouping.as_mut() else {
            return Err(engine(span));
        };
        let known = grouping.calls.iter().position(|c| c.same(&call));
        let index = known.unwrap_or(grouping.calls.len());
        let ty = call.ty;
        if known.is_none() {
            grouping.calls.push(call);
        }
        let column = Grouping::column(grouping.keys.len() + index, ty);
        Typed::new(column.expr, ty, &grouping.schema()).map_err(|_| engine(span))
    }
}

/// Where an expression stands, or the first part of it whose place the parser tells.
fn place(e: &Expr) -> Span {
    let known = |e: &Expr| match e.span() {
        span if span == Span::empty() => ControlFlow::Continue(()),
        span => ControlFlow::Break(span),
    };
    known(e)
        .break_value()
        .or_else(|| visit_expressions(e, known).break_value())
        .unwrap_or_else(Span::empty)
}

/// The begin of an expression's text, for messages.
fn shorten(e: &Expr) -> String {
    const CHARS_MAX: usize = 60;
    let text = e.to_string();
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    let begin: String = text.chars().take(CHARS_MAX).collect();
    format!("{begin}..")
}

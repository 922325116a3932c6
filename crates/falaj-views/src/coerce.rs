//! Values of different types side by side: Spark's rules, with every cast written out.

use std::sync::Arc;

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, NotExpr};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::{Checked, Refusal};
use crate::literals::time_literal;
use crate::types::{Type, Typed};

/// A condition and the result where it holds.
pub(crate) type Case = (Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>);

/// What `DataFusion` refused although the types were checked: a hole in our lists.
pub(crate) fn engine(span: Span) -> Refusal {
    Refusal::new(span, "the engine does not take this expression")
        .hint("write it another way, and please report it")
}

/// A condition.
pub(crate) fn boolean(expr: impl PhysicalExpr + 'static) -> Typed {
    Typed {
        expr: Arc::new(expr),
        ty: Type::Bool,
    }
}

/// `condition`, or NOT of it.
pub(crate) fn negate_if(negated: bool, condition: Typed) -> Typed {
    if negated {
        boolean(NotExpr::new(condition.expr))
    } else {
        condition
    }
}

/// `l / r` in doubles.
pub(crate) fn divide(l: Typed, r: Typed) -> Typed {
    let expr = BinaryExpr::new(l.float().expr, Operator::Divide, r.float().expr);
    Typed {
        expr: Arc::new(expr),
        ty: Type::Float,
    }
}

/// `CASE` over conditions and results of one type.
pub(crate) fn case(
    cases: Vec<Case>,
    otherwise: Option<Arc<dyn PhysicalExpr>>,
    ty: Type,
) -> Checked<Typed> {
    let expr = CaseExpr::try_new(None, cases, otherwise).map_err(|_| engine(Span::empty()))?;
    Ok(Typed {
        expr: Arc::new(expr),
        ty,
    })
}

/// `l op r` for a comparison.
pub(crate) fn compare(l: Typed, op: Operator, r: Typed, span: Span) -> Checked<Typed> {
    let (l, r, _) = unify(l, r, span)?;
    let (l, r) = (l.or_int(), r.or_int());
    Ok(boolean(BinaryExpr::new(
        l.one_zero().expr,
        op,
        r.one_zero().expr,
    )))
}

/// Refuses anything but numbers.
pub(crate) fn numbers(l: &Typed, r: &Typed, span: Span) -> Checked<()> {
    for side in [l, r] {
        if !matches!(
            side.ty,
            Type::Int | Type::Float | Type::Decimal | Type::Null
        ) {
            return Err(Refusal::new(
                span,
                format!("this needs numbers, and one side is a {}", side.ty.name()),
            )
            .hint("declare the field as `int` or `float`"));
        }
    }
    Ok(())
}

/// Both values in one type.
pub(crate) fn unify(l: Typed, r: Typed, span: Span) -> Checked<(Typed, Typed, Type)> {
    let decimal = || {
        Refusal::new(
            span,
            "a number with a decimal point is a DECIMAL in Spark, and views have none",
        )
        .hint("write it with an exponent, which makes it a double: `5e-1` instead of `0.5`")
    };
    match (l.ty, r.ty) {
        (Type::Decimal, Type::Float) | (Type::Float, Type::Decimal) => {
            Ok((l.float(), r.float(), Type::Float))
        }
        (Type::Decimal, _) | (_, Type::Decimal) => Err(decimal()),
        (a, b) if a == b => Ok((l, r, a)),
        (Type::Null, ty) => Ok((Typed::null(ty), r, ty)),
        (ty, Type::Null) => Ok((l, Typed::null(ty), ty)),
        (Type::Int, Type::Float) | (Type::Float, Type::Int) => {
            Ok((l.float(), r.float(), Type::Float))
        }
        (ty @ (Type::Timestamp | Type::Date), Type::Text) if r.literal_text().is_some() => {
            let r = time_literal(&r, ty, span)?;
            Ok((l, r, ty))
        }
        (Type::Text, ty @ (Type::Timestamp | Type::Date)) if l.literal_text().is_some() => {
            let l = time_literal(&l, ty, span)?;
            Ok((l, r, ty))
        }
        (a, b) => Err(Refusal::new(
            span,
            format!("{} and {} do not go together", a.name(), b.name()),
        )
        .hint("cast one side: `CAST(x AS STRING)`, `CAST(x AS BIGINT)`, `CAST(x AS DATE)`")),
    }
}

/// All values in one type.
pub(crate) fn unify_all(values: Vec<(Typed, Span)>) -> Checked<(Vec<Typed>, Type)> {
    let Some((first, _)) = values.first().cloned() else {
        return Ok((Vec::new(), Type::Null));
    };
    // A value without a type of its own takes that of the others, whichever stands first.
    let rank = |ty: Type| match ty {
        Type::Null => 0,
        Type::Decimal | Type::Text => 1,
        Type::Int => 2,
        _ => 3,
    };
    let lead = values
        .iter()
        .map(|(v, _)| v)
        .max_by_key(|v| rank(v.ty))
        .cloned()
        .unwrap_or(first);
    let mut unified = Vec::with_capacity(values.len());
    for (value, span) in values {
        let (_, value, ty) = unify(lead.clone(), value, span)?;
        if ty != lead.ty {
            return Err(Refusal::new(
                span,
                format!("{} and {} do not go together", lead.ty.name(), ty.name()),
            )
            .hint("cast one of them"));
        }
        unified.push(value);
    }
    Ok((unified, lead.ty))
}

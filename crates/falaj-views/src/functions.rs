//! The scalar functions of views: an explicit list, each with Spark's result.
//!
//! Absent on purpose: functions that depend on the clock, on chance or on the order of rows, and those
//! that the two engines compute differently.

use std::sync::{Arc, LazyLock};

use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::functions::{core, string, unicode};
use datafusion::logical_expr::{Operator, ScalarUDF};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{IsNotNullExpr, Literal};
use datafusion::sql::sqlparser::ast::{
    CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    ObjectNamePart, Spanned,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use datafusion_spark::function::{math as spark_math, string as spark_string};

use crate::aggregates;
use crate::calendar::{Part, Unit};
use crate::coerce::{case, compare, divide, engine, unify, unify_all};
use crate::error::{Checked, Refusal, nearest};
use crate::kernel::{Kernel, Op};
use crate::lower::Lower;
use crate::types::{Type, Typed};

/// Most decimals that `round` keeps: a double has no more.
const SCALE_MAX: i64 = 15;

/// Every function by name, with how it is called.
const CALLS: &[(&str, &str)] = &[
    ("abs", "abs(number)"),
    ("ceil", "ceil(number)"),
    ("ceiling", "ceiling(number)"),
    ("char_length", "char_length(text)"),
    ("character_length", "character_length(text)"),
    ("coalesce", "coalesce(value, ..)"),
    ("concat", "concat(text, ..)"),
    ("contains", "contains(text, part)"),
    ("date", "date(time)"),
    ("date_trunc", "date_trunc('unit', time)"),
    ("day", "day(time)"),
    ("dayofmonth", "dayofmonth(time)"),
    ("dayofweek", "dayofweek(time)"),
    ("dayofyear", "dayofyear(time)"),
    ("endswith", "endswith(text, part)"),
    ("floor", "floor(number)"),
    ("greatest", "greatest(value, value, ..)"),
    ("hour", "hour(time)"),
    ("if", "if(condition, value, value)"),
    ("ifnull", "ifnull(value, value)"),
    ("lcase", "lcase(text)"),
    ("least", "least(value, value, ..)"),
    ("len", "len(text)"),
    ("length", "length(text)"),
    ("lower", "lower(text)"),
    ("ltrim", "ltrim(text)"),
    ("minute", "minute(time)"),
    ("month", "month(time)"),
    ("nullif", "nullif(value, value)"),
    ("nvl", "nvl(value, value)"),
    ("quarter", "quarter(time)"),
    ("replace", "replace(text, 'from', to)"),
    ("round", "round(number [, decimals])"),
    ("rtrim", "rtrim(text)"),
    ("second", "second(time)"),
    ("sqrt", "sqrt(number)"),
    ("startswith", "startswith(text, part)"),
    ("substr", "substr(text, position [, length])"),
    ("substring", "substring(text, position [, length])"),
    ("to_date", "to_date(time)"),
    ("trim", "trim(text)"),
    ("try_divide", "try_divide(number, number)"),
    ("ucase", "ucase(text)"),
    ("upper", "upper(text)"),
    ("year", "year(time)"),
];

/// Functions that users will look for, and why they are not there.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &[
            "now",
            "current_timestamp",
            "current_date",
            "localtimestamp",
            "unix_timestamp",
            "curdate",
        ],
        "a view depends on its records only, so that a replay gives the same rows; use `event_time`",
    ),
    (
        &[
            "rand",
            "randn",
            "random",
            "uuid",
            "shuffle",
            "monotonically_increasing_id",
        ],
        "a view depends on its records only, so that a replay gives the same rows",
    ),
    (
        &["session_window"],
        "windows are of fixed length: `window(event_time, '1 minute')`",
    ),
    (
        &[
            "row_number",
            "rank",
            "dense_rank",
            "lag",
            "lead",
            "ntile",
            "first",
            "last",
            "first_value",
            "last_value",
            "any_value",
        ],
        "a group has no order; take `min(x)` or `max(x)`",
    ),
    (
        &["approx_count_distinct"],
        "write `count(DISTINCT x)`, which is exact",
    ),
    (
        &[
            "collect_list",
            "collect_set",
            "array_agg",
            "listagg",
            "string_agg",
        ],
        "views hold single values; count them with `count(DISTINCT x)`",
    ),
    (
        &[
            "percentile",
            "median",
            "percentile_approx",
            "approx_percentile",
            "mode",
        ],
        "views have avg, min, max, stddev and variance; group by a band for a distribution",
    ),
    (
        &[
            "cast",
            "bigint",
            "int",
            "double",
            "string",
            "boolean",
            "timestamp",
            "try_cast",
        ],
        "write `CAST(x AS BIGINT)`",
    ),
];

/// The functions and aggregates that views take, by name: how each is called.
///
/// This is what the reference page lists.
pub fn functions() -> impl Iterator<Item = &'static str> {
    CALLS
        .iter()
        .map(|(_, call)| *call)
        .chain(aggregates::CALLS.iter().copied())
}

/// Spark's ANSI mode, which is the default of Spark 4.
static CONFIG: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.execution.enable_ansi_mode = true;
    Arc::new(options)
});

/// The name of a function in lower case, unless it is qualified.
pub(crate) fn name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

/// Where a function's name stands.
pub(crate) fn span(function: &Function) -> Span {
    function.name.span()
}

/// The arguments of a call, where they are plain expressions.
pub(crate) fn arguments(function: &Function) -> Checked<Vec<&Expr>> {
    let refuse = || {
        Refusal::new(
            span(function),
            "this form of a call is not supported in views",
        )
        .hint("write plain arguments: `f(a, b)`")
    };
    match &function.args {
        FunctionArguments::List(list) if list.clauses.is_empty() => list
            .args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Ok(e),
                _ => Err(refuse()),
            })
            .collect(),
        FunctionArguments::None => Ok(Vec::new()),
        _ => Err(refuse()),
    }
}

/// Refuses a name that is no scalar function.
pub(crate) fn known(name: &str, span: Span) -> Checked<()> {
    if CALLS.iter().any(|(n, _)| *n == name) {
        Ok(())
    } else {
        Err(unknown(name, span))
    }
}

/// Refuses what a scalar function does not take.
pub(crate) fn plain(function: &Function, span: Span) -> Checked<()> {
    let distinct = matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment.is_some());
    if distinct
        || function.filter.is_some()
        || function.null_treatment.is_some()
        || !function.within_group.is_empty()
        || !matches!(function.parameters, FunctionArguments::None)
    {
        return Err(
            Refusal::new(span, "DISTINCT, FILTER and the like belong to aggregates")
                .hint("leave it out"),
        );
    }
    Ok(())
}

/// What SQL writes with words inside the parentheses: `EXTRACT(YEAR FROM t)`, `SUBSTRING(x FROM 1)`.
pub(crate) fn special(lower: &mut Lower<'_>, e: &Expr, span: Span) -> Checked<Typed> {
    match e {
        Expr::Extract { field, expr, .. } => {
            let part = match field {
                DateTimeField::Year => "year",
                DateTimeField::Quarter => "quarter",
                DateTimeField::Month => "month",
                DateTimeField::Day => "day",
                DateTimeField::Hour => "hour",
                DateTimeField::Minute => "minute",
                _ => {
                    return Err(Refusal::new(span, format!("EXTRACT of {field} is not supported in views"))
                        .hint("parts are YEAR, QUARTER, MONTH, DAY, HOUR, MINUTE; `second(t)` gives whole seconds"));
                }
            };
            call(lower, part, &[expr], span)
        }
        Expr::Ceil {
            expr,
            field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
        } => call(lower, "ceil", &[expr], span),
        Expr::Floor {
            expr,
            field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
        } => call(lower, "floor", &[expr], span),
        Expr::Substring {
            expr,
            substring_from: Some(from),
            substring_for,
            ..
        } => {
            let mut args: Vec<&Expr> = vec![expr, from];
            args.extend(substring_for.as_deref());
            call(lower, "substring", &args, span)
        }
        Expr::Trim {
            trim_where: None,
            trim_what: None,
            expr,
            trim_characters: None,
        } => call(lower, "trim", &[expr], span),
        _ => Err(
            Refusal::new(span, "this form of a call is not supported in views")
                .hint("write plain arguments: `trim(x)`, `floor(x)`, `substring(x, 1, 2)`"),
        ),
    }
}

/// The function `name` of `args`.
#[expect(clippy::too_many_lines, reason = "a table: one line a function")]
pub(crate) fn call(
    lower: &mut Lower<'_>,
    name: &str,
    args: &[&Expr],
    span: Span,
) -> Checked<Typed> {
    let Some((_, usage)) = CALLS.iter().find(|(n, _)| *n == name) else {
        return Err(unknown(name, span));
    };
    let wrong = || {
        Refusal::new(span, format!("`{name}` does not take these arguments"))
            .hint(format!("write `{usage}`"))
    };
    if name == "if" {
        let [condition, then, otherwise] = args else {
            return Err(wrong());
        };
        return lower.case(None, &[(condition, then)], Some(otherwise));
    }
    let spans: Vec<Span> = args.iter().map(|e| e.span()).collect();
    let args: Vec<Typed> = args
        .iter()
        .map(|e| lower.lower(e))
        .collect::<Checked<_>>()?;
    let scope = Call { lower, name, span };
    let types: Vec<Type> = args.iter().map(|a| a.ty).collect();
    let placed = |args: Vec<Typed>| args.into_iter().zip(spans.iter().copied()).collect();
    let text = |t: &Type| matches!(t, Type::Text | Type::Null);
    match (name, types.as_slice()) {
        ("upper" | "ucase", [t]) if text(t) => scope.text(&string::upper(), args),
        ("lower" | "lcase", [t]) if text(t) => scope.text(&string::lower(), args),
        ("trim", [t]) if text(t) => scope.text(&string::btrim(), args),
        ("ltrim", [t]) if text(t) => scope.text(&string::ltrim(), args),
        ("rtrim", [t]) if text(t) => scope.text(&string::rtrim(), args),
        ("length" | "len" | "char_length" | "character_length", [t]) if text(t) => {
            scope.udf(&unicode::character_length(), texts(args), Type::Int)
        }
        ("substring" | "substr", [t, Type::Int] | [t, Type::Int, Type::Int]) if text(t) => {
            scope.text(&spark_string::substring(), args)
        }
        ("concat", [_, ..]) => {
            let cast = |a: Typed| match a.ty {
                Type::Text => Ok(a),
                _ => lower.cast(a, Type::Text, span),
            };
            let args = args.into_iter().map(cast).collect::<Checked<_>>()?;
            scope.text(&spark_string::concat(), args)
        }
        ("replace", [a, Type::Text, b]) if text(a) && text(b) => {
            // Spark leaves the text as it is where nothing is searched for.
            if args[1].literal_text().is_none_or(str::is_empty) {
                return Err(wrong());
            }
            scope.text(&string::replace(), args)
        }
        ("startswith", [a, b]) if text(a) && text(b) => {
            scope.predicate(&string::starts_with(), args)
        }
        ("endswith", [a, b]) if text(a) && text(b) => scope.predicate(&string::ends_with(), args),
        ("contains", [a, b]) if text(a) && text(b) => scope.predicate(&string::contains(), args),
        ("coalesce", [_, ..]) | ("ifnull" | "nvl", [_, _]) => coalesce(placed(args)),
        ("nullif", [_, _]) => nullif(args, span),
        ("greatest", [_, _, ..]) => scope.extreme(&core::greatest(), placed(args)),
        ("least", [_, _, ..]) => scope.extreme(&core::least(), placed(args)),
        ("abs", [ty @ (Type::Int | Type::Float)]) => scope.udf(&spark_math::abs(), args, *ty),
        ("ceil" | "ceiling" | "floor" | "round", [Type::Int]) => Ok(args[0].clone()),
        ("ceil" | "ceiling", [Type::Float]) => scope.udf(&spark_math::ceil(), args, Type::Int),
        ("floor", [Type::Float]) => scope.udf(&spark_math::floor(), args, Type::Int),
        ("sqrt", [Type::Int | Type::Float]) => {
            kernel(lower, Op::Sqrt, args[0].clone().float(), Type::Float, span)
        }
        ("round", [Type::Float]) => kernel(lower, Op::Round(0), args[0].clone(), Type::Float, span),
        ("round", [ty, Type::Int]) => match (ty, args[1].value()) {
            (Type::Int, Some(ScalarValue::Int64(Some(0..=SCALE_MAX)))) => Ok(args[0].clone()),
            (Type::Float, Some(ScalarValue::Int64(Some(scale @ 0..=SCALE_MAX)))) => {
                let op = Op::Round(usize::try_from(*scale).unwrap_or_default());
                kernel(lower, op, args[0].clone(), Type::Float, span)
            }
            _ => Err(wrong().hint(format!(
                "write `round(number, 2)`, with 0 to {SCALE_MAX} decimals"
            ))),
        },
        ("try_divide", [Type::Int | Type::Float, Type::Int | Type::Float]) => {
            try_divide(args, span)
        }
        ("date_trunc", [Type::Text, Type::Timestamp | Type::Date]) => {
            let Some(unit) = args[0].literal_text().and_then(Unit::parse) else {
                return Err(wrong().hint(
                    "units are 'second', 'minute', 'hour', 'day', 'week', 'month', 'quarter', 'year'",
                ));
            };
            kernel(
                lower,
                Op::Trunc(unit),
                scope.time(&args[1])?,
                Type::Timestamp,
                span,
            )
        }
        ("to_date" | "date", [Type::Timestamp | Type::Date]) => {
            lower.cast(args[0].clone(), Type::Date, span)
        }
        (_, [Type::Timestamp | Type::Date]) => match part(name) {
            Some(part) => kernel(
                lower,
                Op::Part(part),
                scope.time(&args[0])?,
                Type::Int,
                span,
            ),
            None => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// The part of a time that the function `name` gives.
fn part(name: &str) -> Option<Part> {
    Some(match name {
        "year" => Part::Year,
        "quarter" => Part::Quarter,
        "month" => Part::Month,
        "day" | "dayofmonth" => Part::Day,
        "dayofweek" => Part::DayOfWeek,
        "dayofyear" => Part::DayOfYear,
        "hour" => Part::Hour,
        "minute" => Part::Minute,
        "second" => Part::Second,
        _ => return None,
    })
}

fn unknown(name: &str, span: Span) -> Refusal {
    if let Some((_, why)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
        return Refusal::new(span, format!("`{name}` is not supported in views")).hint(*why);
    }
    let known = CALLS
        .iter()
        .map(|(n, _)| *n)
        .chain(aggregates::NAMES.iter().copied());
    let hint = nearest(name, known.chain(["window"])).map_or_else(
        || "the reference lists the functions and operators that views take".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    Refusal::new(span, format!("there is no function `{name}` in views")).hint(hint)
}

/// One of our own functions.
pub(crate) fn kernel(
    lower: &Lower<'_>,
    op: Op,
    arg: Typed,
    ty: Type,
    span: Span,
) -> Checked<Typed> {
    let name = "";
    Call { lower, name, span }.udf(&Kernel::udf(op), vec![arg], ty)
}

/// One call while it is put together.
struct Call<'a, 'b> {
    lower: &'a Lower<'b>,
    name: &'a str,
    span: Span,
}

impl Call<'_, '_> {
    fn udf(&self, udf: &Arc<ScalarUDF>, args: Vec<Typed>, ty: Type) -> Checked<Typed> {
        let schema = self.lower.schema();
        let args = args.into_iter().map(|a| a.expr).collect();
        ScalarFunctionExpr::try_new(Arc::clone(udf), args, &schema, Arc::clone(&CONFIG))
            .and_then(|f| Typed::new(Arc::new(f), ty, &schema))
            .map_err(|_| engine(self.span))
    }

    fn text(&self, udf: &Arc<ScalarUDF>, args: Vec<Typed>) -> Checked<Typed> {
        self.udf(udf, texts(args), Type::Text)
    }

    fn predicate(&self, udf: &Arc<ScalarUDF>, args: Vec<Typed>) -> Checked<Typed> {
        self.udf(udf, texts(args), Type::Bool)
    }

    fn extreme(&self, udf: &Arc<ScalarUDF>, args: Vec<(Typed, Span)>) -> Checked<Typed> {
        let (args, ty) = unify_all(args)?;
        if ty == Type::Bool || ty == Type::Null {
            return Err(Refusal::new(
                self.span,
                format!("`{}` needs values with an order", self.name),
            )
            .hint("numbers, texts, times"));
        }
        let args = args.into_iter().map(Typed::one_zero).collect();
        self.udf(udf, args, ty)
    }

    /// A time as a timestamp.
    fn time(&self, arg: &Typed) -> Checked<Typed> {
        self.lower.cast(arg.clone(), Type::Timestamp, self.span)
    }
}

/// Arguments with NULL as a text.
fn texts(args: Vec<Typed>) -> Vec<Typed> {
    let text = |a: Typed| {
        if a.ty == Type::Null {
            Typed::null(Type::Text)
        } else {
            a
        }
    };
    args.into_iter().map(text).collect()
}

fn coalesce(args: Vec<(Typed, Span)>) -> Checked<Typed> {
    let (mut args, ty) = unify_all(args)?;
    let Some(last) = args.pop() else {
        return Ok(Typed::null(ty));
    };
    if args.is_empty() {
        return Ok(last);
    }
    let cases = args
        .into_iter()
        .map(|a| {
            let known: Arc<dyn datafusion::physical_expr::PhysicalExpr> =
                Arc::new(IsNotNullExpr::new(Arc::clone(&a.expr)));
            (known, a.expr)
        })
        .collect();
    case(cases, Some(last.expr), ty)
}

fn nullif(args: Vec<Typed>, span: Span) -> Checked<Typed> {
    let mut args = args.into_iter();
    let (Some(value), Some(other)) = (args.next(), args.next()) else {
        return Err(engine(span));
    };
    let (value, other, ty) = unify(value, other, span)?;
    let same = compare(value.clone(), Operator::Eq, other, span)?;
    case(
        vec![(same.expr, Typed::null(ty).expr)],
        Some(value.expr),
        ty,
    )
}

fn try_divide(args: Vec<Typed>, span: Span) -> Checked<Typed> {
    let mut args = args.into_iter().map(Typed::float);
    let (Some(l), Some(r)) = (args.next(), args.next()) else {
        return Err(engine(span));
    };
    let zero = Typed {
        expr: Arc::new(Literal::new(ScalarValue::Float64(Some(0.0)))),
        ty: Type::Float,
    };
    let by_zero = compare(r.clone(), Operator::Eq, zero, span)?;
    let quotient = divide(l, r);
    case(
        vec![(by_zero.expr, Typed::null(Type::Float).expr)],
        Some(quotient.expr),
        Type::Float,
    )
}

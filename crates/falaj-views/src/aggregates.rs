//! The aggregates of views and how each is asked of `DataFusion`.
//!
//! Always: NULL is ignored by every aggregate, so `FILTER (WHERE c)` is `CASE WHEN c THEN x END` as the
//! argument. `sum` of BIGINT runs in 128 bits and is checked when the sum is shown. `count(DISTINCT x)`
//! is a count of the values that are new to their group: see `aggregate.rs`.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::functions_aggregate::{
    average::avg_udaf,
    bool_and_or::{bool_and_udaf, bool_or_udaf},
    count::count_udaf,
    min_max::{max_udaf, min_udaf},
    stddev::{stddev_pop_udaf, stddev_udaf},
    sum::sum_udaf,
    variance::{var_pop_udaf, var_samp_udaf},
};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::coerce::{case, engine};
use crate::draft::names_a_person;
use crate::error::{Checked, Refusal};
use crate::functions;
use crate::lower::Lower;
use crate::types::{Type, Typed};

/// Names of all aggregates.
pub(crate) const NAMES: &[&str] = &[
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "count_if",
    "every",
    "max",
    "mean",
    "min",
    "some",
    "std",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// How each is called.
pub(crate) const CALLS: &[&str] = &[
    "avg(number)",
    "bool_and(condition)",
    "bool_or(condition)",
    "count(*)",
    "count(value)",
    "count(DISTINCT value)",
    "count_if(condition)",
    "every(condition)",
    "max(value)",
    "mean(number)",
    "min(value)",
    "some(condition)",
    "std(number)",
    "stddev(number)",
    "stddev_pop(number)",
    "stddev_samp(number)",
    "sum(number)",
    "var_pop(number)",
    "var_samp(number)",
    "variance(number)",
];

/// Precision of the sums of BIGINT: more records than 2^63 would be needed to leave it.
const SUM_DIGITS: u8 = 28;

/// One aggregate of a view.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What is aggregated, over the columns of `records`.
    pub arg: Arc<dyn PhysicalExpr>,
    pub function: Arc<AggregateFunctionExpr>,
    /// Type of its results in memory.
    pub result: DataType,
    /// Type of its results in the view.
    pub ty: Type,
    /// Whether only distinct values count.
    pub distinct: bool,
    udaf: Arc<AggregateUDF>,
}

impl Call {
    /// Whether two calls compute the same.
    pub fn same(&self, other: &Self) -> bool {
        self.udaf == other.udaf && self.distinct == other.distinct && *self.arg == *other.arg
    }

    /// Reads a call of the aggregate `name`; `rows` reads its argument.
    pub fn read(rows: &mut Lower<'_>, name: &str, f: &Function, span: Span) -> Checked<Self> {
        let distinct = check_form(name, f, span)?;
        let arg = if is_count_star(f) {
            Typed::literal(1_i64.into(), Type::Int)
        } else {
            match functions::arguments(f)?.as_slice() {
                [arg] if name == "count_if" => rows.condition(arg)?,
                [arg] => rows.lower(arg)?,
                _ => {
                    return Err(Refusal::new(span, format!("`{name}` takes one argument"))
                        .hint(usage(name)));
                }
            }
        };
        let (udaf, arg, ty) = plan(name, arg, span)?;
        if ty == Type::Text && names_a_person(&arg.expr) {
            return Err(Refusal::new(
                span,
                format!("`{name}` would keep a person's pid in a group's row"),
            )
            .hint(
                "count people with `count(DISTINCT pid)`: a pid in such a row could not be erased",
            ));
        }
        let arg = match &f.filter {
            None => arg.expr,
            Some(filter) => {
                let condition = rows.condition(filter)?;
                case(vec![(condition.expr, arg.expr)], None, arg.ty)?.expr
            }
        };
        Self::new(udaf, arg, ty, distinct, rows).map_err(|_| engine(span))
    }

    fn new(
        udaf: Arc<AggregateUDF>,
        arg: Arc<dyn PhysicalExpr>,
        ty: Type,
        distinct: bool,
        rows: &Lower<'_>,
    ) -> datafusion::common::Result<Self> {
        let data_type = arg.data_type(&rows.schema())?;
        let schema = Schema::new(vec![Field::new("x", data_type, true)]);
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("x", 0));
        let function = AggregateExprBuilder::new(Arc::clone(&udaf), vec![column])
            .schema(Arc::new(schema))
            .alias("a")
            .build()?;
        let result = function.field().data_type().clone();
        Ok(Self {
            arg,
            function: Arc::new(function),
            result,
            ty,
            distinct,
            udaf,
        })
    }
}

/// Whether a call is `count(*)` or `count(1)` over all records of a group.
pub(crate) fn is_count_star(f: &Function) -> bool {
    functions::name(f).as_deref() == Some("count")
        && matches!(&f.args, FunctionArguments::List(list)
            if matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]))
}

/// Refuses forms of a call that aggregates do not take; whether it says DISTINCT.
fn check_form(name: &str, f: &Function, span: Span) -> Checked<bool> {
    let (clauses, distinct) = match &f.args {
        FunctionArguments::List(list) => (
            !list.clauses.is_empty(),
            list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
        ),
        _ => (false, false),
    };
    if clauses
        || f.null_treatment.is_some()
        || !f.within_group.is_empty()
        || !matches!(f.parameters, FunctionArguments::None)
    {
        return Err(
            Refusal::new(span, "this form of an aggregate is not supported in views")
                .hint(usage(name)),
        );
    }
    if distinct && (name != "count" || is_count_star(f)) {
        return Err(
            Refusal::new(span, format!("DISTINCT is not supported in `{name}` here"))
                .hint("write `count(DISTINCT x)`; min and max need no DISTINCT"),
        );
    }
    Ok(distinct)
}

fn usage(name: &str) -> String {
    let calls: Vec<_> = CALLS
        .iter()
        .filter(|c| c.split('(').next() == Some(name))
        .map(|c| format!("`{c}`"))
        .collect();
    format!("write {}", calls.join(" or "))
}

/// `DataFusion`'s aggregate, its argument in the type it wants, and the type of the result.
fn plan(name: &str, arg: Typed, span: Span) -> Checked<(Arc<AggregateUDF>, Typed, Type)> {
    let wrong = |wanted: &str| {
        Refusal::new(
            span,
            format!("`{name}` needs a {wanted}, and this is a {}", arg.ty.name()),
        )
        .hint(usage(name))
    };
    let number = matches!(arg.ty, Type::Int | Type::Float);
    Ok(match name {
        "count" => match arg.ty {
            Type::Decimal => return Err(wrong("value")),
            _ => (count_udaf(), arg.or_int().one_zero(), Type::Int),
        },
        "count_if" => {
            let one = Typed::literal(1_i64.into(), Type::Int);
            (
                count_udaf(),
                case(vec![(arg.expr, one.expr)], None, Type::Int)?,
                Type::Int,
            )
        }
        "sum" if arg.ty == Type::Int => {
            let wide = CastExpr::new(arg.expr, DataType::Decimal128(SUM_DIGITS, 0), None);
            let arg = Typed {
                expr: Arc::new(wide),
                ty: Type::Int,
            };
            (sum_udaf(), arg, Type::Int)
        }
        "sum" if number => (sum_udaf(), arg, Type::Float),
        "avg" | "mean" if number => (avg_udaf(), arg.float(), Type::Float),
        "stddev" | "std" | "stddev_samp" if number => (stddev_udaf(), arg.float(), Type::Float),
        "stddev_pop" if number => (stddev_pop_udaf(), arg.float(), Type::Float),
        "variance" | "var_samp" if number => (var_samp_udaf(), arg.float(), Type::Float),
        "var_pop" if number => (var_pop_udaf(), arg.float(), Type::Float),
        "min" | "max" if !matches!(arg.ty, Type::Null | Type::Decimal) => {
            let ty = arg.ty;
            let udaf = if name == "min" {
                min_udaf()
            } else {
                max_udaf()
            };
            (udaf, arg.one_zero(), ty)
        }
        "bool_and" | "every" if arg.ty == Type::Bool => (bool_and_udaf(), arg, Type::Bool),
        "bool_or" | "some" if arg.ty == Type::Bool => (bool_or_udaf(), arg, Type::Bool),
        "bool_and" | "every" | "bool_or" | "some" => return Err(wrong("condition")),
        "min" | "max" => return Err(wrong("value with an order")),
        _ => return Err(wrong("number")),
    })
}

/// Whether `e` calls an aggregate anywhere.
pub(crate) fn inside(e: &Expr) -> bool {
    use std::ops::ControlFlow;

    use datafusion::sql::sqlparser::ast::visit_expressions;
    visit_expressions(e, |e| match e {
        Expr::Function(f)
            if f.over.is_none()
                && functions::name(f).is_some_and(|n| NAMES.contains(&n.as_str())) =>
        {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

//! The names that a SQL text may use: columns of its relation, and in SELECT of an aggregate view the
//! windows it groups by.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Function, Ident, Spanned};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::aggregates::Call;
use crate::error::{Checked, Refusal, nearest};
use crate::functions;
use crate::kernel::Op;
use crate::literals::text_of;
use crate::lower::Lower;
use crate::types::{Type, Typed};
use crate::window::Windows;

/// What a view reads: `records`, or the columns of a row view written over it.
#[derive(Debug)]
pub(crate) struct Relation {
    pub name: String,
    /// Columns in order, over the schema of `records`.
    pub columns: Vec<(String, Typed)>,
    /// Records that belong to it; all, where there is none.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Arrow schema of `records`, which every expression here is over.
    pub schema: SchemaRef,
}

/// One expression of GROUP BY.
#[derive(Debug)]
pub(crate) enum Key {
    Value(Typed),
    Windows(Windows),
}

impl Key {
    pub fn ty(&self) -> Type {
        match self {
            Self::Value(value) => value.ty,
            Self::Windows(_) => Type::Timestamp,
        }
    }
}

/// The grouping of an aggregate view, as far as it is known; calls are added as SELECT is read.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    pub keys: Vec<Key>,
    pub calls: Vec<Call>,
}

impl Grouping {
    /// Columns that expressions of SELECT are over: the keys, then the results of the calls.
    pub fn schema(&self) -> Schema {
        let keys = self.keys.iter().map(|k| k.ty().arrow());
        let calls = self.calls.iter().map(|c| c.result.clone());
        let fields: Vec<_> = keys
            .chain(calls)
            .enumerate()
            .map(|(i, data_type)| Field::new(format!("c{i}"), data_type, true))
            .collect();
        Schema::new(fields)
    }

    pub fn column(index: usize, ty: Type) -> Typed {
        Typed::column(&format!("c{index}"), index, ty)
    }
}

impl Lower<'_> {
    /// A column of the relation, by its name in any case.
    pub fn column(&self, ident: &Ident) -> Checked<Typed> {
        let name = ident.value.to_lowercase();
        if matches!(ident.quote_style, Some('"' | '\'')) {
            return Ok(Typed::text(&ident.value));
        }
        let found = self.relation.columns.iter().find(|(n, _)| *n == name);
        match (found, &self.grouping) {
            (Some((_, column)), None) => Ok(column.clone()),
            (Some((name, _)), Some(_)) => Err(Refusal::new(
                ident.span,
                format!("`{name}` is neither grouped by nor inside an aggregate"),
            )
            .hint(format!(
                "add it to GROUP BY, or take one value of the group: `max({name})`"
            ))),
            (None, Some(_)) if name == "window" => {
                Err(Refusal::new(ident.span, "`window` is not a single value")
                    .hint("select `window.start AS window_start` or `window.end AS window_end`"))
            }
            (None, _) => {
                let names = || self.relation.columns.iter().map(|(n, _)| n.as_str());
                let hint = nearest(&name, names()).map_or_else(
                    || {
                        let known: Vec<_> = names().collect();
                        format!(
                            "columns of `{}` are {}",
                            self.relation.name,
                            known.join(", ")
                        )
                    },
                    |near| format!("did you mean `{near}`?"),
                );
                Err(Refusal::new(
                    ident.span,
                    format!("`{}` has no column `{}`", self.relation.name, ident.value),
                )
                .hint(hint))
            }
        }
    }

    pub fn compound(&self, parts: &[Ident], span: Span) -> Checked<Typed> {
        match parts {
            [first, field] if first.value.eq_ignore_ascii_case(self.qualifier) => {
                self.column(field)
            }
            [first, field] if first.value.eq_ignore_ascii_case("window") => {
                self.window_column(None, field, span)
            }
            [first, ..]
                if self
                    .relation
                    .columns
                    .iter()
                    .any(|(n, _)| first.value.eq_ignore_ascii_case(n)) =>
            {
                Err(
                    Refusal::new(span, format!("`{}` has no parts", first.value))
                        .hint("declare the inner value as a field: `from = \"a.b\"`"),
                )
            }
            [first, ..] => Err(Refusal::new(
                span,
                format!("there is no relation `{}` here", first.value),
            )
            .hint(format!("columns stand in `{}`", self.qualifier))),
            [] => Err(Refusal::new(span, "a name is missing")),
        }
    }

    /// `window.start` or `window.end` of the windows grouped by.
    fn window_column(&self, windows: Option<Windows>, field: &Ident, span: Span) -> Checked<Typed> {
        let group = self.grouping.as_ref().and_then(|grouping| {
            grouping
                .keys
                .iter()
                .enumerate()
                .find_map(|(i, key)| match key {
                    Key::Windows(w) if windows.is_none_or(|asked| asked == *w) => {
                        Some((Grouping::column(i, Type::Timestamp), *w))
                    }
                    _ => None,
                })
        });
        let Some((start, windows)) = group else {
            return Err(Refusal::new(span, "these windows are not grouped by")
                .hint("add `GROUP BY window(event_time, '1 minute')`"));
        };
        match field.value.to_lowercase().as_str() {
            "start" => Ok(start),
            "end" => functions::kernel(self, Op::Later(windows.size), start, Type::Timestamp, span),
            other => Err(Refusal::new(span, format!("a window has no `{other}`"))
                .hint("it has `window.start` and `window.end`")),
        }
    }

    /// `window(event_time, '1 minute').start`
    pub fn window_field(&self, root: &Expr, chain: &[AccessExpr], span: Span) -> Checked<Typed> {
        if let (Expr::Function(function), [AccessExpr::Dot(Expr::Identifier(field))]) =
            (root, chain)
            && let Some(windows) = self.windows(function)?
        {
            return self.window_column(Some(windows), field, span);
        }
        Err(
            Refusal::new(span, "fields hold single values, they have no parts")
                .hint("declare the inner value as a field: `from = \"a.b\"`"),
        )
    }

    /// The windows that a call of `window` means; `None` for another function.
    pub fn windows(&self, function: &Function) -> Checked<Option<Windows>> {
        let Some(name) = functions::name(function) else {
            return Ok(None);
        };
        if name != "window" {
            return Ok(None);
        }
        let span = functions::span(function);
        let args = functions::arguments(function)?;
        let [time, lengths @ ..] = args.as_slice() else {
            return Err(Refusal::new(span, "`window` needs a time and a length")
                .hint("write `window(event_time, '1 minute')`"));
        };
        if lengths.is_empty() || lengths.len() > 2 {
            return Err(Refusal::new(span, "`window` takes a time, a length and perhaps a slide")
                .hint("write `window(event_time, '10 minutes', '5 minutes')`; windows begin at multiples of the slide"));
        }
        let event_time = self
            .relation
            .schema
            .index_of(falaj_record::EVENT_TIME)
            .map(|i| Typed::column(falaj_record::EVENT_TIME, i, Type::Timestamp));
        let time_expr = self.rows("window").lower(time)?;
        if !event_time.is_ok_and(|t| *t.expr == *time_expr.expr) {
            return Err(Refusal::new(time.span(), "windows are over `event_time`")
                .hint("the watermark follows `event_time`; set it with `[pipeline] event_time`"));
        }
        Windows::new(lengths, |e| match e {
            Expr::Value(v) => text_of(&v.value, v.span).ok(),
            _ => None,
        })
        .map(Some)
    }
}

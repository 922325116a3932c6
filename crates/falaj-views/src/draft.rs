//! One view while it is put together: from its SQL text, taken apart, to what runs.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion::common::Result;
use datafusion::physical_expr::expressions::Column as ColumnExpr;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::sql::sqlparser::ast::{Expr, Spanned, Value};
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_record::{Column, PID, ViewInfo, ViewKind, Window};

use crate::coerce::engine;
use crate::error::{Checked, Refusal};
use crate::kernel;
use crate::lower::Lower;
use crate::plan::{AggregatePlan, Common, KeyPlan, RowPlan, check_name};
use crate::scope::{Grouping, Key, Relation};
use crate::sql::{Item, Shape};
use crate::table::Layout;
use crate::types::{Type, Typed};
use crate::views::{ViewOptions, ViewSpec};
use crate::window::Windows;

/// A view while it is put together.
pub(crate) struct Draft<'a> {
    pub spec: &'a ViewSpec,
    pub shape: &'a Shape,
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Fingerprint of the row view it reads.
    pub parent: Option<String>,
    pub options: &'a ViewOptions,
}

impl Draft<'_> {
    /// A row view, and the relation it is to other views.
    pub fn row(self, lower: &mut Lower<'_>) -> Checked<(RowPlan, Relation)> {
        lower.clause = "a view without GROUP BY";
        let mut columns = Columns::default();
        for item in &self.shape.items {
            let value = lower.lower(&item.expr)?;
            let is_pid = value
                .expr
                .downcast_ref::<ColumnExpr>()
                .is_some_and(|c| c.name() == PID);
            let nullable = self.nullable(&value, &lower.relation.schema);
            columns.add(item, value, is_pid, nullable)?;
        }
        let relation = Relation {
            name: self.spec.name.clone(),
            columns: columns.named(),
            filter: self.filter.clone(),
            schema: Arc::clone(&lower.relation.schema),
        };
        let mut exprs = columns.exprs();
        let inputs = inputs(&mut [&mut exprs], &relation.schema);
        let common = self.common(columns, ViewKind::Row, None, inputs, &relation.schema);
        let plan = RowPlan {
            common,
            outputs: exprs,
        };
        Ok((plan, relation))
    }

    /// An aggregate view.
    pub fn aggregate(self, rows: &Lower<'_>) -> Checked<AggregatePlan> {
        let mut grouping = Grouping {
            keys: self.keys(rows)?,
            calls: Vec::new(),
        };
        let schema = Arc::clone(&rows.relation.schema);
        let columns = self.select(rows, &mut grouping)?;
        let windows = grouping
            .keys
            .iter()
            .enumerate()
            .find_map(|(i, key)| match key {
                Key::Windows(windows) => Some((*windows, i)),
                Key::Value(_) => None,
            });
        let Grouping { keys, calls } = &grouping;
        let mut args: Vec<_> = calls.iter().map(|c| Arc::clone(&c.arg)).collect();
        let mut values: Vec<Arc<dyn PhysicalExpr>> = keys
            .iter()
            .filter_map(|key| match key {
                Key::Value(value) => Some(value.clone().one_zero().expr),
                Key::Windows(_) => None,
            })
            .collect();
        let inputs = inputs(&mut [&mut args, &mut values], &schema);
        let mut values = values.into_iter();
        let key_plans = keys
            .iter()
            .filter_map(|key| match key {
                Key::Value(_) => values.next().map(KeyPlan::Value),
                Key::Windows(_) => Some(KeyPlan::Window),
            })
            .collect();
        let types: Vec<DataType> = keys.iter().map(|k| k.ty().arrow()).collect();
        let functions = calls.iter().map(|c| Arc::clone(&c.function)).collect();
        let layout = Layout::new(types.clone(), functions, Some(self.options.people))
            .map_err(|_| engine(Span::empty()))?;
        let pairs = calls
            .iter()
            .map(|call| {
                if !call.distinct {
                    return Ok(None);
                }
                let mut types = types.clone();
                types.push(call.arg.data_type(&schema)?);
                Layout::new(types, Vec::new(), None).map(Some)
            })
            .collect::<Result<_>>()
            .map_err(|_| engine(Span::empty()))?;
        let outputs = columns.exprs();
        let result_schema = Arc::new(grouping.schema());
        Ok(AggregatePlan {
            common: self.common(columns, ViewKind::Aggregate, windows, inputs, &schema),
            keys: key_plans,
            windows,
            args,
            pairs,
            layout,
            result_schema,
            outputs,
        })
    }

    /// The expressions of GROUP BY: as written, by place, or by the name SELECT gives them.
    fn keys(&self, rows: &Lower<'_>) -> Checked<Vec<Key>> {
        let mut keys: Vec<Key> = Vec::new();
        for written in &self.shape.group_by {
            let span = written.span();
            let e = self.grouped(written, rows)?;
            let mut rows = rows.rows("GROUP BY");
            if let Expr::Function(function) = e
                && let Some(windows) = rows.windows(function)?
            {
                if keys.iter().any(|k| matches!(k, Key::Windows(_))) {
                    return Err(Refusal::new(span, "a view has one kind of windows")
                        .hint("write a view for each window length"));
                }
                keys.push(Key::Windows(windows));
                continue;
            }
            let value = rows.lower(e)?;
            if value.value().is_some() || value.ty == Type::Null {
                return Err(Refusal::new(span, "this groups by a constant")
                    .hint("leave GROUP BY out for one row over all records"));
            }
            let repeats = |k: &Key| matches!(k, Key::Value(v) if *v.expr == *value.expr);
            if !keys.iter().any(repeats) {
                keys.push(Key::Value(value));
            }
        }
        Ok(keys)
    }

    /// What an expression of GROUP BY stands for.
    fn grouped<'e>(&'e self, written: &'e Expr, rows: &Lower<'_>) -> Checked<&'e Expr> {
        let items = &self.shape.items;
        match written {
            Expr::Value(v) => match &v.value {
                Value::Number(place, _) => {
                    let place: Option<usize> = place.parse().ok();
                    let item = place.and_then(|p| items.get(p.checked_sub(1)?));
                    item.map(|i| &i.expr).ok_or_else(|| {
                        Refusal::new(v.span, "GROUP BY names a place that SELECT does not have")
                            .hint(format!("SELECT has {} columns", items.len()))
                    })
                }
                _ => Ok(written),
            },
            Expr::Identifier(ident) => {
                let name = ident.value.to_lowercase();
                if rows.relation.columns.iter().any(|(n, _)| *n == name) {
                    return Ok(written);
                }
                let named = |i: &&Item| i.alias.as_ref().is_some_and(|a| a.value == ident.value);
                Ok(items.iter().find(named).map_or(written, |i| &i.expr))
            }
            _ => Ok(written),
        }
    }

    /// The columns of SELECT; every key must be among them.
    fn select(&self, rows: &Lower<'_>, grouping: &mut Grouping) -> Checked<Columns> {
        let mut columns = Columns::default();
        let mut selected = vec![false; grouping.keys.len()];
        for item in &self.shape.items {
            let mut lower = Lower {
                relation: rows.relation,
                qualifier: rows.qualifier,
                grouping: Some(grouping),
                clause: "SELECT",
                depth: 0,
            };
            let value = lower.lower(&item.expr)?;
            let key = key_of(&value, grouping);
            let mut nullable = true;
            if let Some(key) = key {
                selected[key] = true;
                nullable = match &grouping.keys[key] {
                    Key::Windows(_) => false,
                    Key::Value(value) => self.nullable(value, &rows.relation.schema),
                };
            }
            columns.add(item, value, key.is_some(), nullable)?;
            if let Some(Key::Value(group)) = key.map(|key| &grouping.keys[key])
                && names_a_person(&group.expr)
                && columns
                    .list
                    .last()
                    .is_none_or(|(column, _)| column.name != PID)
            {
                return Err(Refusal::new(
                    item.expr.span(),
                    "groups of one person need the pid as it is, in a column `pid`",
                )
                .hint("write `pid`: a person's rows are found and erased by it"));
            }
        }
        if let Some(missing) = selected.iter().position(|s| !s) {
            let written = self.shape.group_by.get(missing);
            let span = written.map_or(Span::empty(), Spanned::span);
            let hint = match grouping.keys[missing] {
                Key::Windows(_) => "add `window.start AS window_start` to SELECT",
                Key::Value(_) => "add it to SELECT: it tells the rows of the view apart",
            };
            return Err(
                Refusal::new(span, "SELECT does not have this expression of GROUP BY").hint(hint),
            );
        }
        Ok(columns)
    }

    /// Whether `value`, over the schema of `records`, may be NULL; so it is where nobody knows.
    fn nullable(&self, value: &Typed, schema: &ArrowSchema) -> bool {
        let is_pid = value
            .expr
            .downcast_ref::<ColumnExpr>()
            .is_some_and(|c| c.name() == PID);
        if is_pid {
            !self.options.pid_required
        } else {
            value.expr.nullable(schema).unwrap_or(true)
        }
    }

    fn common(
        &self,
        columns: Columns,
        kind: ViewKind,
        windows: Option<(Windows, usize)>,
        inputs: Vec<usize>,
        schema: &SchemaRef,
    ) -> Common {
        let window = windows.map(|(windows, key)| Window {
            size_us: windows.size,
            slide_us: windows.slide,
            start: columns.find(|e| is_column(e, key)),
            end: columns.find(|e| is_end(e, key)),
        });
        let columns: Vec<Column> = columns.list.into_iter().map(|(column, _)| column).collect();
        let fields: Vec<Field> = columns
            .iter()
            .map(|c| Field::new(&c.name, c.data_type.clone(), true))
            .collect();
        let used = self
            .filter
            .iter()
            .flat_map(collect_columns)
            .map(|c| c.index());
        let mut used: Vec<usize> = used.chain(inputs.iter().copied()).collect();
        used.sort_unstable();
        used.dedup();
        let names = used.iter().map(|&i| schema.field(i).name().clone());
        let read = names.collect();
        let fields_used: Vec<String> = used
            .into_iter()
            .map(|i| format!("{} {}", schema.field(i).name(), schema.field(i).data_type()))
            .collect();
        let fingerprint = serde_json::json!([
            self.shape.canonical,
            fields_used,
            self.parent,
            self.options.people,
            windows.map(|_| self.options.lateness),
        ])
        .to_string();
        Common {
            info: Arc::new(ViewInfo {
                name: self.spec.name.clone(),
                kind,
                columns,
                window,
                fields: read,
                sql: self.spec.sql.clone(),
            }),
            over_records: self.parent.is_none(),
            fingerprint,
            filter: self.filter.clone(),
            inputs,
            output_schema: Arc::new(ArrowSchema::new(fields)),
        }
    }
}

/// Whether the value of an expression may tell the pid.
pub(crate) fn names_a_person(expr: &Arc<dyn PhysicalExpr>) -> bool {
    collect_columns(expr).iter().any(|c| c.name() == PID)
}

/// The columns of a view while SELECT is read.
#[derive(Default)]
struct Columns {
    list: Vec<(Column, Typed)>,
}

impl Columns {
    fn add(&mut self, item: &Item, value: Typed, key: bool, nullable: bool) -> Checked<()> {
        let (name, span) = match (&item.alias, &item.expr) {
            (Some(name), _) | (None, Expr::Identifier(name)) => (name.value.clone(), name.span),
            (None, Expr::CompoundIdentifier(parts)) if !parts.is_empty() => {
                let last = &parts[parts.len() - 1];
                (last.value.clone(), last.span)
            }
            (None, e) => {
                return Err(Refusal::new(e.span(), "this column has no name")
                    .hint("give it one: `.. AS name`"));
            }
        };
        check_name(&name, "a column's name", span)?;
        if self.list.iter().any(|(c, _)| c.name == name) {
            return Err(
                Refusal::new(span, format!("two columns are named `{name}`"))
                    .hint("give one of them another name: `.. AS name`"),
            );
        }
        if matches!(value.ty, Type::Null | Type::Decimal) {
            return Err(Refusal::new(
                item.expr.span(),
                format!(
                    "a column of type {} is not supported in views",
                    value.ty.name()
                ),
            )
            .hint("cast it: `CAST(NULL AS STRING)`, `CAST(0.5 AS DOUBLE)`"));
        }
        let column = Column {
            name,
            data_type: value.ty.arrow(),
            key,
            nullable,
        };
        self.list.push((column, value));
        Ok(())
    }

    fn exprs(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.list.iter().map(|(_, v)| Arc::clone(&v.expr)).collect()
    }

    fn named(&self) -> Vec<(String, Typed)> {
        self.list
            .iter()
            .map(|(c, v)| (c.name.clone(), v.clone()))
            .collect()
    }

    fn find(&self, is: impl Fn(&Arc<dyn PhysicalExpr>) -> bool) -> Option<usize> {
        self.list.iter().position(|(_, v)| is(&v.expr))
    }
}

/// The key that a column of SELECT shows.
fn key_of(value: &Typed, grouping: &Grouping) -> Option<usize> {
    grouping.keys.iter().enumerate().find_map(|(i, key)| {
        let window_end = matches!(key, Key::Windows(_)) && is_end(&value.expr, i);
        (is_column(&value.expr, i) || window_end).then_some(i)
    })
}

fn is_column(expr: &Arc<dyn PhysicalExpr>, index: usize) -> bool {
    expr.downcast_ref::<ColumnExpr>()
        .is_some_and(|c| c.index() == index)
}

/// Whether `expr` is the end of the window whose start is the column `index`.
fn is_end(expr: &Arc<dyn PhysicalExpr>, index: usize) -> bool {
    let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else {
        return false;
    };
    call.name() == kernel::LATER && call.args().iter().all(|a| is_column(a, index))
}

/// The columns of `records` that expressions use; the expressions are rewritten to be over them.
fn inputs(lists: &mut [&mut Vec<Arc<dyn PhysicalExpr>>], schema: &SchemaRef) -> Vec<usize> {
    let mut used: Vec<usize> = lists
        .iter()
        .flat_map(|list| list.iter())
        .flat_map(collect_columns)
        .map(|c| c.index())
        .collect();
    used.sort_unstable();
    used.dedup();
    let fields: Vec<_> = used
        .iter()
        .map(|&i| Arc::clone(&schema.fields()[i]))
        .collect();
    let narrow = ArrowSchema::new(fields);
    for expr in lists.iter_mut().flat_map(|list| list.iter_mut()) {
        // Every column was just found, so this finds them again.
        if let Ok(rewritten) = reassign_expr_columns(Arc::clone(expr), &narrow) {
            *expr = rewritten;
        }
    }
    used
}

//! From the views' SQL texts to what runs: for each view its filter, its groups, its aggregates and
//! its columns. Done once; every batch is fed through it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::prep_null_mask_filter;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_record::{OFFSET, PARTITION, Schema, ViewInfo};

use crate::aggregates;
use crate::draft::Draft;
use crate::error::{Checked, Refusal, ViewError, nearest};
use crate::lower::Lower;
use crate::scope::Relation;
use crate::sql;
use crate::table::Layout;
use crate::types::{Type, Typed};
use crate::views::{ViewOptions, ViewSpec};
use crate::window::Windows;

/// Name of the relation that holds every record.
const RECORDS: &str = "records";

/// A view, ready to run.
#[derive(Debug)]
pub(crate) enum Plan {
    Row(RowPlan),
    Aggregate(AggregatePlan),
}

impl Plan {
    pub fn common(&self) -> &Common {
        match self {
            Self::Row(plan) => &plan.common,
            Self::Aggregate(plan) => &plan.common,
        }
    }
}

/// What every view has.
#[derive(Debug)]
pub(crate) struct Common {
    pub info: Arc<ViewInfo>,
    /// Whether it reads `records` itself, so that the ledger counts it.
    pub over_records: bool,
    /// What a checkpoint's state depends on.
    pub fingerprint: String,
    /// Over the schema of `records`.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Columns of `records` that the view's expressions use.
    pub inputs: Vec<usize>,
    /// Columns of the view.
    pub output_schema: SchemaRef,
}

/// A row view.
#[derive(Debug)]
pub(crate) struct RowPlan {
    pub common: Common,
    /// Over the inputs.
    pub outputs: Vec<Arc<dyn PhysicalExpr>>,
}

/// One group column.
#[derive(Debug)]
pub(crate) enum KeyPlan {
    /// Over the inputs.
    Value(Arc<dyn PhysicalExpr>),
    /// Start of the window.
    Window,
}

/// An aggregate view.
#[derive(Debug)]
pub(crate) struct AggregatePlan {
    pub common: Common,
    pub keys: Vec<KeyPlan>,
    /// The windows and which of the keys is their start.
    pub windows: Option<(Windows, usize)>,
    /// Arguments of the aggregates, over the inputs.
    pub args: Vec<Arc<dyn PhysicalExpr>>,
    /// For `count(DISTINCT x)`: the layout of the pairs of group and value.
    pub pairs: Vec<Option<Arc<Layout>>>,
    pub layout: Arc<Layout>,
    /// Columns that the outputs are over: keys, then results of the aggregates.
    pub result_schema: SchemaRef,
    pub outputs: Vec<Arc<dyn PhysicalExpr>>,
}

impl Common {
    /// Which records WHERE lets through; `None` where all.
    pub fn passes(&self, records: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.filter else {
            return Ok(None);
        };
        let mask = filter.evaluate(records)?.into_array(records.num_rows())?;
        let mask = as_boolean_array(&mask)?;
        // NULL does not pass.
        let mask = match mask.nulls() {
            Some(_) => prep_null_mask_filter(mask),
            None => mask.clone(),
        };
        Ok((mask.true_count() < mask.len()).then_some(mask))
    }

    /// The columns that the view's expressions are over.
    pub fn inputs(&self, records: &RecordBatch) -> Result<RecordBatch> {
        Ok(records.project(&self.inputs)?)
    }

    /// The view's columns from the expressions that give them.
    pub fn outputs(
        &self,
        exprs: &[Arc<dyn PhysicalExpr>],
        input: &RecordBatch,
    ) -> Result<RecordBatch> {
        let columns = evaluate(exprs, input)?;
        let options = RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
        let schema = Arc::clone(&self.output_schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }
}

/// The values of expressions.
pub(crate) fn evaluate(
    exprs: &[Arc<dyn PhysicalExpr>],
    input: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    exprs
        .iter()
        .map(|e| e.evaluate(input)?.into_array(input.num_rows()))
        .collect()
}

/// Plans all views, in the order given.
pub(crate) fn plan(
    schema: &Schema,
    views: &[ViewSpec],
    options: &ViewOptions,
) -> std::result::Result<Vec<Plan>, Vec<ViewError>> {
    let mut planner = Planner {
        schema,
        views,
        options,
        planned: BTreeMap::new(),
        errors: Vec::new(),
        open: Vec::new(),
    };
    for (i, view) in views.iter().enumerate() {
        if let Err(refusal) = check_view_name(&view.name, &views[..i]) {
            planner.errors.push(refusal.into_error(&view.name));
        }
    }
    for view in views {
        planner.view(&view.name);
    }
    let mut errors = planner.errors;
    if !errors.is_empty() {
        let place = |e: &ViewError| views.iter().position(|v| v.name == e.view);
        errors.sort_by_key(place);
        return Err(errors);
    }
    let mut done = planner.planned;
    Ok(views
        .iter()
        .filter_map(|v| done.remove(&v.name)?.map(|p| p.plan))
        .collect())
}

fn check_view_name(name: &str, before: &[ViewSpec]) -> Checked<()> {
    if name == RECORDS {
        return Err(
            Refusal::new(Span::empty(), "`records` is the relation of all records")
                .hint("give the view another name"),
        );
    }
    if before.iter().any(|v| v.name == name) {
        return Err(
            Refusal::new(Span::empty(), "another view has the same name")
                .hint("give one of them another name"),
        );
    }
    check_name(name, "a view's name", Span::empty())
}

/// Names go into stores as they are.
pub(crate) fn check_name(name: &str, what: &str, span: Span) -> Checked<()> {
    let first = |c: char| c.is_ascii_lowercase();
    let later = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.starts_with(first) && name.chars().all(later) {
        return Ok(());
    }
    Err(Refusal::new(span, format!("{what} cannot be `{name}`"))
        .hint("names are lower-case letters, digits and `_`, and begin with a letter"))
}

/// A view and, for a row view, the relation it is to other views.
struct Planned {
    plan: Plan,
    relation: Option<Relation>,
}

struct Planner<'a> {
    schema: &'a Schema,
    views: &'a [ViewSpec],
    options: &'a ViewOptions,
    /// By name; none where the view has an error.
    planned: BTreeMap<String, Option<Planned>>,
    errors: Vec<ViewError>,
    /// Views being planned: each reads the next.
    open: Vec<String>,
}

impl Planner<'_> {
    fn view(&mut self, name: &str) {
        if self.planned.contains_key(name) {
            return;
        }
        let Some(spec) = self.views.iter().find(|v| v.name == name) else {
            return;
        };
        self.open.push(name.to_owned());
        let planned = match self.plan_view(spec) {
            Ok(planned) => Some(planned),
            Err(refusal) => {
                self.errors.push(refusal.into_error(name));
                None
            }
        };
        self.open.pop();
        self.planned.insert(name.to_owned(), planned);
    }

    fn plan_view(&mut self, spec: &ViewSpec) -> Checked<Planned> {
        let shape = sql::parse(&spec.sql)?;
        let (relation, parent) = self.relation(&shape.from)?;
        let qualifier = shape.alias.as_ref().unwrap_or(&shape.from).value.clone();
        let mut lower = Lower {
            relation: &relation,
            qualifier: &qualifier,
            grouping: None,
            clause: "WHERE",
            depth: 0,
        };
        let mut filter = relation.filter.clone();
        if let Some(condition) = &shape.filter {
            let condition = lower.condition(condition)?.expr;
            filter = Some(match filter {
                None => condition,
                Some(outer) => Arc::new(BinaryExpr::new(outer, Operator::And, condition)),
            });
        }
        let draft = Draft {
            spec,
            shape: &shape,
            filter,
            parent,
            options: self.options,
        };
        let aggregate = !shape.group_by.is_empty()
            || shape
                .items
                .iter()
                .any(|item| aggregates::inside(&item.expr));
        if aggregate {
            let plan = Plan::Aggregate(draft.aggregate(&lower)?);
            Ok(Planned {
                plan,
                relation: None,
            })
        } else {
            let (plan, relation) = draft.row(&mut lower)?;
            Ok(Planned {
                plan: Plan::Row(plan),
                relation: Some(relation),
            })
        }
    }

    /// What a view reads, and the fingerprint of the row view that it goes through.
    fn relation(&mut self, from: &Ident) -> Checked<(Relation, Option<String>)> {
        let name = from.value.to_lowercase();
        if name == RECORDS {
            return Ok((self.records(), None));
        }
        if self.open.contains(&name) {
            let message = if self.open.last() == Some(&name) {
                format!("`{name}` reads itself")
            } else {
                format!("`{name}` is read by a view that it reads")
            };
            return Err(Refusal::new(from.span, message).hint("read `records` in one of them"));
        }
        if !self.views.iter().any(|v| v.name == name) {
            let names = self.views.iter().map(|v| v.name.as_str()).chain([RECORDS]);
            let hint = nearest(&name, names).map_or_else(
                || "a view reads `records` or a row view".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(
                Refusal::new(from.span, format!("there is no relation `{}`", from.value))
                    .hint(hint),
            );
        }
        self.view(&name);
        match self.planned.get(&name) {
            Some(Some(Planned {
                plan,
                relation: Some(relation),
            })) => {
                let relation = Relation {
                    name: relation.name.clone(),
                    columns: relation.columns.clone(),
                    filter: relation.filter.clone(),
                    schema: Arc::clone(&relation.schema),
                };
                Ok((relation, Some(plan.common().fingerprint.clone())))
            }
            Some(Some(_)) => Err(Refusal::new(
                from.span,
                format!("`{name}` is an aggregate view, and views read `records` or a row view"),
            )
            .hint("aggregate `records` here too, with the grouping you need")),
            _ => Err(Refusal::new(
                from.span,
                format!("the view `{name}` that it reads has an error"),
            )
            .hint(format!("mend `{name}` first"))),
        }
    }

    /// `records` as SQL sees it: without the hidden columns.
    fn records(&self) -> Relation {
        let schema = Arc::clone(self.schema.arrow());
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, f)| f.name() != PARTITION && f.name() != OFFSET)
            .filter_map(|(i, f)| {
                let ty = Type::of(f.data_type())?;
                Some((f.name().clone(), Typed::column(f.name(), i, ty)))
            })
            .collect();
        Relation {
            name: RECORDS.into(),
            columns,
            filter: None,
            schema,
        }
    }
}

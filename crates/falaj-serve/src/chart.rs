//! `[[charts]]`: what of which view is drawn, and how.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use falaj_record::{Column, Hint, ViewInfo, ViewKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One chart of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChartConfig {
    /// What stands above it.
    pub title: String,
    /// Name of an aggregate view.
    pub view: String,
    /// `bar` for categories, `line` for windows.
    #[serde(rename = "type")]
    pub kind: ChartType,
    /// Group column: one bar each, or the time of a line.
    pub x: String,
    /// Numeric column.
    pub y: String,
    /// Draws only the largest so many bars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<NonZeroU32>,
    /// A sentence under the title, say that the people are made up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChartType {
    /// Horizontal bars, largest first.
    Bar,
    /// A line over time or numbers.
    Line,
}

/// Why a chart cannot be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChartError {
    /// No such view.
    #[error("chart `{chart}` draws the view `{view}`, which does not exist")]
    UnknownView {
        /// Title of the chart.
        chart: String,
        /// As written.
        view: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// Row views hold one row a person.
    #[error("chart `{chart}` draws `{view}`, which holds one row a person and is never published")]
    RowView {
        /// Title of the chart.
        chart: String,
        /// The view.
        view: String,
    },
    /// No such column.
    #[error("view `{view}` has no column `{column}`, which chart `{chart}` uses as `{key}`")]
    UnknownColumn {
        /// Title of the chart.
        chart: String,
        /// The view.
        view: String,
        /// `x` or `y`.
        key: &'static str,
        /// As written.
        column: String,
        /// What may have been meant.
        meant: Option<String>,
        /// The view's columns.
        columns: Vec<String>,
    },
    /// `y` cannot be measured.
    #[error("chart `{chart}` measures `{column}`, which is a {type_name} and not a number")]
    NotNumeric {
        /// Title of the chart.
        chart: String,
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
    },
    /// `x` has no order along an axis.
    #[error("chart `{chart}` is a line over `{column}`, which is a {type_name}")]
    NotOrdered {
        /// Title of the chart.
        chart: String,
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
    },
    /// Several rows would share one place on the chart.
    #[error("chart `{chart}`: `{column}` alone does not name a row of `{view}`")]
    Ambiguous {
        /// Title of the chart.
        chart: String,
        /// The view.
        view: String,
        /// The `x` column.
        column: String,
        /// The view's group columns.
        groups: Vec<String>,
    },
    /// A line has no largest bars.
    #[error("chart `{chart}` is a line, and `top` counts bars")]
    TopOfLine {
        /// Title of the chart.
        chart: String,
    },
}

impl ChartError {
    /// The key of `[[charts]]` that is wrong, to point at its line.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::UnknownView { .. } | Self::RowView { .. } => "view",
            Self::UnknownColumn { key, .. } => key,
            Self::NotNumeric { .. } => "y",
            Self::NotOrdered { .. } | Self::Ambiguous { .. } => "x",
            Self::TopOfLine { .. } => "top",
        }
    }
}

impl Hint for ChartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownView { meant, .. } => {
                meant.as_ref().map(|m| format!("did you mean `{m}`?"))
            }
            Self::UnknownColumn { meant, columns, .. } => Some(match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("its columns are {}", list(columns)),
            }),
            Self::RowView { .. } => Some("draw a view that counts: one with GROUP BY".into()),
            Self::NotNumeric { .. } => Some("take a count, a sum or an average as `y`".into()),
            Self::NotOrdered { .. } => Some("draw it with `type = \"bar\"`".into()),
            Self::Ambiguous { groups, column, .. } => Some(format!(
                "it has a row for each {}: draw a view that is grouped by `{column}` only",
                list(groups)
            )),
            Self::TopOfLine { .. } => Some("leave `top` out".into()),
        }
    }
}

impl ChartConfig {
    /// All that keeps this chart from being drawn; empty when it can be.
    #[must_use]
    pub fn check<V: Borrow<ViewInfo>>(&self, views: &[V]) -> Vec<ChartError> {
        let chart = self.title.clone();
        let Some(view) = views
            .iter()
            .map(Borrow::borrow)
            .find(|v| v.name == self.view)
        else {
            let names = views.iter().map(|v| v.borrow().name.as_str());
            let meant = nearest(&self.view, names);
            return vec![ChartError::UnknownView {
                chart,
                view: self.view.clone(),
                meant,
            }];
        };
        if view.kind == ViewKind::Row {
            return vec![ChartError::RowView {
                chart,
                view: self.view.clone(),
            }];
        }
        let mut errors = Vec::new();
        match column(view, &self.x) {
            None => errors.push(self.unknown_column(view, "x", &self.x)),
            Some((index, x)) => {
                if !names_a_row(view, index) {
                    errors.push(ChartError::Ambiguous {
                        chart: chart.clone(),
                        view: view.name.clone(),
                        column: x.name.clone(),
                        groups: group_names(view),
                    });
                }
                if self.kind == ChartType::Line && !is_ordered(x) {
                    errors.push(ChartError::NotOrdered {
                        chart: chart.clone(),
                        column: x.name.clone(),
                        type_name: x.type_name(),
                    });
                }
            }
        }
        match column(view, &self.y) {
            None => errors.push(self.unknown_column(view, "y", &self.y)),
            Some((_, y)) if !is_numeric(y) => errors.push(ChartError::NotNumeric {
                chart: chart.clone(),
                column: y.name.clone(),
                type_name: y.type_name(),
            }),
            Some(_) => {}
        }
        if self.kind == ChartType::Line && self.top.is_some() {
            errors.push(ChartError::TopOfLine { chart });
        }
        errors
    }

    fn unknown_column(&self, view: &ViewInfo, key: &'static str, name: &str) -> ChartError {
        let columns: Vec<String> = view.columns.iter().map(|c| c.name.clone()).collect();
        ChartError::UnknownColumn {
            chart: self.title.clone(),
            view: view.name.clone(),
            key,
            column: name.to_owned(),
            meant: nearest(name, columns.iter().map(String::as_str)),
            columns,
        }
    }
}

fn column<'a>(view: &'a ViewInfo, name: &str) -> Option<(usize, &'a Column)> {
    view.columns
        .iter()
        .enumerate()
        .find(|(_, c)| c.name == name)
}

fn group_names(view: &ViewInfo) -> Vec<String> {
    view.columns
        .iter()
        .filter(|c| c.key)
        .map(|c| c.name.clone())
        .collect()
}

/// Whether no two rows share a value of this column: it is the only group column, but for the other
/// end of the same window.
fn names_a_row(view: &ViewInfo, index: usize) -> bool {
    let ends = view.window.map_or([None, None], |w| [w.start, w.end]);
    let in_window = ends.contains(&Some(index));
    view.columns[index].key
        && view
            .columns
            .iter()
            .enumerate()
            .all(|(i, c)| i == index || !c.key || (in_window && ends.contains(&Some(i))))
}

fn is_numeric(column: &Column) -> bool {
    let name = column.type_name();
    matches!(name.as_str(), "bigint" | "double") || name.starts_with("decimal")
}

fn is_ordered(column: &Column) -> bool {
    is_numeric(column) || matches!(column.type_name().as_str(), "timestamp" | "date")
}

/// The nearest of `names`, where one is near enough to have been meant.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|n| (strsim::damerau_levenshtein(name, n), n))
        .filter(|(distance, n)| *distance <= 1 + n.len() / 4)
        .min()
        .map(|(_, n)| n.to_owned())
}

fn list(names: &[String]) -> String {
    names
        .iter()
        .map(|n| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};
    use falaj_record::Window;

    use super::*;

    fn view(name: &str, kind: ViewKind, columns: &[(&str, DataType, bool)]) -> ViewInfo {
        ViewInfo {
            name: name.into(),
            kind,
            columns: columns
                .iter()
                .map(|(name, data_type, key)| Column {
                    name: (*name).into(),
                    data_type: data_type.clone(),
                    key: *key,
                    nullable: true,
                })
                .collect(),
            window: None,
            fields: Vec::new(),
            sql: String::new(),
        }
    }

    fn views() -> Vec<ViewInfo> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let mut windows = view(
            "average_age",
            ViewKind::Aggregate,
            &[
                ("minute", time.clone(), true),
                ("until", time, true),
                ("average_age", DataType::Float64, false),
            ],
        );
        windows.window = Some(Window {
            size_us: 60,
            slide_us: 60,
            start: Some(0),
            end: Some(1),
        });
        vec![
            windows,
            view(
                "by_nat",
                ViewKind::Aggregate,
                &[
                    ("nat", DataType::Utf8, true),
                    ("users", DataType::Int64, false),
                ],
            ),
            view(
                "by_nat_and_gender",
                ViewKind::Aggregate,
                &[
                    ("nat", DataType::Utf8, true),
                    ("gender", DataType::Utf8, true),
                    ("users", DataType::Int64, false),
                ],
            ),
            view("people", ViewKind::Row, &[("pid", DataType::Utf8, true)]),
        ]
    }

    #[test]
    fn a_chart_is_checked_against_the_view_it_draws() {
        let table: [(&str, &[(&str, &str)]); 9] = [
            ("view='by_nat' type='bar' x='nat' y='users' top=3", &[]),
            (
                "view='average_age' type='line' x='minute' y='average_age'",
                &[],
            ),
            (
                "view='by_nta' type='bar' x='nat' y='users'",
                &[("view", "did you mean `by_nat`?")],
            ),
            (
                "view='people' type='bar' x='pid' y='pid'",
                &[("view", "draw a view that counts: one with GROUP BY")],
            ),
            (
                "view='by_nat' type='bar' x='nta' y='total'",
                &[
                    ("x", "did you mean `nat`?"),
                    ("y", "its columns are `nat`, `users`"),
                ],
            ),
            (
                "view='by_nat' type='bar' x='nat' y='nat'",
                &[("y", "take a count, a sum or an average as `y`")],
            ),
            (
                "view='by_nat' type='line' x='nat' y='users' top=1",
                &[
                    ("x", "draw it with `type = \"bar\"`"),
                    ("top", "leave `top` out"),
                ],
            ),
            (
                "view='by_nat_and_gender' type='bar' x='nat' y='users'",
                &[(
                    "x",
                    "it has a row for each `nat`, `gender`: draw a view that is grouped by `nat` only",
                )],
            ),
            (
                "view='average_age' type='bar' x='until' y='average_age'",
                &[],
            ),
        ];
        for (keys, expected) in table {
            let text = format!("title='T'\n{}", keys.replace("' ", "'\n"));
            let chart: ChartConfig = toml::from_str(&text).expect("the table holds valid charts");
            let errors = chart.check(&views());
            let found: Vec<_> = errors
                .iter()
                .map(|e| (e.key(), e.hint().unwrap_or_default()))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(k, h)| (*k, (*h).to_owned()))
                .collect();
            assert_eq!(found, expected, "{keys}");
        }
    }

    #[test]
    fn unknown_keys_and_a_top_of_nothing_are_refused() {
        for extra in ["colour='red'", "top=0", "top=-1", "type='pie'"] {
            let text = format!("title='T'\nview='v'\ntype='bar'\nx='a'\ny='b'\n{extra}");
            assert!(toml::from_str::<ChartConfig>(&text).is_err(), "{extra}");
        }
    }
}

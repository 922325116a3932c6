//! What the scenarios took, as a table in Markdown.

use std::fmt::Write as _;

use crate::measure::Cost;
use crate::scenarios::Scenario;

/// A scenario and what each of its rounds took.
pub struct Row {
    pub scenario: Scenario,
    pub costs: Vec<Cost>,
    /// CPU seconds of the broker in each round, where there is one.
    pub broker_s: Vec<f64>,
}

impl Row {
    pub fn new(scenario: Scenario) -> Self {
        Self {
            scenario,
            costs: Vec::new(),
            broker_s: Vec::new(),
        }
    }
}

/// The table, with the ratio of each row to each of `floors`.
pub fn table(rows: &[Row], records: u64, bytes: u64, floors: &[Scenario]) -> String {
    let millions = count(records) / 1e6;
    let each = |row: &Row| -> Vec<f64> { row.costs.iter().map(|c| c.cpu_s / millions).collect() };
    let of = |wanted| {
        let row = rows.iter().find(|row| row.scenario == wanted);
        row.map_or(f64::NAN, |row| median(&each(row)))
    };
    let (rounds, brokers) = rows.first().map_or((0, false), |row| {
        (row.costs.len(), !row.broker_s.is_empty())
    });
    let mut text = format!(
        "{records} records of {} bytes on average, median of {rounds} rounds.\n\n",
        bytes / records
    );
    let mut columns = vec![
        "scenario".to_owned(),
        "records/s".to_owned(),
        "CPU s per million".to_owned(),
        "lowest, highest".to_owned(),
        "peak MB".to_owned(),
    ];
    if brokers {
        columns.push("broker's CPU s per million".to_owned());
    }
    columns.extend(floors.iter().map(|f| format!("CPU to `{}`", f.name())));
    line(&mut text, &columns);
    let _ = writeln!(text, "|---|{}", "--:|".repeat(columns.len() - 1));
    for row in rows {
        let cpu = each(row);
        let walls: Vec<f64> = row
            .costs
            .iter()
            .map(|c| count(records) / c.wall_s)
            .collect();
        let peaks: Vec<f64> = row.costs.iter().map(|c| c.peak_mb).collect();
        let mut cells = vec![
            format!("`{}`", row.scenario.name()),
            format!("{:.0}", median(&walls)),
            format!("{:.2}", median(&cpu)),
            format!("{:.2}, {:.2}", lowest(&cpu), highest(&cpu)),
            format!("{:.0}", median(&peaks)),
        ];
        if brokers {
            cells.push(format!("{:.2}", median(&row.broker_s) / millions));
        }
        let ratios = floors.iter().map(|f| median(&cpu) / of(*f));
        cells.extend(ratios.map(|ratio| format!("{ratio:.2}")));
        line(&mut text, &cells);
    }
    if !brokers {
        let both = of(Scenario::FloorParse) + of(Scenario::FloorRead);
        let _ = writeln!(
            text,
            "\n`topic-views` is {:.2} times `floor-parse` + `floor-read` ({both:.2} CPU s per million).",
            of(Scenario::TopicViews) / both
        );
    }
    text
}

/// A line of a table.
pub fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

pub fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

pub fn lowest(all: &[f64]) -> f64 {
    all.iter().copied().fold(f64::INFINITY, f64::min)
}

pub fn highest(all: &[f64]) -> f64 {
    all.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "there are fewer than 2^52 of anything here"
)]
pub fn count(count: u64) -> f64 {
    count as f64
}

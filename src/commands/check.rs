//! `falaj check`: what a pipeline file means, or what is wrong with it.

use serde_json::json;

use crate::cli;
use crate::data_dir::DataDir;
use crate::doctor::{self, Finding};
use crate::failure::Failure;
use crate::panel::panel;
use crate::plan::{self, Plan};
use crate::stdio;

/// Checks the file and prints the plan.
///
/// # Errors
/// Code 2 with everything that is wrong with the file, each with line and column; code 1 with
/// everything that cannot be connected to or would keep a run from working.
pub async fn check(args: &cli::Check) -> Result<(), Failure> {
    if let Some(code) = args.explain {
        stdio::data(code.explain());
        return Ok(());
    }
    let plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
    for warning in &plan.warnings {
        stdio::warn(warning);
    }
    if !args.json {
        for line in lines(&plan) {
            stdio::data(&line);
        }
    }
    let found = if args.connect {
        Some(connect(&plan, args).await?)
    } else {
        None
    };
    if args.json {
        let mut json = as_json(&plan);
        if let Some(found) = &found {
            json["connect"] = found.iter().map(Finding::as_json).collect();
        }
        stdio::data(&json.to_string());
    }
    let errors = found.into_iter().flatten().flat_map(|found| found.errors);
    Failure::all(errors.collect())
}

/// Connects to what the plan names, and says what it finds.
async fn connect(plan: &Plan, args: &cli::Check) -> Result<Vec<Finding>, Failure> {
    let given = args.pipeline.data_dir.as_deref();
    let dir = DataDir::locate(given, &plan.config.pipeline.name)?;
    let found = doctor::look(plan, &dir).await;
    for finding in &found {
        if !args.json {
            stdio::data(&finding.line());
        }
        for warning in &finding.warnings {
            stdio::warn(warning);
        }
    }
    Ok(found)
}

fn as_json(plan: &Plan) -> serde_json::Value {
    let views: Vec<_> = plan
        .views
        .info()
        .iter()
        .map(|view| {
            let columns: Vec<_> = view
                .columns
                .iter()
                .map(|c| json!({ "name": c.name, "type": c.type_name(), "key": c.key }))
                .collect();
            json!({ "view": view.name, "kind": view.kind, "columns": columns })
        })
        .collect();
    json!({
        "pipeline": plan.config.pipeline.name,
        "source": plan.config.source.kind(),
        "topic": plan.config.topic.name,
        "privacy": panel(plan),
        "views": views,
        "sinks": plan.config.sinks.iter().map(|(n, s)| json!({ "sink": n, "type": s.kind() })).collect::<Vec<_>>(),
    })
}

fn lines(plan: &Plan) -> Vec<String> {
    let config = &plan.config;
    let mut lines = vec![format!("pipeline {}", config.pipeline.name)];
    lines.push(format!("  source  {}", config.source.kind()));
    lines.push(format!(
        "  topic   {} on {}, {} partitions, kept {}",
        config.topic.name, config.topic.brokers, config.topic.partitions, config.topic.retention
    ));
    let panel = panel(plan);
    if let Some(subject) = &panel.subject {
        lines.push(format!(
            "  subject {} becomes a pid; it is never stored",
            subject.from
        ));
    }
    for field in &panel.fields {
        lines.push(format!(
            "  field   {} <- {} ({}, {}, for {})",
            field.name, field.from, field.class, field.treatment, field.purpose
        ));
    }
    lines.push(format!("  never   {}", panel.never.join(", ")));
    lines.push(format!(
        "  publish groups of at least {} people, changes of at least {}",
        panel.k, panel.delta_k
    ));
    for view in plan.views.info() {
        let columns: Vec<String> = view
            .columns
            .iter()
            .map(|c| format!("{} {}", c.name, c.type_name()))
            .collect();
        let published = match view.kind {
            falaj_record::ViewKind::Aggregate => "published",
            falaj_record::ViewKind::Row => "never published",
        };
        lines.push(format!(
            "  view    {} ({}), {published}",
            view.name,
            columns.join(", ")
        ));
    }
    for (name, sink) in &config.sinks {
        lines.push(format!("  sink    {name} ({})", sink.kind()));
    }
    for chart in &config.charts {
        lines.push(format!("  chart   {}", chart.title));
    }
    lines.push("ok".to_owned());
    lines
}

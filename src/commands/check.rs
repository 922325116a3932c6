//! `falaj check`: what a pipeline file means, or what is wrong with it.

use falaj_topic::{Drift, TopicError};
use serde_json::json;

use crate::cli;
use crate::failure::{Failure, Fault};
use crate::panel::panel;
use crate::plan::{self, Plan};
use crate::stdio;

/// Checks the file and prints the plan.
///
/// # Errors
/// Everything that is wrong, with file, line and column.
pub async fn check(args: &cli::Check) -> Result<(), Failure> {
    if let Some(code) = args.explain {
        stdio::data(code.explain());
        return Ok(());
    }
    let plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
    for warning in &plan.warnings {
        stdio::warn(warning);
    }
    if args.json {
        stdio::data(&as_json(&plan).to_string());
    } else {
        for line in lines(&plan) {
            stdio::data(&line);
        }
    }
    if args.connect {
        connect(&plan, args.json).await?;
    }
    Ok(())
}

/// Connects to what the plan names, and says what it finds. Nothing is made and nothing is changed.
async fn connect(plan: &Plan, json: bool) -> Result<(), Failure> {
    let config = &plan.config.topic;
    let say = |text: String| {
        if json {
            stdio::say(&text);
        } else {
            stdio::data(&text);
        }
    };
    if config.embedded() {
        say("connect   the topic is embedded: there is no broker to connect to".into());
        return Ok(());
    }
    let nowhere = std::path::Path::new("");
    let broker = falaj_topic::connect(config, nowhere, &plan.folder)
        .await
        .map_err(|e| Failure::stage(&e))?;
    match broker.describe(&config.name).await {
        Err(TopicError::Missing { topic }) => say(format!(
            "connect   {}: topic `{topic}` is not there yet; `falaj run` makes it",
            config.brokers
        )),
        Ok(found) => say(format!(
            "connect   {}: topic `{}` is there, {} partitions, {} records",
            config.brokers,
            found.name,
            found.partitions.len(),
            found
                .partitions
                .iter()
                .map(|p| p.end - p.start)
                .sum::<i64>(),
        )),
        Err(e) => return Err(Failure::stage(&e)),
    }
    let drifts = broker.drift(config).await.map_err(|e| Failure::stage(&e))?;
    for drift in &drifts {
        stdio::warn(&told(drift, &config.name));
    }
    Ok(())
}

/// What is wrong with the pipeline's topic, or with one beside it.
fn told(drift: &Drift, own: &str) -> Fault {
    let Drift {
        topic,
        key,
        file,
        cluster,
    } = drift;
    let fault = if topic == own {
        format!("`topic.{key}` is {file} in the file and {cluster} on the cluster")
    } else {
        format!(
            "`{key}` of topic `{topic}` is {cluster} on the cluster, and falaj makes it with {file}"
        )
    };
    Fault::new(fault)
        .hint("falaj never changes a topic of a cluster: change the one or the other by hand")
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

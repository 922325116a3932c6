//! `falaj topic`: topics of a broker, a cluster's or the embedded one's through its listener.

use std::sync::Arc;

use falaj_record::Secret;
use falaj_topic::{Broker, ClientOption, TopicConfig, TopicDescription};
use serde_json::json;

use crate::cli::{Brokers, Topic};
use crate::failure::{Failure, Fault};
use crate::stdio;

/// Carries out one of the commands.
///
/// # Errors
/// Where the broker cannot be reached or refuses; each says why.
pub async fn topic(command: Topic) -> Result<(), Failure> {
    match command {
        Topic::Create(args) => {
            let config = TopicConfig {
                name: args.topic,
                partitions: args.partitions,
                retention: args.retention,
                ..of(&args.brokers)
            };
            let broker = connect(&config).await?;
            let made = broker.create(&config).await;
            let made = made.map_err(|e| Failure::stage(&e))?;
            let count = made.partitions.len();
            stdio::say(&format!(
                "made topic `{}` with {count} partitions",
                made.name
            ));
        }
        Topic::List(args) => {
            let names = connect(&of(&args)).await?.list().await;
            for name in names.map_err(|e| Failure::stage(&e))? {
                stdio::data(&name);
            }
        }
        Topic::Describe(args) => {
            let found = connect(&of(&args.brokers))
                .await?
                .describe(&args.topic)
                .await;
            let found = found.map_err(|e| Failure::stage(&e))?;
            if args.json {
                stdio::data(&as_json(&found).to_string());
            } else {
                for line in lines(&found) {
                    stdio::data(&line);
                }
            }
        }
        Topic::Delete(args) => {
            let deleted = connect(&of(&args.brokers)).await?.delete(&args.topic).await;
            deleted.map_err(|e| Failure::stage(&e))?;
            stdio::say(&format!("deleted topic `{}` and its rejects", args.topic));
        }
    }
    Ok(())
}

fn of(brokers: &Brokers) -> TopicConfig {
    TopicConfig {
        brokers: brokers.brokers.clone(),
        options: brokers.option.iter().map(option).collect(),
        ..TopicConfig::default()
    }
}

/// `env:NAME` and `file:PATH` say where a secret is; all else is the value itself.
fn option((key, value): &(String, String)) -> (String, ClientOption) {
    let value = match value.split_once(':') {
        Some(("env", name)) => ClientOption::Secret(Secret::Env(name.to_owned())),
        Some(("file", path)) => ClientOption::Secret(Secret::File(path.into())),
        _ => ClientOption::Text(value.clone()),
    };
    (key.clone(), value)
}

async fn connect(config: &TopicConfig) -> Result<Arc<dyn Broker>, Failure> {
    if config.embedded() {
        return Err(Failure::usage(
            Fault::new("`--brokers embedded`: the embedded log belongs to the falaj that runs")
                .hint("open it with `[topic] listen` or `falaj broker`, and name that address"),
        ));
    }
    let nowhere = std::path::Path::new("");
    let broker = falaj_topic::connect(config, nowhere, nowhere).await;
    broker.map_err(|e| Failure::stage(&e))
}

fn retention(found: &TopicDescription) -> String {
    found.retention.map_or_else(
        || "without end".to_owned(),
        |time| falaj_record::Period(time).to_string(),
    )
}

fn lines(found: &TopicDescription) -> Vec<String> {
    let mut lines = vec![
        format!("topic      {}", found.name),
        format!("id         {}", found.id),
        format!("retention  {}", retention(found)),
    ];
    if let Some(bytes) = found.bytes {
        lines.push(format!("size       {}", falaj_record::ByteSize(bytes)));
    }
    lines.push(format!(
        "{:>9}  {:>12}  {:>12}  {:>12}",
        "partition", "start", "end", "records"
    ));
    lines.extend(found.partitions.iter().map(|p| {
        format!(
            "{:>9}  {:>12}  {:>12}  {:>12}",
            p.partition,
            p.start,
            p.end,
            p.end - p.start
        )
    }));
    lines
}

fn as_json(found: &TopicDescription) -> serde_json::Value {
    let partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|p| json!({ "partition": p.partition, "start": p.start, "end": p.end }))
        .collect();
    json!({
        "topic": found.name,
        "id": found.id,
        "retention": retention(found),
        "bytes": found.bytes,
        "partitions": partitions,
    })
}

//! `falaj tap`: cleared records, or a view's rows, as they pass.
//!
//! Always: reads beside a running falaj without disturbing it; what is shown passed the gate.
//! From the topic's start; while the pipeline runs it goes on, else it ends where the topic ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use falaj_privacy::{Decoder, Key, Keys};
use falaj_record::{Batch, EVENT_TIME, Fetched, Message, OFFSET, PARTITION, Value, rfc3339};
use falaj_views::Views;
use serde_json::{Map, Value as Json};

use crate::cli;
use crate::clock::{now_ms, now_us};
use crate::commands::run::stop_on_signal;
use crate::data_dir::{DataDir, Policies};
use crate::document::nearest;
use crate::failure::{Failure, Fault};
use crate::plan;
use crate::reader::Reader;
use crate::state::State;
use crate::stdio;

/// How often the topic is looked at again while the pipeline runs.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows what passes until the topic ends, `--limit` is reached, or somebody stops it.
///
/// # Errors
/// Where the pipeline file is wrong, there is no such view, or the topic cannot be read.
pub async fn tap(args: cli::Tap) -> Result<(), Failure> {
    let plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
    let name = &plan.config.pipeline.name;
    let dir = DataDir::locate(args.pipeline.data_dir.as_deref(), name)?;
    if args.at != "topic" && !plan.config.views.contains_key(&args.at) {
        let known: Vec<String> = plan.config.views.keys().cloned().collect();
        let fault = Fault::new(format!("`--at {}`: there is no such view", args.at));
        return Err(Failure::usage(match nearest(&args.at, &known) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint(format!("`topic`, or one of: {}", known.join(", "))),
        }));
    }
    let Some(mut topic) = Reader::open(&plan, &dir, &plan.config.topic.name).await? else {
        stdio::say("the pipeline has no topic yet: nothing has been published");
        return Ok(());
    };
    let key = dir.existing_key(plan.config.privacy.key.as_ref(), &plan.folder)?;
    let key = key.ok_or_else(|| {
        Failure::run(
            Fault::new("the data directory has a topic, but no key to check its records with")
                .hint("restore `keys/master`, or `falaj reset`"),
        )
    })?;
    let earlier = Policies::open(&State::of(&plan, &dir)?)?.earlier(plan.policy.declarations());
    let decoder = Decoder::new(
        Arc::clone(&plan.policy),
        &Keys::new(&Key::new(key)),
        &earlier,
    );
    let view = (args.at != "topic").then_some(args.at);
    let mut tap = Tap {
        decoder,
        views: plan.views,
        view,
        json: args.json,
        left: args.limit,
    };
    let stop = stop_on_signal()?;
    while tap.left != Some(0) && !stop.is_cancelled() {
        let running = dir.is_locked();
        let fetched = topic.read().await?;
        if !fetched.is_empty() {
            tap.show(&fetched)?;
        } else if running {
            let _ = stop
                .run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
                .await;
        } else {
            break;
        }
    }
    Ok(())
}

/// What is shown, and how.
struct Tap {
    decoder: Decoder,
    views: Views,
    /// A view's name; none for the topic.
    view: Option<String>,
    json: bool,
    left: Option<u64>,
}

impl Tap {
    fn show(&mut self, fetched: &[Fetched]) -> Result<(), Failure> {
        let decoded = self.decoder.decode(fetched, now_ms());
        let Some(view) = &self.view else {
            self.records(fetched, decoded.batch.get());
            return Ok(());
        };
        self.views
            .push(&decoded.batch)
            .map_err(|e| Failure::stage(&e))?;
        let updates = self.views.drain(now_us()).map_err(|e| Failure::stage(&e))?;
        for update in updates.iter().filter(|update| update.view.name == *view) {
            for row in 0..update.rows.num_rows() {
                let names = update.view.columns.iter().map(|c| c.name.as_str());
                let values = update.rows.columns().iter().map(|c| Value::at(c, row));
                let line: Map<_, _> = names
                    .zip(values)
                    .map(|(n, v)| (n.to_owned(), v.json()))
                    .collect();
                if !line_out(&mut self.left, self.json, "", line) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Only what the decoder let pass is shown; `src` tells repeats.
    fn records(&mut self, fetched: &[Fetched], batch: &Batch) {
        let sources: BTreeMap<(i32, i64), &Message> = fetched
            .iter()
            .flat_map(|part| {
                part.messages
                    .iter()
                    .map(|m| ((part.partition, m.offset), m))
            })
            .collect();
        let columns = batch.0.columns();
        let schema = batch.0.schema();
        let name = |i: usize| schema.field(i).name().as_str();
        for row in 0..batch.len() {
            let (mut place, mut value, mut time) = ((0, 0), Map::new(), None);
            for (i, column) in columns.iter().enumerate() {
                match (name(i), Value::at(column, row)) {
                    (PARTITION, Value::Int(p)) => place.0 = i32::try_from(p).unwrap_or(-1),
                    (OFFSET, Value::Int(o)) => place.1 = o,
                    (EVENT_TIME, Value::Timestamp(us)) => time = Some(us),
                    (field, v) => {
                        value.insert(field.to_owned(), v.json());
                    }
                }
            }
            let text = |part: Option<&Bytes>| {
                part.map_or(Json::Null, |b| {
                    String::from_utf8_lossy(b).into_owned().into()
                })
            };
            let message = sources.get(&place);
            let timestamp = time.map(rfc3339).unwrap_or_default();
            let head = format!("{timestamp} {}/{}", place.0, place.1);
            let line = if self.json {
                Map::from_iter([
                    ("partition".to_owned(), place.0.into()),
                    ("offset".to_owned(), place.1.into()),
                    ("timestamp".to_owned(), timestamp.into()),
                    ("key".to_owned(), text(message.and_then(|m| m.key.as_ref()))),
                    ("src".to_owned(), text(message.and_then(|m| m.src.as_ref()))),
                    ("value".to_owned(), Json::Object(value)),
                ])
            } else {
                value
            };
            if !line_out(&mut self.left, self.json, &head, line) {
                return;
            }
        }
    }
}

/// Prints a line unless the limit is reached.
fn line_out(left: &mut Option<u64>, json: bool, head: &str, line: Map<String, Json>) -> bool {
    match left {
        Some(0) => return false,
        Some(left) => *left -= 1,
        None => {}
    }
    if json {
        stdio::data(&Json::Object(line).to_string());
    } else {
        let fields: Vec<String> = line.iter().map(|(name, v)| format!("{name}={v}")).collect();
        stdio::data(format!("{head}  {}", fields.join("  ")).trim_start());
    }
    true
}

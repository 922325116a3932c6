//! `falaj rejects list`: what could not be used. Never a value.
//! `falaj rejects replay`: the same records once more, through the gate of today's file.

use std::fmt::Write as _;

use falaj_record::{At, Reject, rfc3339};
use falaj_source::SourceConfig;
use falaj_topic::rejects_topic;

use crate::cli;
use crate::commands::run::stop_on_signal;
use crate::data_dir::DataDir;
use crate::failure::{Failure, Fault};
use crate::plan;
use crate::reader::Reader;
use crate::replay::{self, Replayed, Tally};
use crate::stdio;

/// Lists the rejects of a pipeline, oldest first.
///
/// # Errors
/// Where the pipeline file is wrong, or its rejects cannot be read.
pub async fn list(args: &cli::RejectsList) -> Result<(), Failure> {
    let plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
    let dir = DataDir::locate(
        args.pipeline.data_dir.as_deref(),
        &plan.config.pipeline.name,
    )?;
    let name = rejects_topic(&plan.config.topic.name);
    let Some(mut topic) = Reader::open(&plan, &dir, &name).await? else {
        return Ok(());
    };
    loop {
        let fetched = topic.read().await?;
        if fetched.is_empty() {
            return Ok(());
        }
        for value in fetched
            .iter()
            .flat_map(|part| &part.messages)
            .filter_map(|m| m.value.as_ref())
        {
            // Others may write to the topic: what is no reject is not listed.
            let Ok(reject) = serde_json::from_slice::<Reject>(value) else {
                continue;
            };
            if args.json {
                stdio::data(&serde_json::to_string(&reject).expect("a reject is plain data"));
            } else {
                stdio::data(&line(&reject));
            }
        }
    }
}

/// Reads the rejects of a pipeline again and says what became of them.
///
/// # Errors
/// Code 2 where its source gives a record only once, 1 where the pipeline runs or the replay fails.
pub async fn replay(args: &cli::RejectsReplay) -> Result<(), Failure> {
    let plan = plan::load(&args.pipeline.file, &args.pipeline.set)?;
    gives_again(&plan.config.source)?;
    let dir = DataDir::locate(
        args.pipeline.data_dir.as_deref(),
        &plan.config.pipeline.name,
    )?;
    let Replayed { tally, changed } =
        replay::replay(&plan, &dir, args.again, &stop_on_signal()?).await?;
    if args.json {
        stdio::data(&serde_json::to_string(&tally).expect("counts are plain data"));
    } else {
        stdio::data(&sentence(&tally));
    }
    if tally.not_counted_yet > 0 {
        stdio::say(
            "hint: the last run was ended before it counted some rejects; run the pipeline and replay again",
        );
    }
    if tally.unchanged > 0 {
        stdio::say(
            "hint: nothing that decides about a record changed since some were rejected again; `--again` reads them nevertheless",
        );
    }
    if tally.replayed > 0 {
        stdio::say(if changed {
            "hint: the declared fields changed since the last run: `falaj run --rebuild '*'` brings the views up to date"
        } else {
            "hint: `falaj run` brings the views up to date"
        });
    }
    Ok(())
}

/// Whether a record of the source can be read again.
fn gives_again(source: &SourceConfig) -> Result<(), Failure> {
    if source.gives_again() {
        return Ok(());
    }
    let (what, hint) = match source {
        SourceConfig::Http(_) => (
            "an HTTP API gives a record once",
            "run the pipeline: what the API gives from now on passes the mended gate",
        ),
        SourceConfig::Ingest(_) => (
            "a request gives a record once",
            "have the rejected records sent again, under another `Idempotency-Key`",
        ),
        SourceConfig::File(_) | SourceConfig::Kafka(_) => (
            "standard input gives a record once",
            "keep the records in a file, and name it as `source.file.path`",
        ),
    };
    Err(Failure::usage(
        Fault::new(format!(
            "rejects of `[source.{}]` cannot be read again: {what}",
            source.kind()
        ))
        .hint(hint),
    ))
}

fn sentence(tally: &Tally) -> String {
    let mut said = format!(
        "replayed {}, rejected again {}, not there any more {}, not replayable {}",
        tally.replayed, tally.rejected_again, tally.gone, tally.not_replayable
    );
    for (what, count) in [
        ("withheld", tally.withheld),
        ("unchanged since an earlier replay", tally.unchanged),
        ("not counted by a checkpoint yet", tally.not_counted_yet),
    ] {
        if count > 0 {
            let _ = write!(said, ", {what} {count}");
        }
    }
    said
}

fn line(reject: &Reject) -> String {
    let at = match &reject.at {
        At::Source { source, position } => format!("{source} record {position}"),
        At::Topic { partition, offset } => format!("topic {partition}/{offset}"),
        At::Sink { sink, view, number } => format!("sink {sink} view {view} row {number}"),
    };
    let path = reject
        .path
        .as_ref()
        .map_or(String::new(), |p| format!(" at `{p}`"));
    let time = rfc3339(reject.time_ms * 1000);
    format!(
        "{time}  {at}  {}{path}, {} bytes",
        reject.reason, reject.length
    )
}

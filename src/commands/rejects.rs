//! `falaj rejects list`: what could not be used. Never a value.

use falaj_record::{At, Reject, rfc3339};
use falaj_topic::rejects_topic;

use crate::cli;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::plan;
use crate::reader::Reader;
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

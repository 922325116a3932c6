//! `/metrics`: the status and the hub's own counts in Prometheus' text format (0.0.4).
//!
//! Always: names start with `falaj_`, units are base units, counters end in `_total`, every family
//! has one HELP and one TYPE line. Labels are names of the pipeline file, reasons and numbers.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::hub::Hub;
use crate::status::{RunState, Status, Working};

/// The text as it grows.
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.family(name, "counter", help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let _ = write!(
                self.0,
                "{}{label}=\"{}\"",
                if i == 0 { "{" } else { "," },
                escape(text)
            );
        }
        let _ = writeln!(
            self.0,
            "{} {value}",
            if labels.is_empty() { "" } else { "}" }
        );
    }

    fn single_gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauge(name, help);
        self.sample(name, &[], value);
    }

    fn single_counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counter(name, help);
        self.sample(name, &[], value);
    }
}

/// A label value: backslash, quote and line feed are escaped.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn up(state: Working) -> u8 {
    u8::from(state == Working::Ok)
}

/// The whole page of metrics.
pub(crate) fn text(hub: &Hub) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    if let Some(status) = hub.status() {
        run(&mut text, &status);
        line(&mut text, &status);
        topic(&mut text, &status);
        sinks(&mut text, &status);
        checkpoint(&mut text, &status);
    }
    views(&mut text, hub);
    serving(&mut text, hub);
    text.0
}

fn run(text: &mut Text, status: &Status) {
    text.gauge("falaj_info", "What runs; always 1.");
    let labels = [
        ("pipeline", status.pipeline.as_str()),
        ("version", status.version.as_str()),
    ];
    text.sample("falaj_info", &labels, 1);
    text.gauge("falaj_state", "1 for the state the pipeline is in.");
    for state in RunState::ALL {
        text.sample(
            "falaj_state",
            &[("state", state.word())],
            u8::from(state == status.state),
        );
    }
    let ready = u8::from(status.unready().is_empty());
    text.single_gauge("falaj_ready", "1 when every stage and sink works.", ready);
    text.single_gauge(
        "falaj_start_time_seconds",
        "When the process started, in seconds since 1970.",
        status.started.seconds(),
    );
    text.single_gauge(
        "falaj_process_resident_memory_bytes",
        "Resident memory of the process.",
        status.process.rss_bytes,
    );
    text.single_counter(
        "falaj_process_cpu_seconds_total",
        "User and system time of the process.",
        status.process.cpu_seconds,
    );
}

fn line(text: &mut Text, status: &Status) {
    text.gauge("falaj_stage_up", "1 while the stage works.");
    for stage in &status.stages {
        text.sample("falaj_stage_up", &[("stage", &stage.name)], up(stage.state));
    }
    text.counter("falaj_stage_records_total", "Records the stage passed on.");
    for stage in &status.stages {
        text.sample(
            "falaj_stage_records_total",
            &[("stage", &stage.name)],
            stage.records_total,
        );
    }
    if let Some(source) = &status.source {
        let labels = [("kind", source.kind.as_str())];
        text.gauge("falaj_source_up", "1 while the source works.");
        text.sample("falaj_source_up", &labels, up(source.state));
        text.counter("falaj_source_records_total", "Records the source gave.");
        text.sample("falaj_source_records_total", &labels, source.records_total);
        text.counter("falaj_source_bytes_total", "Bytes the source gave.");
        text.sample("falaj_source_bytes_total", &labels, source.bytes_total);
    }
    text.counter(
        "falaj_rejected_records_total",
        "Records that could not be used, by reason.",
    );
    for (reason, count) in &status.rejects {
        text.sample("falaj_rejected_records_total", &[("reason", reason)], count);
    }
    text.single_counter(
        "falaj_withheld_records_total",
        "Records that the gate kept out on purpose.",
        status.withheld,
    );
    text.single_counter(
        "falaj_late_records_total",
        "Records that were late for all their windows.",
        status.late,
    );
}

fn topic(text: &mut Text, status: &Status) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(usize) -> String| {
        text.gauge(name, help);
        for (i, partition) in status.positions.iter().enumerate() {
            text.sample(
                name,
                &[("partition", &partition.partition.to_string())],
                value(i),
            );
        }
    };
    let at = &status.positions;
    family(
        "falaj_topic_start_offset",
        "First offset that is still there.",
        &|i| at[i].start.to_string(),
    );
    family(
        "falaj_topic_end_offset",
        "First offset after the last durable message.",
        &|i| at[i].end.to_string(),
    );
    family("falaj_topic_next_offset", "Next offset to apply.", &|i| {
        at[i].next.to_string()
    });
    family(
        "falaj_lag_records",
        "Records that are not applied yet.",
        &|i| at[i].lag.to_string(),
    );
    text.single_gauge(
        "falaj_lag_seconds",
        "Age of the oldest record that is not applied yet.",
        status.lag.seconds,
    );
    if let Some(watermark) = status.watermark {
        text.single_gauge(
            "falaj_watermark_timestamp_seconds",
            "Event time up to which windows are closed, in seconds since 1970.",
            watermark.seconds(),
        );
    }
}

fn sinks(text: &mut Text, status: &Status) {
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(usize) -> u64| {
        text.family(name, kind, help);
        for (i, sink) in status.sinks.iter().enumerate() {
            text.sample(
                name,
                &[("sink", &sink.name), ("kind", &sink.kind)],
                value(i),
            );
        }
    };
    let at = &status.sinks;
    family("falaj_sink_up", "gauge", "1 while the sink works.", &|i| {
        up(at[i].state).into()
    });
    family(
        "falaj_sink_pending_rows",
        "gauge",
        "Rows that wait to be written.",
        &|i| at[i].pending,
    );
    family(
        "falaj_sink_behind",
        "gauge",
        "1 while rows of row views are read again from the topic.",
        &|i| at[i].behind.into(),
    );
    family("falaj_sink_rows_total", "counter", "Rows written.", &|i| {
        at[i].written_total
    });
    family(
        "falaj_sink_refused_rows_total",
        "counter",
        "Rows that the store refused, each for itself.",
        &|i| at[i].refused_total,
    );
}

fn checkpoint(text: &mut Text, status: &Status) {
    let Some(checkpoint) = &status.checkpoint else {
        return;
    };
    text.single_gauge(
        "falaj_checkpoint_timestamp_seconds",
        "When the newest whole checkpoint was written, in seconds since 1970.",
        checkpoint.at.seconds(),
    );
    text.single_gauge(
        "falaj_checkpoint_age_seconds",
        "Seconds since then.",
        checkpoint.age,
    );
    text.single_gauge("falaj_checkpoint_bytes", "Its size.", checkpoint.bytes);
    text.single_gauge(
        "falaj_checkpoint_duration_seconds",
        "How long writing it took.",
        checkpoint.duration_ms / 1e3,
    );
    let ledger = &status.ledger;
    let balanced = u8::from(ledger.imbalance().is_none());
    text.single_gauge(
        "falaj_ledger_balanced",
        "1 when its ledger balances.",
        balanced,
    );
    let (source, topic) = (&ledger.source, &ledger.topic);
    text.counter("falaj_ledger_records_total", "Entries of its ledger.");
    let mut entry = |stage: &str, view: &str, entry: &str, count: u64| {
        let labels = [("stage", stage), ("view", view), ("entry", entry)];
        text.sample("falaj_ledger_records_total", &labels, count);
    };
    entry("source", "", "in", source.r#in);
    entry("source", "", "published", source.published);
    entry("source", "", "rejected", source.rejected);
    entry("source", "", "withheld", source.withheld);
    entry("source", "", "replayed", source.replayed);
    entry("topic", "", "read", topic.read);
    entry("topic", "", "out", topic.out);
    entry("topic", "", "rejected", topic.rejected);
    entry("topic", "", "duplicate", topic.duplicate);
    for (name, view) in &ledger.views {
        entry("views", name, "applied", view.applied);
        entry("views", name, "filtered", view.filtered);
        entry("views", name, "late", view.late);
    }
}

fn views(text: &mut Text, hub: &Hub) {
    let counts = hub.board_counts();
    text.gauge("falaj_view_rows", "Rows that are published.");
    for (view, rows, ..) in &counts {
        text.sample("falaj_view_rows", &[("view", view)], rows);
    }
    text.gauge(
        "falaj_view_suppressed_groups",
        "Groups that are folded or held back.",
    );
    for (view, _, suppressed, _) in &counts {
        text.sample(
            "falaj_view_suppressed_groups",
            &[("view", view)],
            suppressed,
        );
    }
    text.counter(
        "falaj_view_publications_total",
        "Changes that were published.",
    );
    for (view, .., publications) in &counts {
        text.sample(
            "falaj_view_publications_total",
            &[("view", view)],
            publications,
        );
    }
}

fn serving(text: &mut Text, hub: &Hub) {
    let counters = hub.counters();
    text.single_gauge(
        "falaj_sse_clients",
        "Readers of the event stream.",
        counters.clients.load(Relaxed),
    );
    text.counter("falaj_sse_events_total", "Events sent.");
    for (event, count) in [
        ("snapshot", &counters.snapshots),
        ("delta", &counters.deltas),
        ("status", &counters.statuses),
    ] {
        text.sample(
            "falaj_sse_events_total",
            &[("event", event)],
            count.load(Relaxed),
        );
    }
    text.single_counter(
        "falaj_sse_lagged_total",
        "Fresh snapshots for readers that had fallen behind.",
        counters.lagged.load(Relaxed),
    );
    text.single_counter(
        "falaj_sse_refused_total",
        "Readers turned away because there were too many.",
        counters.refused.load(Relaxed),
    );
    text.counter("falaj_http_responses_total", "Answers by status code.");
    for (code, count) in counters.responses.lock().iter() {
        text.sample(
            "falaj_http_responses_total",
            &[("code", &code.to_string())],
            count,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Text(String::new());
        text.sample(
            "falaj_x",
            &[("a", "back\\slash \"quote\"\nline"), ("b", "")],
            1.5,
        );
        assert_eq!(
            text.0,
            "falaj_x{a=\"back\\\\slash \\\"quote\\\"\\nline\",b=\"\"} 1.5\n"
        );
        let mut bare = Text(String::new());
        bare.sample("falaj_y", &[], u64::MAX);
        assert_eq!(bare.0, "falaj_y 18446744073709551615\n");
    }
}

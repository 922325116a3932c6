//! The doctor of `falaj check --connect`: looks at every broker and store that a plan names.
//!
//! Always: nothing is made and nothing is changed, and a falaj that runs meanwhile is not disturbed.
//! Always: everything is looked at and told, however much of it is wrong.
//! Absent on purpose: the source's HTTP server, which counts what it is asked; and a Kafka broker's
//! version and clock, which its protocol tells only to who writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use falaj_record::{Hint, ViewInfo};
use falaj_sinks::{Inspection, Places, SinkConfig, SinkError, is_this_machine};
use falaj_source::SourceConfig;
use falaj_topic::{Broker, ClientOption, Drift, TopicConfig, TopicDescription, TopicError};
use futures::future::{join, join_all};
use serde_json::{Value, json};

use crate::data_dir::DataDir;
use crate::failure::Fault;
use crate::plan::{Plan, raw_topic};

/// The longest that one broker or store is waited for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A store's clock that is farther from this machine's is told: versions of rows are times, and many
/// stores count a row's end by their own clock.
const CLOCK_APART_MAX_MS: u64 = 1_000;

/// What was found at one broker or store.
#[derive(Debug)]
pub struct Finding {
    /// `topic`, `source` or `sink`.
    part: &'static str,
    /// The topic's or the sink's name.
    name: String,
    /// Brokers, or the store.
    place: String,
    /// The server and its version, where it tells them.
    server: Option<String>,
    clock_ahead_ms: Option<i64>,
    /// What there is to know and nothing to do about.
    note: Option<String>,
    /// What should be known before a run.
    pub warnings: Vec<Fault>,
    /// What keeps a run from working.
    pub errors: Vec<Fault>,
}

/// Looks at everything that `plan` names and that is not in this process.
pub async fn look(plan: &Plan, dir: &DataDir) -> Vec<Finding> {
    let brokers = async {
        let mut found = vec![own_topic(plan).await];
        found.extend(raw_records(plan).await);
        found
    };
    let views = plan.views.info();
    let sinks = plan.config.sinks.iter().map(|(name, config)| {
        let taken = views.iter().filter(|view| config.views().takes(&view.name));
        sink(plan, dir, name, config, taken.cloned().collect())
    });
    let (mut found, sinks) = join(brokers, join_all(sinks)).await;
    found.extend(sinks);
    found
}

impl Finding {
    fn of(part: &'static str, name: &str, place: impl Into<String>) -> Self {
        Self {
            part,
            name: name.to_owned(),
            place: place.into(),
            server: None,
            clock_ahead_ms: None,
            note: None,
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    fn failed(mut self, error: &dyn Hint) -> Self {
        self.errors.push(self.here(Fault::from_error(error)));
        self
    }

    fn warned(mut self, fault: Fault) -> Self {
        self.warnings.push(self.here(fault));
        self
    }

    /// A fault that says where it was found.
    fn here(&self, mut fault: Fault) -> Fault {
        fault.message = format!("{} `{}`: {}", self.part, self.name, fault.message);
        fault
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let mut text = format!("connect   {} `{}`", self.part, self.name);
        if !self.place.is_empty() {
            text = format!("{text} at {}", self.place);
        }
        let clock = self.clock_ahead_ms.map(|ms| match ms {
            0.. => format!("its clock is {ms} ms ahead"),
            _ => format!("its clock is {} ms behind", ms.unsigned_abs()),
        });
        let verdict = match (self.errors.len(), self.warnings.len()) {
            (0, 0) => "ok".to_owned(),
            (0, warnings) => count(warnings, "warning"),
            (errors, 0) => count(errors, "error"),
            (errors, warnings) => {
                format!("{}, {}", count(errors, "error"), count(warnings, "warning"))
            }
        };
        let said = [self.server.clone(), clock, self.note.clone(), Some(verdict)];
        let said: Vec<String> = said.into_iter().flatten().collect();
        format!("{text}: {}", said.join(", "))
    }

    /// The same for a program.
    pub fn as_json(&self) -> Value {
        let told = |faults: &[Fault]| -> Vec<Value> {
            let told = faults
                .iter()
                .map(|fault| json!({ "message": fault.chain(), "hint": fault.hint }));
            told.collect()
        };
        json!({
            "part": self.part,
            "name": self.name,
            "place": self.place,
            "server": self.server,
            "clock_ahead_ms": self.clock_ahead_ms,
            "note": self.note,
            "warnings": told(&self.warnings),
            "errors": told(&self.errors),
        })
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The pipeline's own topic.
async fn own_topic(plan: &Plan) -> Finding {
    let config = &plan.config.topic;
    let found = Finding::of("topic", &config.name, config.brokers.clone());
    if config.embedded() {
        return found.noted("there is no broker to connect to");
    }
    let (broker, topic) = match described(config, &plan.folder).await {
        Ok(described) => described,
        Err(error) => return found.failed(&error),
    };
    let found = found.noted(match topic {
        Some(topic) => content(&topic),
        None => "the topic is not there yet: `falaj run` makes it".to_owned(),
    });
    let found = told_where_exposed(found, config);
    with_drifts(found, config, broker.drift(config).await)
}

/// Whether records leave the machine without TLS.
fn exposed(config: &TopicConfig) -> bool {
    let plain = match config.options.get("security.protocol") {
        None => true,
        Some(ClientOption::Text(protocol)) => !protocol.to_ascii_lowercase().ends_with("ssl"),
        Some(_) => false,
    };
    plain && !config.brokers.split(',').all(is_this_machine)
}

fn told_where_exposed(found: Finding, config: &TopicConfig) -> Finding {
    if !exposed(config) {
        return found;
    }
    found.warned(
        Fault::new("records travel the network without TLS")
            .hint("let the brokers listen with TLS, and write `security.protocol = \"SSL\"` (`SASL_SSL` with a login) in `[topic.options]`"),
    )
}

/// The topic that others write raw records to, where it is on a cluster.
async fn raw_records(plan: &Plan) -> Option<Finding> {
    let SourceConfig::Kafka(kafka) = &plan.config.source else {
        return None;
    };
    let config = raw_topic(kafka, &plan.config.topic);
    if config.embedded() {
        return None;
    }
    let found = Finding::of("source", &config.name, config.brokers.clone());
    Some(match described(&config, &plan.folder).await {
        Err(error) => found.failed(&error),
        Ok((_, Some(topic))) => found.noted(content(&topic)),
        Ok((_, None)) => found.warned(
            Fault::new("the topic is not there: `falaj run` waits for it")
                .hint("start the producer that writes to it, or correct `source.kafka.topic`"),
        ),
    })
}

/// The broker of `config`, and its topic where it is there.
async fn described(
    config: &TopicConfig,
    folder: &Path,
) -> Result<(Arc<dyn Broker>, Option<TopicDescription>), TopicError> {
    let broker = falaj_topic::connect(config, Path::new(""), folder).await?;
    match broker.describe(&config.name).await {
        Ok(topic) => Ok((broker, Some(topic))),
        Err(TopicError::Missing { .. }) => Ok((broker, None)),
        Err(error) => Err(error),
    }
}

fn content(topic: &TopicDescription) -> String {
    let records: i64 = topic.partitions.iter().map(|p| p.end - p.start).sum();
    format!("{} partitions, {records} records", topic.partitions.len())
}

/// What differs between the file and the topics on the cluster: what a run refuses is an error.
fn with_drifts(
    mut found: Finding,
    config: &TopicConfig,
    drifts: Result<Vec<Drift>, TopicError>,
) -> Finding {
    let drifts = match drifts {
        Ok(drifts) => drifts,
        Err(error) => return found.failed(&error),
    };
    for drift in drifts {
        found = match refusal(config, &drift) {
            Some(error) => found.failed(&error),
            None => found.warned(told(&drift, &config.name)),
        };
    }
    found
}

/// What a run would say to it, where it would not go on.
fn refusal(config: &TopicConfig, drift: &Drift) -> Option<TopicError> {
    let rejects = falaj_topic::rejects_topic(&config.name);
    if drift.key != "partitions" || drift.topic == rejects {
        return None;
    }
    let (topic, has) = (drift.topic.clone(), drift.cluster.parse().ok()?);
    Some(if topic == config.name {
        TopicError::Partitions {
            topic,
            has,
            wants: config.partitions.cast_signed(),
        }
    } else {
        TopicError::SharedLease {
            topic,
            partitions: has,
        }
    })
}

/// What is to be known of the pipeline's topic, or of one beside it.
fn told(drift: &Drift, own: &str) -> Fault {
    let Drift {
        topic,
        key,
        file,
        cluster,
    } = drift;
    let message = if topic == own {
        format!("`topic.{key}` is {file} in the file and {cluster} on the cluster")
    } else {
        format!(
            "`{key}` of topic `{topic}` is {cluster} on the cluster, and falaj makes it with {file}"
        )
    };
    Fault::new(message)
        .hint("falaj never changes a topic of a cluster: change the one or the other by hand")
}

/// A store.
async fn sink(
    plan: &Plan,
    dir: &DataDir,
    name: &str,
    config: &SinkConfig,
    views: Vec<Arc<ViewInfo>>,
) -> Finding {
    let places = Places {
        pipeline: &plan.folder,
        data: dir.path(),
    };
    let store = config.store(places);
    let found = Finding::of("sink", name, store.clone());
    if !dir.exists() && Path::new(&store).starts_with(dir.path()) {
        return found.noted("the data directory is not there yet: `falaj run` makes it");
    }
    let looking = async {
        let mut sink = config.sink(places, &plan.retention().into())?;
        let inspected = sink.inspect(&views).await;
        // It wrote nothing, so there is nothing to lose in letting go.
        let _ = sink.close().await;
        inspected
    };
    let inspected = tokio::time::timeout(WAIT_MAX, looking)
        .await
        .unwrap_or_else(|_| {
            Err(SinkError::Unreachable {
                store,
                cause: format!("no answer within {} s", WAIT_MAX.as_secs()),
            })
        });
    match inspected {
        Ok(inspection) => inspected_sink(found, inspection),
        Err(error) => found.failed(&error),
    }
}

fn inspected_sink(mut found: Finding, inspection: Inspection) -> Finding {
    found.server = Some(inspection.server);
    found.clock_ahead_ms = inspection.clock_ahead_ms;
    if let Some(ahead) = inspection.clock_ahead_ms
        && ahead.unsigned_abs() > CLOCK_APART_MAX_MS
    {
        let apart = ahead.unsigned_abs();
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let skew = Fault::new(format!(
            "the store's clock is {}.{:03} s {side} this machine's",
            apart / 1000,
            apart % 1000
        ))
        .hint("let both machines keep time by NTP: versions of rows are times of this machine's clock, and a store lets rows expire by its own");
        found = found.warned(skew);
    }
    for finding in inspection.findings {
        let mut fault = Fault::new(finding.what);
        if !finding.hint.is_empty() {
            fault = fault.hint(finding.hint);
        }
        if finding.fatal {
            found.errors.push(found.here(fault));
        } else {
            found = found.warned(fault);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(ahead: Option<i64>, findings: Vec<falaj_sinks::Finding>) -> Finding {
        let found = Finding::of("sink", "people", "db1:9042");
        let inspection = Inspection {
            server: "Cassandra 5.0.9".into(),
            clock_ahead_ms: ahead,
            findings,
        };
        inspected_sink(found, inspection)
    }

    #[test]
    fn a_clock_more_than_a_second_apart_is_a_warning_in_either_direction() {
        for (ahead, told) in [
            (None, None),
            (Some(0), None),
            (Some(1_000), None),
            (Some(-1_000), None),
            (
                Some(1_001),
                Some("sink `people`: the store's clock is 1.001 s ahead of this machine's"),
            ),
            (
                Some(-3_600_050),
                Some("sink `people`: the store's clock is 3600.050 s behind this machine's"),
            ),
        ] {
            let found = inspected(ahead, Vec::new());
            let warning = found.warnings.first().map(|w| w.message.as_str());
            assert_eq!(warning, told, "{ahead:?}");
            assert!(found.errors.is_empty());
        }
    }

    #[test]
    fn a_line_has_the_server_its_clock_and_a_verdict() {
        let finding = |fatal| falaj_sinks::Finding {
            what: "the keyspace has one replica".into(),
            hint: "use three".into(),
            fatal,
        };
        assert_eq!(
            inspected(Some(-7), vec![]).line(),
            "connect   sink `people` at db1:9042: Cassandra 5.0.9, its clock is 7 ms behind, ok"
        );
        assert_eq!(
            inspected(Some(2_000), vec![finding(true), finding(true)]).line(),
            "connect   sink `people` at db1:9042: Cassandra 5.0.9, its clock is 2000 ms ahead, 2 errors, 1 warning"
        );
        assert_eq!(
            inspected(None, vec![finding(false)]).line(),
            "connect   sink `people` at db1:9042: Cassandra 5.0.9, 1 warning"
        );
    }

    #[test]
    fn records_that_leave_the_machine_without_tls_are_noticed() {
        for (brokers, protocol, expected) in [
            ("127.0.0.1:9092, localhost:9093,[::1]:9092", None, false),
            ("127.0.0.1:9092,kafka1:9092", None, true),
            ("kafka1", Some("SASL_PLAINTEXT"), true),
            ("kafka1:9093", Some("sasl_ssl"), false),
        ] {
            let protocol = protocol.map(|text| ClientOption::Text(text.into()));
            let option = protocol.map(|option| ("security.protocol".to_owned(), option));
            let config = TopicConfig {
                brokers: brokers.into(),
                options: option.into_iter().collect(),
                ..TopicConfig::default()
            };
            assert_eq!(exposed(&config), expected, "{brokers}");
        }
    }

    #[test]
    fn partitions_that_a_run_refuses_are_errors_and_all_else_is_a_warning() {
        let config = TopicConfig {
            brokers: "k:9092".into(),
            ..TopicConfig::default()
        };
        let drift = |topic: &str, key| Drift {
            topic: topic.into(),
            key,
            file: "1".into(),
            cluster: "2".into(),
        };
        for (topic, key, error) in [
            ("messages", "partitions", true),
            ("messages", "retention", false),
            ("messages.lease", "partitions", true),
            ("messages.lease", "replication", false),
            ("messages.rejects", "partitions", false),
        ] {
            let found = Finding::of("topic", "messages", "k:9092");
            let found = with_drifts(found, &config, Ok(vec![drift(topic, key)]));
            let (errors, warnings) = (found.errors, found.warnings);
            assert_eq!(
                (errors.len(), warnings.len()),
                (usize::from(error), usize::from(!error)),
                "{topic} {key}"
            );
            for fault in errors.iter().chain(&warnings) {
                assert!(
                    fault.message.starts_with("topic `messages`: "),
                    "{}",
                    fault.message
                );
                assert!(
                    fault.message.contains('2') && fault.hint.is_some(),
                    "{}",
                    fault.message
                );
            }
        }
    }
}

//! What will happen: a pipeline file, checked as a whole.
//!
//! Always: a plan exists only where every rule holds that can be checked without connecting.
//! Absent on purpose: files, sockets, keys. `line.rs` opens what a plan names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use falaj_privacy::{Policy, PolicyParts};
use falaj_record::{Hint, ViewInfo, ViewKind};
use falaj_sinks::{Retention, SinkConfig};
use falaj_source::{KafkaConfig, SourceConfig};
use falaj_topic::{TopicConfig, TopicError, rejects_topic};
use falaj_views::{ViewError, ViewOptions, ViewSpec, Views};

use crate::config::Config;
use crate::document::{Document, nearest};
use crate::failure::{Failure, Fault};

/// What a person can go by where a view's error has no nearer hint.
const VIEW_HINT: &str = "a view is `SELECT .. FROM records [WHERE ..] [GROUP BY ..]` in Spark SQL, see docs/reference/sql.md";

/// A checked pipeline.
pub struct Plan {
    /// Folder that paths in the pipeline file are relative to.
    pub folder: PathBuf,
    /// The file as written.
    pub config: Config,
    /// What the gate lets through.
    pub policy: Arc<Policy>,
    /// The planned views, without state.
    pub views: Views,
    /// Names of views to compute again from the topic.
    pub rebuild: BTreeSet<String>,
    /// What is allowed, but should be known.
    pub warnings: Vec<Fault>,
}

/// Row views that stores keep for the same time after a record was written.
pub struct Alike {
    pub kept: Option<Duration>,
    pub names: BTreeSet<String>,
    /// All row views, without state.
    pub views: Views,
}

impl Plan {
    /// Checks `document` as a whole and names everything that is wrong with it.
    ///
    /// # Errors
    /// Every fault of the first layer that has any: keys and types, then privacy, views and charts.
    pub fn of(document: &Document) -> Result<Self, Failure> {
        let config: Config = document.parse()?;
        let mut faults = names(document, &config);
        if let Err(error) = config.topic.check() {
            faults.push(with_hint(
                document.fault(&["topic"], error.to_string()),
                &error,
            ));
        }
        faults.extend(source(document, &config));
        let policy = Policy::compile(&PolicyParts {
            privacy: &config.privacy,
            purposes: &config.purpose,
            fields: &config.fields,
            event_time: config.pipeline.event_time.as_deref(),
            max_record: config.pipeline.max_record,
        });
        let policy = match policy {
            Ok(policy) => policy,
            Err(errors) => {
                faults.extend(errors.iter().map(|error| {
                    let path: Vec<&str> = error.place.iter().map(String::as_str).collect();
                    with_hint(
                        document.fault(&path, format!("{} [{}]", error, error.code())),
                        error,
                    )
                }));
                return Err(Failure::file(faults));
            }
        };
        let warnings = policy
            .warnings()
            .iter()
            .map(|warning| {
                let path: Vec<&str> = warning.place.iter().map(String::as_str).collect();
                document.fault(&path, warning.message.clone())
            })
            .collect();
        let views = match plan_views(&config, &policy, |_| true) {
            Ok(views) => views,
            Err(errors) => {
                faults.extend(errors.iter().map(|error| {
                    let path = ["views", error.view.as_str(), "sql"];
                    let message = format!("view `{}`: {}", error.view, error.message);
                    let fault = document.fault_in_text(&path, error.line, error.column, message);
                    let mut fault = with_hint(fault, error);
                    fault.hint.get_or_insert_with(|| VIEW_HINT.to_owned());
                    fault
                }));
                return Err(Failure::file(faults));
            }
        };
        let infos = views.info();
        faults.extend(sinks(document, &config, &infos));
        for (i, chart) in config.charts.iter().enumerate() {
            faults.extend(chart.check(&infos).into_iter().map(|error| {
                let i = i.to_string();
                with_hint(
                    document.fault(&["charts", &i, error.key()], error.to_string()),
                    &error,
                )
            }));
        }
        if !faults.is_empty() {
            return Err(Failure::file(faults));
        }
        Ok(Self {
            folder: document.folder().to_owned(),
            config,
            policy: Arc::new(policy),
            views,
            rebuild: BTreeSet::new(),
            warnings,
        })
    }

    /// The views once more, without state.
    ///
    /// # Errors
    /// None that [`Plan::of`] did not find.
    pub fn plan_views(&self) -> Result<Views, Failure> {
        let planned = plan_views(&self.config, &self.policy, |_| true);
        planned.map_err(|errors| unplanned(&errors))
    }

    /// What plans the row views alone, as often as it is asked.
    pub fn row_views(&self) -> impl Fn() -> Result<Vec<Alike>, Failure> + Send + Sync + use<> {
        let (config, policy) = (self.config.clone(), Arc::clone(&self.policy));
        let retention = self.retention();
        // With an event time the topic does not say when a record was written.
        let timed = config.pipeline.event_time.is_some();
        let (mut rows, mut alike) = (BTreeSet::new(), BTreeMap::<_, BTreeSet<String>>::new());
        for info in self.views.info() {
            if info.kind == ViewKind::Row {
                let kept = retention.get(&info.name).copied().filter(|_| !timed);
                alike.entry(kept).or_default().insert(info.name.clone());
                rows.insert(info.name.clone());
            }
        }
        move || {
            let plan = |(kept, names): (&Option<Duration>, &BTreeSet<String>)| {
                // All of them: one may be over another.
                let views = plan_views(&config, &policy, |view| rows.contains(view));
                Ok(Alike {
                    kept: *kept,
                    names: names.clone(),
                    views: views.map_err(|errors| unplanned(&errors))?,
                })
            };
            alike.iter().map(plan).collect()
        }
    }

    /// How long stores keep each view: as long as the purposes of the fields it is computed from
    /// allow, the shortest of them.
    pub fn retention(&self) -> Retention {
        let config = &self.config;
        let kept = |view: &Arc<ViewInfo>| {
            let mut purposes: Vec<_> = view
                .fields
                .iter()
                .filter_map(|name| config.fields.get(name)?.purpose.as_ref())
                .filter_map(|name| config.purpose.get(name))
                .collect();
            // Of a pid or a time alone nobody knows which purpose it is there for.
            if purposes.is_empty() {
                purposes = config.purpose.values().collect();
            }
            let shortest = purposes
                .iter()
                .filter_map(|purpose| purpose.retention)
                .min()?;
            Some((view.name.clone(), shortest.0))
        };
        self.views.info().iter().filter_map(kept).collect()
    }

    /// Whether every view is computed again.
    pub fn rebuilds_all(&self) -> bool {
        self.rebuild.len() == self.config.views.len()
    }

    /// Asks for `views` to be computed again from the topic; `*` is all of them.
    ///
    /// # Errors
    /// Where the pipeline has no such view.
    pub fn rebuild(&mut self, views: &[String]) -> Result<(), Failure> {
        for name in views {
            if name == "*" {
                self.rebuild.extend(self.config.views.keys().cloned());
            } else if !self.config.views.contains_key(name) {
                let known: Vec<String> = self.config.views.keys().cloned().collect();
                return Err(Failure::usage(
                    Fault::new(format!("`--rebuild {name}`: there is no such view"))
                        .hint(format!("the pipeline has: {}", known.join(", "))),
                ));
            } else {
                self.rebuild.insert(name.clone());
            }
        }
        Ok(())
    }
}

fn unplanned(errors: &[ViewError]) -> Failure {
    Failure::file(errors.iter().map(|e| Fault::from_error(e)).collect())
}

fn plan_views(
    config: &Config,
    policy: &Policy,
    wanted: impl Fn(&str) -> bool,
) -> Result<Views, Vec<ViewError>> {
    let specs: Vec<ViewSpec> = config
        .views
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, view)| ViewSpec {
            name: name.clone(),
            sql: view.sql.clone(),
        })
        .collect();
    let options = ViewOptions {
        lateness: config.pipeline.lateness.0,
        people: policy.k().max(policy.delta_k()) as usize,
        partitions: config.topic.partitions.cast_signed(),
        pid_required: config.privacy.subject.as_ref().is_some_and(|s| s.required),
    };
    Views::plan(policy.schema(), &specs, &options)
}

fn with_hint(mut fault: Fault, error: &dyn Hint) -> Fault {
    fault.hint = error.hint();
    fault
}

fn names(document: &Document, config: &Config) -> Vec<Fault> {
    let name = &config.pipeline.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut faults = Vec::new();
    if name.is_empty() || name.len() > 100 || !name.chars().all(plain) || name.starts_with('.') {
        faults.push(
            document
                .fault(
                    &["pipeline", "name"],
                    format!("`{name}` is no name for a pipeline"),
                )
                .hint("use letters, digits, `.`, `_` and `-`, for example `random-users`"),
        );
    }
    faults
}

/// What is wrong with a raw topic.
fn source(document: &Document, config: &Config) -> Vec<Fault> {
    let SourceConfig::Kafka(kafka) = &config.source else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let own = &config.topic.name;
    let at = |key: &str, message: String| document.fault(&["source", "kafka", key], message);
    if kafka.topic == *own || kafka.topic == rejects_topic(own) {
        faults.push(
            at(
                "topic",
                format!(
                    "`{}` is the pipeline's own topic: raw records come from another one",
                    kafka.topic
                ),
            )
            .hint(format!(
                "give the pipeline's own topic another name, for example `[topic] name = \"{}.cleared\"`",
                kafka.topic
            )),
        );
    }
    match raw_topic(kafka, &config.topic).check() {
        Err(TopicError::Setting { key, reason, hint }) => {
            let key = if key == "brokers" { "brokers" } else { "topic" };
            let fault = at(key, format!("`source.kafka.{key}`: {reason}"));
            faults.push(fault.hint(hint));
        }
        Err(error) => faults.push(with_hint(at("topic", error.to_string()), &error)),
        Ok(()) => {}
    }
    faults
}

/// The topic of `[source.kafka]`: as the pipeline's own, but for its name and where it is.
pub fn raw_topic(kafka: &KafkaConfig, own: &TopicConfig) -> TopicConfig {
    TopicConfig {
        name: kafka.topic.clone(),
        brokers: kafka.brokers.clone().unwrap_or_else(|| own.brokers.clone()),
        ..own.clone()
    }
}

fn sinks(document: &Document, config: &Config, views: &[Arc<ViewInfo>]) -> Vec<Fault> {
    let known: Vec<String> = views.iter().map(|v| v.name.clone()).collect();
    let unknown = |(sink, settings): (&String, &SinkConfig)| {
        let name = settings
            .views()
            .unknown(|name| known.iter().any(|k| k == name))?;
        let fault = document.fault(
            &["sinks", sink, "views"],
            format!("sink `{sink}`: there is no view `{name}`"),
        );
        Some(match nearest(name, &known) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint(format!("the pipeline has: {}", known.join(", "))),
        })
    };
    config.sinks.iter().filter_map(unknown).collect()
}

/// Reads and checks the pipeline file of a command.
///
/// # Errors
/// As [`Document::read`], [`Document::set`] and [`Plan::of`].
pub fn load(path: &Path, set: &[String]) -> Result<Plan, Failure> {
    let mut document = Document::read(path)?;
    for assignment in set {
        document.set(assignment)?;
    }
    Plan::of(&document)
}

//! Topics of a cluster: made, described, listed, deleted.
//!
//! Always: a topic's settings are the cluster's once it is made; what differs from the pipeline file
//! is told by [`Broker::drift`] and changed by nobody here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use falaj_record::Period;
use parking_lot::Mutex;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::MetadataTopic;

use super::cluster::{CALL_WAIT, Cluster, Context, Known, client};
use super::lease::{self, Leased};
use super::producer::{BATCH_BYTES_MAX, Producer};
use super::topic::KafkaTopic;
use super::{blocking, group_of};
use crate::lease::SUFFIX as LEASE_SUFFIX;
use crate::rejects::rejects_topic;
use crate::{
    Broker, Compression, Drift, Lease, PartitionOffsets, Topic, TopicConfig, TopicDescription,
    TopicError,
};

/// The largest batch that topics made by falaj take: the default `max_record` and some room.
const TOPIC_BATCH_BYTES_MAX: usize = 20_000_000;
/// How long the cluster may take until all of it knows that a topic was made or deleted.
const SPREAD_WAIT: Duration = Duration::from_secs(15);
const SPREAD_LOOK: Duration = Duration::from_millis(30);
/// Kafka's word for "for ever".
const NEVER_MS: &str = "9223372036854775807";

/// A cluster, as all its topics share it.
pub(super) struct Shared {
    pub cluster: Arc<Cluster>,
    admin: AdminClient<Context>,
    compression: Compression,
    /// Topics in use: all who use one share its order of publishing.
    open: Mutex<BTreeMap<String, Arc<KafkaTopic>>>,
    /// What the pipeline file says of topics that it names.
    configs: Mutex<BTreeMap<String, TopicConfig>>,
    /// The lease that was asked for last.
    lease: Mutex<Option<Arc<Leased>>>,
    committers: Mutex<BTreeMap<String, Arc<BaseConsumer<Context>>>>,
}

/// Topics of a Kafka cluster.
pub(crate) struct Kafka {
    shared: Arc<Shared>,
}

impl Kafka {
    /// Connects to the cluster of `config`; `base` is the folder of the pipeline file.
    pub async fn connect(config: &TopicConfig, base: &Path) -> Result<Self, TopicError> {
        let cluster = Cluster::connect(config, base).await?;
        let compression = config.compression.unwrap_or_default();
        // What a lease is made with, which is asked for before the topic is.
        let configs = BTreeMap::from([(config.name.clone(), config.clone())]);
        let shared = blocking(move || {
            let admin = cluster.settings().create_with_context(Context::default());
            Ok(Shared {
                admin: admin.map_err(client)?,
                cluster,
                compression,
                open: Mutex::default(),
                configs: Mutex::new(configs),
                lease: Mutex::default(),
                committers: Mutex::default(),
            })
        });
        Ok(Self {
            shared: Arc::new(shared.await?),
        })
    }
}

impl Shared {
    /// The topic of this name, as it is.
    pub async fn open(
        shared: &Arc<Self>,
        name: &str,
        compression: Compression,
    ) -> Result<Arc<KafkaTopic>, TopicError> {
        shared.cluster.check_open()?;
        let Some(known) = shared.look_up(name).await? else {
            return Err(TopicError::Missing {
                topic: name.to_owned(),
            });
        };
        if let Some(held) = shared.open.lock().get(name)
            && held.is(&known)
        {
            return Ok(Arc::clone(held));
        }
        let settings = shared.settings_of(name).await?;
        let batch_bytes_max = setting(&settings, "max.message.bytes")
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(BATCH_BYTES_MAX);
        let topic = Arc::new(KafkaTopic::new(
            Arc::clone(shared),
            name,
            &known,
            batch_bytes_max,
            compression,
        ));
        let mut open = shared.open.lock();
        if let Some(held) = open.get(name)
            && held.is(&known)
        {
            // Somebody was faster.
            return Ok(Arc::clone(held));
        }
        if let Some(old) = open.insert(name.to_owned(), Arc::clone(&topic))
            && old.identity() != known.id
        {
            old.delete();
        }
        Ok(topic)
    }

    /// What the cluster knows of a topic, where it exists.
    pub async fn look_up(self: &Arc<Self>, name: &str) -> Result<Option<Known>, TopicError> {
        let (shared, name) = (Arc::clone(self), name.to_owned());
        blocking(move || shared.cluster.look_up(&name)).await
    }

    /// The settings that the cluster has for a topic.
    async fn settings_of(&self, name: &str) -> Result<ConfigResource, TopicError> {
        let doing = || format!("read the settings of topic `{name}`");
        let asked = [ResourceSpecifier::Topic(name)];
        let described = self.admin.describe_configs(&asked, &wait());
        let described = described
            .await
            .map_err(|error| self.cluster.error(&doing(), &error))?;
        match described.into_iter().next() {
            Some(Ok(settings)) => Ok(settings),
            Some(Err(Code::UnknownTopicOrPartition)) => Err(TopicError::Missing {
                topic: name.to_owned(),
            }),
            Some(Err(code)) => Err(self.cluster.refusal(&doing(), code)),
            None => Err(self.cluster.refusal(&doing(), Code::Fail)),
        }
    }

    /// Makes a topic, and waits until all of the cluster knows it.
    pub async fn create(self: &Arc<Self>, config: &TopicConfig) -> Result<(), TopicError> {
        let mut new = NewTopic::new(&config.name, config.partition_count(), replication(config));
        let wanted = wanted(config);
        for (key, value) in &wanted {
            new = new.set(key, value);
        }
        self.make(&config.name, new).await
    }

    /// Makes the topic whose only partition is the lease of the pipeline of topic `name`.
    async fn create_lease(self: &Arc<Self>, name: &str) -> Result<(), TopicError> {
        let config = lease_config(&self.config_of(name));
        let until = Instant::now() + SPREAD_WAIT;
        loop {
            match self.look_up(&config.name).await? {
                Some(known) if known.partitions == 1 => return Ok(()),
                Some(known) => {
                    return Err(TopicError::SharedLease {
                        topic: config.name,
                        partitions: known.partitions,
                    });
                }
                None => {}
            }
            let new = NewTopic::new(&config.name, 1, replication(&config));
            match self.make(&config.name, new).await {
                Ok(()) => return Ok(()),
                // Made by another one: looked at as any other.
                Err(TopicError::Exists { .. }) if Instant::now() < until => {
                    tokio::time::sleep(SPREAD_LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Partitions and copies of a topic; nothing where it does not exist.
    async fn laid_out(self: &Arc<Self>, name: &str) -> Result<Option<LaidOut>, TopicError> {
        if self.look_up(name).await?.is_none() {
            return Ok(None);
        }
        let (shared, name) = (Arc::clone(self), name.to_owned());
        blocking(move || {
            let metadata = shared.cluster.metadata(Some(&name))?;
            let found = metadata.topics().iter().find(|t| t.name() == name);
            Ok(found.map(|topic| {
                let copies = topic.partitions().iter().map(|p| p.replicas().len()).min();
                LaidOut {
                    partitions: topic.partitions().len(),
                    replication: copies.unwrap_or(0),
                }
            }))
        })
        .await
    }

    async fn make(self: &Arc<Self>, name: &str, new: NewTopic<'_>) -> Result<(), TopicError> {
        let doing = || format!("make topic `{name}`");
        let made = self.admin.create_topics([&new], &wait()).await;
        let made = made.map_err(|error| self.cluster.error(&doing(), &error))?;
        match made.into_iter().next() {
            Some(Ok(_)) => {}
            Some(Err((_, Code::TopicAlreadyExists))) => {
                return Err(TopicError::Exists {
                    topic: name.to_owned(),
                });
            }
            Some(Err((_, code))) => return Err(self.cluster.refusal(&doing(), code)),
            None => return Err(self.cluster.refusal(&doing(), Code::Fail)),
        }
        self.until(name, |known| known.is_some_and(|known| known.led))
            .await
    }

    /// Deletes a topic, and waits until none of the cluster knows it. Says whether it was there.
    async fn remove(self: &Arc<Self>, name: &str) -> Result<bool, TopicError> {
        let held = self.open.lock().remove(name);
        if let Some(held) = held {
            held.delete();
        }
        let doing = || format!("delete topic `{name}`");
        let deleted = self.admin.delete_topics(&[name], &wait()).await;
        let deleted = deleted.map_err(|error| self.cluster.error(&doing(), &error))?;
        match deleted.into_iter().next() {
            Some(Ok(_)) => {}
            Some(Err((_, Code::UnknownTopicOrPartition))) => return Ok(false),
            Some(Err((_, code))) => return Err(self.cluster.refusal(&doing(), code)),
            None => return Err(self.cluster.refusal(&doing(), Code::Fail)),
        }
        self.until(name, |known| known.is_none()).await?;
        Ok(true)
    }

    /// Waits until the cluster says of a topic what it should.
    async fn until(
        self: &Arc<Self>,
        name: &str,
        enough: impl Fn(Option<Known>) -> bool,
    ) -> Result<(), TopicError> {
        let until = Instant::now() + SPREAD_WAIT;
        while !enough(self.look_up(name).await?) {
            if Instant::now() >= until {
                return Err(TopicError::Unavailable {
                    doing: format!("make or delete topic `{name}`"),
                    reason: "not all brokers know of it in time".into(),
                });
            }
            tokio::time::sleep(SPREAD_LOOK).await;
        }
        Ok(())
    }

    /// What the pipeline file says of a topic, or what is usual.
    pub fn config_of(&self, name: &str) -> TopicConfig {
        let known = self.configs.lock().get(name).cloned();
        known.unwrap_or_else(|| TopicConfig {
            name: name.to_owned(),
            brokers: self.cluster.brokers.clone(),
            ..TopicConfig::default()
        })
    }

    /// The producer of the lease, where one was asked for.
    pub fn leased(&self) -> Result<Option<Arc<Producer>>, TopicError> {
        match &*self.lease.lock() {
            Some(lease) => lease.producer().map(Some),
            None => Ok(None),
        }
    }

    /// A client that can commit positions to a group: the lease's member where it is its group.
    pub async fn committer(
        self: &Arc<Self>,
        group: &str,
    ) -> Result<Arc<dyn super::Commits>, TopicError> {
        if let Some(lease) = &*self.lease.lock()
            && lease.group() == group
        {
            return Ok(lease.member());
        }
        if let Some(committer) = self.committers.lock().get(group) {
            return Ok(Arc::clone(committer) as _);
        }
        let (shared, name) = (Arc::clone(self), group.to_owned());
        let committer: BaseConsumer<Context> = blocking(move || {
            let mut settings = shared.cluster.settings();
            settings
                .set("group.id", name)
                .set("enable.auto.commit", "false");
            settings
                .create_with_context(Context::default())
                .map_err(client)
        })
        .await?;
        let committer = Arc::new(committer);
        self.committers
            .lock()
            .insert(group.to_owned(), Arc::clone(&committer));
        Ok(committer as _)
    }
}

fn wait() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(CALL_WAIT))
        .operation_timeout(Some(CALL_WAIT))
}

/// How the partitions of a topic lie on the cluster.
#[derive(Debug, Clone, Copy)]
struct LaidOut {
    partitions: usize,
    /// Copies of the partition that has fewest.
    replication: usize,
}

/// As the topic of rejects of `config` is made.
pub(super) fn rejects_config(config: &TopicConfig) -> TopicConfig {
    TopicConfig {
        name: rejects_topic(&config.name),
        partitions: 1,
        ..config.clone()
    }
}

/// As the topic of the lease of `config` is made, but for its settings.
fn lease_config(config: &TopicConfig) -> TopicConfig {
    TopicConfig {
        name: lease::topic(&config.name),
        partitions: 1,
        ..config.clone()
    }
}

/// How many copies a topic is made with: the cluster's default where the file does not say.
fn replication(config: &TopicConfig) -> TopicReplication<'static> {
    let copies = config.replication.and_then(|n| i32::try_from(n).ok());
    TopicReplication::Fixed(copies.unwrap_or(-1))
}

/// The settings that a topic is made with.
fn wanted(config: &TopicConfig) -> Vec<(&'static str, String)> {
    let mut wanted = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", config.retention.0.as_millis().to_string()),
        ("segment.bytes", config.segment_bytes.0.to_string()),
        ("max.message.bytes", TOPIC_BATCH_BYTES_MAX.to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        // A record may be of any time: brokers refuse what is an hour ahead by default.
        ("message.timestamp.after.max.ms", NEVER_MS.to_owned()),
    ];
    if let Some(bytes) = config.retention_bytes {
        wanted.push(("retention.bytes", bytes.0.to_string()));
    }
    wanted
}

fn setting<'a>(settings: &'a ConfigResource, key: &str) -> Option<&'a str> {
    settings.get(key)?.value.as_deref()
}

/// Whether falaj shows a topic: neither Kafka's own nor those that hold leases.
fn shown(name: &str) -> bool {
    !name.starts_with("__") && !name.ends_with(LEASE_SUFFIX)
}

#[async_trait]
impl Broker for Kafka {
    async fn topic(&self, config: &TopicConfig) -> Result<Arc<dyn Topic>, TopicError> {
        config.check()?;
        let shared = &self.shared;
        shared.cluster.check_open()?;
        shared
            .configs
            .lock()
            .insert(config.name.clone(), config.clone());
        let until = Instant::now() + SPREAD_WAIT;
        loop {
            let compression = config.compression.unwrap_or_default();
            match Shared::open(shared, &config.name, compression).await {
                Ok(topic) if topic.partitions() == config.partition_count() => return Ok(topic),
                Ok(topic) => {
                    return Err(TopicError::Partitions {
                        topic: config.name.clone(),
                        has: topic.partitions(),
                        wants: config.partition_count(),
                    });
                }
                Err(TopicError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            match shared.create(config).await {
                Ok(()) => {}
                // Made by another one, or not deleted everywhere yet.
                Err(TopicError::Exists { .. }) if Instant::now() < until => {
                    tokio::time::sleep(SPREAD_LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn existing(&self, topic: &str) -> Result<Arc<dyn Topic>, TopicError> {
        let topic = Shared::open(&self.shared, topic, self.shared.compression).await?;
        Ok(topic)
    }

    async fn create(&self, config: &TopicConfig) -> Result<TopicDescription, TopicError> {
        config.check()?;
        self.shared.cluster.check_open()?;
        self.shared.create(config).await?;
        self.describe(&config.name).await
    }

    async fn describe(&self, topic: &str) -> Result<TopicDescription, TopicError> {
        let held = Shared::open(&self.shared, topic, self.shared.compression).await?;
        let settings = self.shared.settings_of(topic).await?;
        let partitions: Vec<PartitionOffsets> = held.offsets().await?;
        let retention = setting(&settings, "retention.ms").and_then(|ms| ms.parse().ok());
        Ok(TopicDescription {
            name: topic.to_owned(),
            id: held.identity(),
            partitions,
            retention: retention.map(Duration::from_millis),
            bytes: None,
        })
    }

    async fn delete(&self, topic: &str) -> Result<(), TopicError> {
        let shared = &self.shared;
        shared.cluster.check_open()?;
        let missing = || TopicError::Missing {
            topic: topic.to_owned(),
        };
        if shared.look_up(topic).await?.is_none() {
            return Err(missing());
        }
        // The rejects first: positions in them mean nothing in a topic that is made anew.
        for beside in [rejects_topic(topic), lease::topic(topic)] {
            if shared.look_up(&beside).await?.is_some() {
                shared.remove(&beside).await?;
            }
        }
        if shared.remove(topic).await? {
            Ok(())
        } else {
            Err(missing())
        }
    }

    async fn list(&self) -> Result<Vec<String>, TopicError> {
        self.shared.cluster.check_open()?;
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let metadata = shared.cluster.metadata(None)?;
            let names = metadata.topics().iter().map(MetadataTopic::name);
            let mut names: Vec<_> = names.filter(|n| shown(n)).map(str::to_owned).collect();
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    async fn drift(&self, config: &TopicConfig) -> Result<Vec<Drift>, TopicError> {
        let mut drifts = Vec::new();
        for config in [config.clone(), rejects_config(config)] {
            let Some(laid_out) = self.shared.laid_out(&config.name).await? else {
                continue;
            };
            let settings = self.shared.settings_of(&config.name).await?;
            let has = |key: &str| setting(&settings, key).map(str::to_owned);
            drifts.extend(differences(&config, laid_out, &wanted(&config), has));
        }
        let lease = lease_config(config);
        if let Some(laid_out) = self.shared.laid_out(&lease.name).await? {
            // Nothing is ever in it, so its other settings are nobody's matter.
            drifts.extend(differences(&lease, laid_out, &[], |_| None));
        }
        Ok(drifts)
    }

    async fn lease(&self, name: &str) -> Result<Lease, TopicError> {
        let shared = &self.shared;
        shared.cluster.check_open()?;
        shared.create_lease(name).await?;
        let (cluster, compression) = (Arc::clone(&shared.cluster), shared.compression);
        let (owned, group) = (name.to_owned(), group_of(name));
        let leased = blocking(move || Leased::ask(&cluster, compression, &owned, &group)).await?;
        *shared.lease.lock() = Some(Arc::clone(&leased));
        Ok(Leased::lease(leased))
    }

    async fn close(&self) {
        self.shared.cluster.close();
        let open = std::mem::take(&mut *self.shared.open.lock());
        for topic in open.into_values() {
            topic.close().await;
        }
        let committers = std::mem::take(&mut *self.shared.committers.lock());
        std::thread::spawn(move || drop(committers));
        *self.shared.lease.lock() = None;
    }
}

/// What differs between a topic as falaj would make it, with the settings `wanted`, and as it is.
fn differences(
    config: &TopicConfig,
    laid_out: LaidOut,
    wanted: &[(&'static str, String)],
    has: impl Fn(&str) -> Option<String>,
) -> Vec<Drift> {
    let mut drifts = Vec::new();
    let mut compare = |key, file: String, cluster: String| {
        if file != cluster {
            drifts.push(Drift {
                topic: config.name.clone(),
                key,
                file,
                cluster,
            });
        }
    };
    compare(
        "partitions",
        config.partitions.to_string(),
        laid_out.partitions.to_string(),
    );
    if let Some(wanted) = config.replication {
        let copies = laid_out.replication.to_string();
        compare("replication", wanted.to_string(), copies);
    }
    for (kafka, wanted) in wanted {
        let (kafka, wanted) = (*kafka, wanted.clone());
        let Some(has) = has(kafka) else { continue };
        match kafka {
            // More than is needed does no harm.
            "max.message.bytes" | "message.timestamp.after.max.ms"
                if has.parse::<u64>().is_ok_and(|has| has >= needed(kafka)) => {}
            "retention.ms" => compare("retention", config.retention.to_string(), period(has)),
            "retention.bytes" => compare("retention_bytes", wanted, has),
            "segment.bytes" => compare("segment_bytes", wanted, has),
            _ => compare(kafka, wanted, has),
        }
    }
    drifts
}

/// Milliseconds as the pipeline file writes them, where they are a length of time.
fn period(ms: String) -> String {
    let parsed = ms.parse().ok().map(Duration::from_millis);
    parsed.map_or(ms, |period| Period(period).to_string())
}

/// The least that falaj works with.
fn needed(kafka: &str) -> u64 {
    match kafka {
        "max.message.bytes" => BATCH_BYTES_MAX as u64,
        _ => 3_600_000,
    }
}

#[cfg(test)]
mod tests {
    use falaj_record::ByteSize;

    use super::*;

    #[test]
    fn drift_names_the_key_of_the_file_and_both_values() {
        let config = TopicConfig {
            brokers: "k:9092".into(),
            replication: Some(3),
            retention: Period(Duration::from_hours(1)),
            retention_bytes: Some(ByteSize(5_000_000)),
            ..TopicConfig::default()
        };
        let wanted = wanted(&config);
        let same: BTreeMap<_, _> = wanted.iter().cloned().collect();
        let has = |key: &str| same.get(key).cloned();
        let laid_out = |partitions, replication| LaidOut {
            partitions,
            replication,
        };
        assert_eq!(differences(&config, laid_out(4, 3), &wanted, has), []);
        let other = BTreeMap::from([
            ("cleanup.policy", "compact"),
            ("retention.ms", "1"),
            ("retention.bytes", "-1"),
            ("segment.bytes", "134217728"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.after.max.ms", "3600000"),
        ]);
        let has = |key: &str| other.get(key).map(|value| (*value).to_owned());
        let drifts = differences(&config, laid_out(6, 1), &wanted, has);
        let told: Vec<_> = drifts
            .iter()
            .map(|d| (d.key, d.file.as_str(), d.cluster.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("partitions", "4", "6"),
                ("replication", "3", "1"),
                ("cleanup.policy", "delete", "compact"),
                ("retention", "1h", "1ms"),
                ("message.timestamp.type", "CreateTime", "LogAppendTime"),
                ("retention_bytes", "5000000", "-1"),
            ]
        );
    }

    #[test]
    fn internal_topics_are_not_shown() {
        let names = [
            "__consumer_offsets",
            "messages.lease",
            "messages",
            "messages.rejects",
        ];
        let shown: Vec<_> = names.into_iter().filter(|name| shown(name)).collect();
        assert_eq!(shown, ["messages", "messages.rejects"]);
    }
}

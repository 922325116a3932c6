//! Topics: which there are, making them, changing them, deleting them and their records.
//!
//! Always: what is refused is refused in Kafka's words, and nothing of it is done.
//! Absent on purpose: replicas other than the one broker; names that differ only by `.` and `_`
//! are two names here.

use std::collections::HashMap;

use falaj_log::{LogError, Settings, Topic, valid_name};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::broker::{
    Broker, LEADER_EPOCH, NODE, code, internal, kafka_error, known_partition, now_ms, sentence,
    text,
};
use crate::configs::{self, CONFIGS, Operation};

/// Why something is refused: Kafka's code and its words.
pub(crate) type Refusal = (ResponseError, String);

/// A refusal in the words that always go with the error.
pub(crate) fn refusal(error: ResponseError) -> Refusal {
    (error, sentence(error).into())
}

fn of_log(error: &LogError) -> Refusal {
    (kafka_error(error), error.to_string())
}

impl Broker {
    /// Settings of a topic that nothing is said about.
    pub(crate) fn defaults(&self) -> Settings {
        Settings {
            durability: self.options.durability,
            ..Settings::default()
        }
    }

    fn topic_by_id(&self, id: Uuid) -> Option<std::sync::Arc<Topic>> {
        self.log.topics().into_iter().find(|topic| topic.id() == id)
    }

    pub(crate) fn metadata(
        &self,
        q: MetadataRequest,
        version: i16,
        (host, port): (StrBytes, i32),
    ) -> MetadataResponse {
        let all = q
            .topics
            .as_ref()
            .is_none_or(|t| version == 0 && t.is_empty());
        let topics = if all {
            self.log.topics().iter().map(|t| described(t)).collect()
        } else {
            let asked = q.topics.unwrap_or_default().into_iter();
            let create = q.allow_auto_topic_creation;
            asked
                .map(|t| match t.name {
                    Some(name) => self.named(&name, create),
                    None => self.identified(t.topic_id, version),
                })
                .collect()
        };
        MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_node_id(NODE)
                    .with_host(host)
                    .with_port(port),
            ])
            .with_cluster_id(Some(self.cluster()))
            .with_controller_id(NODE)
            .with_topics(topics)
    }

    fn named(&self, name: &TopicName, create: bool) -> MetadataResponseTopic {
        let missing = |error: ResponseError| {
            MetadataResponseTopic::default()
                .with_name(Some(name.clone()))
                .with_error_code(error.code())
        };
        if let Some(topic) = self.log.topic(name) {
            return described(&topic);
        }
        if valid_name(name).is_err() {
            return missing(ResponseError::InvalidTopicException);
        }
        let Some(partitions) = self.options.auto_create.filter(|_| create) else {
            return missing(ResponseError::UnknownTopicOrPartition);
        };
        if self.room_for(partitions).is_err() {
            return missing(ResponseError::InvalidPartitions);
        }
        match self.log.create(name, partitions, self.defaults()) {
            Ok(topic) => described(&topic),
            // Somebody else was faster.
            Err(LogError::Exists(_)) => self.log.topic(name).map_or_else(
                || missing(ResponseError::LeaderNotAvailable),
                |t| described(&t),
            ),
            Err(error) => missing(kafka_error(&error)),
        }
    }

    fn identified(&self, id: Uuid, version: i16) -> MetadataResponseTopic {
        self.topic_by_id(id).map_or_else(
            || {
                MetadataResponseTopic::default()
                    .with_error_code(ResponseError::UnknownTopicId.code())
                    .with_name((version < 12).then(TopicName::default))
                    .with_topic_id(id)
            },
            |topic| described(&topic),
        )
    }

    /// Whether so many more partitions may be made.
    fn room_for(&self, more: i32) -> Result<(), Refusal> {
        let there: usize = self.log.topics().iter().map(|t| t.partitions().len()).sum();
        let max = self.options.limits.partitions;
        if there + usize::try_from(more).unwrap_or(0) > max {
            return Err((
                ResponseError::InvalidPartitions,
                format!("This broker holds at most {max} partitions."),
            ));
        }
        Ok(())
    }

    pub(crate) fn create_topics(
        &self,
        q: &CreateTopicsRequest,
        version: i16,
    ) -> CreateTopicsResponse {
        let mut seen: HashMap<TopicName, usize> = HashMap::new();
        for topic in &q.topics {
            *seen.entry(topic.name.clone()).or_default() += 1;
        }
        let results = q.topics.iter().map(|t| {
            let made = if seen.get(&t.name).is_some_and(|count| *count > 1) {
                Err((
                    ResponseError::InvalidRequest,
                    format!("Duplicate topic name: {}", t.name.as_str()),
                ))
            } else {
                self.create_topic(t, q.validate_only)
            };
            let result = CreatableTopicResult::default().with_name(t.name.clone());
            match made {
                Err((error, words)) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(words))),
                Ok((id, partitions, settings)) => result
                    .with_topic_id(id)
                    .with_num_partitions(partitions)
                    .with_replication_factor(1)
                    .with_configs((version >= 5).then(|| self.created_configs(&settings))),
            }
        });
        CreateTopicsResponse::default().with_topics(results.collect())
    }

    fn create_topic(
        &self,
        t: &CreatableTopic,
        validate_only: bool,
    ) -> Result<(Uuid, i32, Settings), Refusal> {
        let name = t.name.as_str();
        valid_name(name).map_err(|error| of_log(&error))?;
        if self.log.topic(name).is_some() {
            return Err((
                ResponseError::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        if internal(name) {
            return Err(refusal(ResponseError::InvalidTopicException));
        }
        let partitions = self.partitions_of(t)?;
        let mut settings = self.defaults();
        let defaults = settings.clone();
        for config in &t.configs {
            // Kafka's own tools send null for "as by default".
            let operation = match config.value {
                Some(_) => Operation::Set,
                None => Operation::Delete,
            };
            let value = config.value.as_deref();
            configs::change(&mut settings, &defaults, &config.name, operation, value)
                .map_err(|words| (ResponseError::InvalidConfig, words))?;
        }
        self.room_for(partitions)?;
        if validate_only {
            return Ok((Uuid::nil(), partitions, settings));
        }
        let topic = self
            .log
            .create(name, partitions, settings.clone())
            .map_err(|error| of_log(&error))?;
        Ok((topic.id(), partitions, settings))
    }

    /// How many partitions a topic is to have, once what is said about replicas was checked.
    fn partitions_of(&self, t: &CreatableTopic) -> Result<i32, Refusal> {
        if !t.assignments.is_empty() {
            if t.num_partitions != -1 || t.replication_factor != -1 {
                return Err((
                    ResponseError::InvalidRequest,
                    "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.".into(),
                ));
            }
            let count = i32::try_from(t.assignments.len()).unwrap_or(i32::MAX);
            let mut numbers: Vec<i32> = t.assignments.iter().map(|a| a.partition_index).collect();
            numbers.sort_unstable();
            if !numbers.into_iter().eq(0..count)
                || t.assignments.iter().any(|a| a.broker_ids != [NODE])
            {
                return Err((
                    ResponseError::InvalidReplicaAssignment,
                    "partitions should be a consecutive 0-based integer sequence, each on the one broker".into(),
                ));
            }
            return Ok(count);
        }
        if !matches!(t.replication_factor, -1 | 1) {
            let words = if t.replication_factor <= 0 {
                "Replication factor must be larger than 0, or -1 to use the default value.".into()
            } else {
                format!(
                    "Unable to replicate the partition {} time(s): The target replication factor of {0} cannot be reached because only 1 broker(s) are registered.",
                    t.replication_factor
                )
            };
            return Err((ResponseError::InvalidReplicationFactor, words));
        }
        match t.num_partitions {
            -1 => Ok(self.options.auto_create.unwrap_or(1)),
            count if count > 0 => Ok(count),
            _ => Err((
                ResponseError::InvalidPartitions,
                "Number of partitions was set to an invalid non-positive value.".into(),
            )),
        }
    }

    fn created_configs(&self, settings: &Settings) -> Vec<CreatableTopicConfigs> {
        let defaults = self.defaults();
        let configs = CONFIGS.iter().map(|config| {
            let value = (config.get)(settings);
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(config.name))
                .with_config_source(configs::source(&value, &(config.get)(&defaults)))
                .with_value(Some(text(value)))
        });
        configs.collect()
    }

    pub(crate) fn delete_topics(
        &self,
        q: DeleteTopicsRequest,
        version: i16,
    ) -> DeleteTopicsResponse {
        let asked: Vec<(Option<TopicName>, Uuid)> = if version >= 6 {
            q.topics.into_iter().map(|t| (t.name, t.topic_id)).collect()
        } else {
            let names = q.topic_names.into_iter();
            names.map(|name| (Some(name), Uuid::nil())).collect()
        };
        let results = asked.into_iter().map(|(name, id)| {
            let known = match &name {
                Some(name) => self.log.topic(name),
                None => self.topic_by_id(id),
            };
            let deleted = match &known {
                None if name.is_none() => Err(refusal(ResponseError::UnknownTopicId)),
                None => Err(refusal(ResponseError::UnknownTopicOrPartition)),
                Some(topic) => self.delete_topic(topic),
            };
            let name = name.or_else(|| known.as_ref().map(|t| TopicName(text(t.name()))));
            let error = deleted.err();
            let result = DeletableTopicResult::default()
                .with_name(name.or_else(|| (version < 6).then(TopicName::default)))
                .with_topic_id(known.map_or(id, |t| t.id()))
                .with_error_code(code(error.as_ref().map(|(error, _)| *error)));
            match error {
                Some((_, words)) if version >= 5 => result.with_error_message(Some(text(words))),
                _ => result,
            }
        });
        DeleteTopicsResponse::default().with_responses(results.collect())
    }

    fn delete_topic(&self, topic: &Topic) -> Result<(), Refusal> {
        if internal(topic.name()) {
            return Err(refusal(ResponseError::InvalidTopicException));
        }
        self.log
            .delete(topic.name())
            .map_err(|error| of_log(&error))?;
        self.coordinator.forget_topic(topic.name(), now_ms());
        Ok(())
    }

    pub(crate) fn create_partitions(&self, q: CreatePartitionsRequest) -> CreatePartitionsResponse {
        let results = q.topics.into_iter().map(|t| {
            let grown = self.grow(&t, q.validate_only);
            let result = CreatePartitionsTopicResult::default().with_name(t.name);
            match grown {
                Ok(()) => result,
                Err((error, words)) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(words))),
            }
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    }

    fn grow(&self, t: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
        let topic = self
            .log
            .topic(&t.name)
            .ok_or_else(|| refusal(ResponseError::UnknownTopicOrPartition))?;
        if internal(&t.name) {
            return Err(refusal(ResponseError::InvalidTopicException));
        }
        let there = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        let wrong = |words: String| Err((ResponseError::InvalidPartitions, words));
        if t.count < there {
            return wrong(format!(
                "The topic {} currently has {there} partition(s); {} would not be an increase.",
                t.name.as_str(),
                t.count
            ));
        }
        if t.count == there {
            return wrong(format!("Topic already has {there} partition(s)."));
        }
        if let Some(assignments) = &t.assignments {
            let more = usize::try_from(t.count - there).unwrap_or(0);
            if assignments.len() != more || assignments.iter().any(|a| a.broker_ids != [NODE]) {
                return Err((
                    ResponseError::InvalidReplicaAssignment,
                    format!("{more} new partition(s) on the one broker were expected."),
                ));
            }
        }
        self.room_for(t.count - there)?;
        if validate_only {
            return Ok(());
        }
        topic
            .add_partitions(t.count)
            .map_err(|error| of_log(&error))
    }

    pub(crate) fn delete_records(&self, q: DeleteRecordsRequest) -> DeleteRecordsResponse {
        let topics = q.topics.into_iter().map(|t| {
            let topic = self.log.topic(&t.name);
            let keeps_by_time = topic
                .as_ref()
                .is_some_and(|t| t.settings().cleanup.deletes());
            let partitions = t.partitions.iter().map(|p| {
                let deleted = known_partition(topic.as_deref(), p.partition_index, -1).and_then(
                    |partition| {
                        // Of a compacted topic, records go by key only.
                        if !keeps_by_time {
                            return Err(ResponseError::PolicyViolation);
                        }
                        partition
                            .delete_before(p.offset)
                            .map_err(|error| kafka_error(&error))
                    },
                );
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(p.partition_index)
                    .with_low_watermark(*deleted.as_ref().unwrap_or(&-1))
                    .with_error_code(code(deleted.err()))
            });
            let partitions = partitions.collect();
            DeleteRecordsTopicResult::default()
                .with_name(t.name)
                .with_partitions(partitions)
        });
        DeleteRecordsResponse::default().with_topics(topics.collect())
    }
}

fn described(topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions();
    let partitions = partitions.iter().map(|p| {
        MetadataResponsePartition::default()
            .with_partition_index(p.id())
            .with_leader_id(NODE)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(topic.name()))))
        .with_topic_id(topic.id())
        .with_is_internal(internal(topic.name()))
        .with_partitions(partitions.collect())
}

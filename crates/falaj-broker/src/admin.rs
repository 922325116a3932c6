//! Settings as clients ask for them and change them.

use falaj_log::{Settings, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
    incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

use crate::broker::{Broker, NODE, code, internal, kafka_error, text};
use crate::configs::{self, CONFIGS, Kind, Operation};
use crate::topics::{Refusal, refusal};

/// Kinds of resources, as on the wire.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

impl Broker {
    pub(crate) fn describe_configs(&self, q: DescribeConfigsRequest) -> DescribeConfigsResponse {
        let results = q.resources.into_iter().map(|resource| {
            let described = match resource.resource_type {
                TOPIC => self.topic_configs(&resource, q.include_synonyms, q.include_documentation),
                BROKER => self.broker_configs(&resource),
                other => Err((
                    ResponseError::InvalidRequest,
                    format!("Unsupported resource type: {other}"),
                )),
            };
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name);
            match described {
                Ok(configs) => result.with_configs(configs),
                Err((error, words)) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(words))),
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect())
    }

    fn topic_configs(
        &self,
        resource: &DescribeConfigsResource,
        synonyms: bool,
        documentation: bool,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let topic = self
            .log
            .topic(&resource.resource_name)
            .ok_or_else(|| refusal(ResponseError::UnknownTopicOrPartition))?;
        let (settings, defaults) = (topic.settings(), self.defaults());
        let configs = CONFIGS
            .iter()
            .filter(|config| wanted(resource, config.name))
            .map(|config| {
                let (value, default) = ((config.get)(&settings), (config.get)(&defaults));
                let source = configs::source(&value, &default);
                let mut synonym = Vec::new();
                if synonyms {
                    let mut layers = vec![(value.clone(), source)];
                    if source != configs::DEFAULT {
                        layers.push((default, configs::DEFAULT));
                    }
                    synonym = layers
                        .into_iter()
                        .map(|(value, source)| {
                            DescribeConfigsSynonym::default()
                                .with_name(StrBytes::from_static_str(config.name))
                                .with_value(Some(text(value)))
                                .with_source(source)
                        })
                        .collect();
                }
                DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_static_str(config.name))
                    .with_value(Some(text(value)))
                    .with_config_source(source)
                    .with_config_type(config.kind as i8)
                    .with_synonyms(synonym)
                    .with_documentation(
                        documentation.then(|| StrBytes::from_static_str(config.about)),
                    )
            });
        Ok(configs.collect())
    }

    /// What the broker itself is set to; it cannot be changed by clients.
    fn broker_configs(
        &self,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let name = resource.resource_name.as_str();
        if !name.is_empty() && name != NODE.0.to_string() {
            return Err((
                ResponseError::InvalidRequest,
                format!(
                    "Unexpected broker id, expected {} but received {name}",
                    NODE.0
                ),
            ));
        }
        let (options, defaults) = (&self.options, self.defaults());
        let limits = &options.limits;
        let topic = |name: &str| {
            let config = CONFIGS.iter().find(|config| config.name == name);
            config.map_or_else(String::new, |config| (config.get)(&defaults))
        };
        let minutes = limits.offsets_retention.as_secs().div_ceil(60);
        let session = |bound: &std::time::Duration| bound.as_millis().to_string();
        let configs = [
            (
                "auto.create.topics.enable",
                Kind::Boolean,
                options.auto_create.is_some().to_string(),
            ),
            ("broker.id", Kind::Int, NODE.0.to_string()),
            ("connections.max.idle.ms", Kind::Long, session(&limits.idle)),
            ("default.replication.factor", Kind::Int, "1".into()),
            (
                "group.max.session.timeout.ms",
                Kind::Int,
                session(limits.session.end()),
            ),
            ("group.max.size", Kind::Int, limits.members.to_string()),
            (
                "group.min.session.timeout.ms",
                Kind::Int,
                session(limits.session.start()),
            ),
            ("log.cleanup.policy", Kind::List, topic("cleanup.policy")),
            ("log.retention.bytes", Kind::Long, topic("retention.bytes")),
            ("log.retention.ms", Kind::Long, topic("retention.ms")),
            ("log.segment.bytes", Kind::Int, topic("segment.bytes")),
            ("max.connections", Kind::Int, limits.connections.to_string()),
            ("message.max.bytes", Kind::Int, topic("max.message.bytes")),
            ("min.insync.replicas", Kind::Int, "1".into()),
            (
                "num.partitions",
                Kind::Int,
                options.auto_create.unwrap_or(1).to_string(),
            ),
            ("offsets.retention.minutes", Kind::Int, minutes.to_string()),
            ("offsets.topic.num.partitions", Kind::Int, "1".into()),
            (
                "socket.request.max.bytes",
                Kind::Int,
                limits.request_bytes.to_string(),
            ),
        ];
        let configs = configs
            .into_iter()
            .filter(|(name, ..)| wanted(resource, name))
            .map(|(name, kind, value)| {
                DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_value(Some(text(value)))
                    .with_read_only(true)
                    .with_config_source(configs::DEFAULT)
                    .with_config_type(kind as i8)
            });
        Ok(configs.collect())
    }

    /// A topic whose settings clients may change.
    fn changeable(&self, kind: i8, name: &str) -> Result<Arc<Topic>, Refusal> {
        match kind {
            TOPIC if internal(name) => Err(refusal(ResponseError::InvalidTopicException)),
            TOPIC => self
                .log
                .topic(name)
                .ok_or_else(|| refusal(ResponseError::UnknownTopicOrPartition)),
            BROKER => Err((
                ResponseError::InvalidRequest,
                "Settings of this broker cannot be changed by clients.".into(),
            )),
            other => Err((
                ResponseError::InvalidRequest,
                format!("Unsupported resource type: {other}"),
            )),
        }
    }

    fn change(
        &self,
        (kind, name): (i8, &str),
        validate_only: bool,
        changes: impl FnOnce(&mut Settings, &Settings) -> Result<(), String>,
    ) -> Result<(), Refusal> {
        let topic = self.changeable(kind, name)?;
        let mut settings = topic.settings();
        changes(&mut settings, &self.defaults())
            .map_err(|words| (ResponseError::InvalidConfig, words))?;
        if validate_only {
            return Ok(());
        }
        topic
            .change(settings)
            .map_err(|error| (kafka_error(&error), error.to_string()))
    }

    /// Sets all settings of a topic: those not named go back to their default.
    pub(crate) fn alter_configs(&self, q: AlterConfigsRequest) -> AlterConfigsResponse {
        let results = q.resources.into_iter().map(|resource| {
            let place = (resource.resource_type, resource.resource_name.as_str());
            let changed = self.change(place, q.validate_only, |settings, defaults| {
                *settings = defaults.clone();
                for config in &resource.configs {
                    let value = config.value.as_deref();
                    configs::change(settings, defaults, &config.name, Operation::Set, value)?;
                }
                Ok(())
            });
            let (error, words) = parts(changed);
            alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(error)
                .with_error_message(words)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        AlterConfigsResponse::default().with_responses(results.collect())
    }

    /// Changes single settings of a topic.
    pub(crate) fn incremental_alter_configs(
        &self,
        q: IncrementalAlterConfigsRequest,
    ) -> IncrementalAlterConfigsResponse {
        let results = q.resources.into_iter().map(|resource| {
            let place = (resource.resource_type, resource.resource_name.as_str());
            let changed = self.change(place, q.validate_only, |settings, defaults| {
                for config in &resource.configs {
                    let operation = Operation::from_wire(config.config_operation)
                        .ok_or("Unknown operation type")?;
                    let value = config.value.as_deref();
                    configs::change(settings, defaults, &config.name, operation, value)?;
                }
                Ok(())
            });
            let (error, words) = parts(changed);
            incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(error)
                .with_error_message(words)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        IncrementalAlterConfigsResponse::default().with_responses(results.collect())
    }
}

fn parts(result: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(()) => (0, None),
        Err((error, words)) => (code(Some(error)), Some(text(words))),
    }
}

fn wanted(resource: &DescribeConfigsResource, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref();
    // No keys ask for all; so does an empty list of older clients.
    keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key.as_str() == name))
}

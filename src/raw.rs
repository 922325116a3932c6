//! Topics that others write raw records to, for `[source.kafka]`.
//!
//! Always: on the embedded log a topic that is not there is made for a run, so that producers have
//! somewhere to write; on a cluster it is somebody else's, and waited for.
//! Absent on purpose: writing to them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use falaj_record::{Fetched, Hint, Positions};
use falaj_source::{RawBroker, RawLog, RawLogError, RawOffsets};
use falaj_topic::{Broker, Topic, TopicConfig, TopicError};

use crate::failure::Fault;
use crate::plan::Plan;

/// Where the raw topic is.
pub struct RawTopics {
    broker: Arc<dyn Broker>,
    config: TopicConfig,
    make: bool,
}

impl RawTopics {
    /// Connects to where the topic of `config` is: `broker`, where that is the pipeline's own one.
    /// `make` says whether a topic may be made there.
    ///
    /// # Errors
    /// Where it cannot be connected to.
    pub async fn connect(
        config: TopicConfig,
        plan: &Plan,
        broker: &Arc<dyn Broker>,
        folder: &Path,
        make: bool,
    ) -> Result<Self, TopicError> {
        let broker = if config.brokers == plan.config.topic.brokers {
            Arc::clone(broker)
        } else {
            falaj_topic::connect(&config, folder, &plan.folder).await?
        };
        Ok(Self {
            broker,
            config,
            make,
        })
    }

    async fn opened(&self, topic: &str) -> Result<Option<Arc<dyn Topic>>, TopicError> {
        match self.broker.existing(topic).await {
            Ok(topic) => return Ok(Some(topic)),
            Err(TopicError::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
        if !self.make || !self.config.embedded() {
            return Ok(None);
        }
        match self.broker.create(&self.config).await {
            // A producer may have been faster.
            Ok(_) | Err(TopicError::Exists { .. }) => self.broker.existing(topic).await.map(Some),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl RawBroker for RawTopics {
    async fn open(&self, topic: &str) -> Result<Option<Arc<dyn RawLog>>, RawLogError> {
        let opened = self.opened(topic).await.map_err(raw_error)?;
        Ok(opened.map(|topic| Arc::new(RawTopic(topic)) as Arc<dyn RawLog>))
    }
}

struct RawTopic(Arc<dyn Topic>);

#[async_trait]
impl RawLog for RawTopic {
    fn identity(&self) -> String {
        self.0.identity()
    }

    async fn fetch(
        &self,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, RawLogError> {
        self.0.fetch(from, bytes_max, wait).await.map_err(raw_error)
    }

    async fn offsets(&self) -> Result<Vec<RawOffsets>, RawLogError> {
        let offsets = self.0.offsets().await.map_err(raw_error)?;
        let raw = offsets.iter().map(|o| RawOffsets {
            partition: o.partition,
            start: o.start,
            end: o.end,
        });
        Ok(raw.collect())
    }

    async fn commit(&self, _positions: &Positions) -> Result<(), RawLogError> {
        Ok(())
    }
}

fn raw_error(error: TopicError) -> RawLogError {
    let cause = Fault::from_error(&error).chain();
    match error {
        TopicError::Overtaken {
            partition,
            wanted,
            start,
            ..
        } => RawLogError::Overtaken {
            partition,
            wanted,
            start,
        },
        TopicError::BeyondEnd {
            partition,
            wanted,
            end,
            ..
        } => RawLogError::BeyondEnd {
            partition,
            wanted,
            end,
        },
        TopicError::Deleted { .. } | TopicError::Missing { .. } => RawLogError::Deleted,
        error => {
            let hint = error.hint();
            if error.passing() {
                RawLogError::Passing { cause, hint }
            } else {
                RawLogError::Failed { cause, hint }
            }
        }
    }
}

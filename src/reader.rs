//! Reading a pipeline's topics beside the falaj that runs it, for `tap` and `rejects list`.
//!
//! Always: nothing is written, locked or made.
//! Absent on purpose: durability. What is read here is shown, nothing is derived from it.

use std::sync::Arc;
use std::time::Duration;

use falaj_record::{Fetched, Positions};
use falaj_topic::{Follower, Topic, TopicError};

use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::plan::Plan;

/// Most bytes read at once.
const BYTES_MAX: usize = 1 << 20;
/// Longest wait for what is on its way from a cluster.
const WAIT: Duration = Duration::from_millis(500);

/// A topic, read from its start on.
pub enum Reader {
    /// Of the embedded log: its files, which another process may write.
    Files(Follower),
    /// Of a cluster.
    Cluster {
        topic: Arc<dyn Topic>,
        positions: Positions,
    },
}

impl Reader {
    /// Opens a topic of the pipeline; none where it is not there yet.
    ///
    /// # Errors
    /// Where the log or the cluster cannot be read.
    pub async fn open(plan: &Plan, dir: &DataDir, name: &str) -> Result<Option<Self>, Failure> {
        let config = &plan.config.topic;
        if config.embedded() {
            let files = Follower::open(&dir.topic(), name, BYTES_MAX);
            return Ok(files.map_err(|e| Failure::stage(&e))?.map(Self::Files));
        }
        let broker = falaj_topic::connect(config, &dir.topic(), &plan.folder)
            .await
            .map_err(|e| Failure::stage(&e))?;
        let topic = match broker.existing(name).await {
            Ok(topic) => topic,
            Err(TopicError::Missing { .. }) => return Ok(None),
            Err(e) => return Err(Failure::stage(&e)),
        };
        let offsets = topic.offsets().await.map_err(|e| Failure::stage(&e))?;
        let positions = Positions(offsets.iter().map(|o| (o.partition, o.start)).collect());
        Ok(Some(Self::Cluster { topic, positions }))
    }

    /// What has come since the last read, nothing where nothing has.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn read(&mut self) -> Result<Vec<Fetched>, Failure> {
        match self {
            Self::Files(files) => files.read(),
            Self::Cluster { topic, positions } => {
                let fetched = topic.fetch(positions, BYTES_MAX, WAIT).await;
                for part in fetched.iter().flatten() {
                    positions.advance(part.partition, part.next);
                }
                fetched
            }
        }
        .map_err(|e| Failure::stage(&e))
    }
}

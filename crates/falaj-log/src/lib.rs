//! The segment log on disk: topics, each of some partitions, each a row of files that hold Kafka
//! record batches (format v2) exactly as a Kafka client would send and receive them.
//!
//! ```text
//! <dir>/producers~.json                        which ids of idempotent producers may have been given
//!      /<topic>/topic.json                     identity, number of partitions, settings
//!      /<topic>/<partition>/<base offset>.log  batches, one after the other, nothing else
//!                          /<base>-<next>-<n>.log the same, cleaned, in place of what lay there
//!                          /<segment>.index    sparse offsets and times; rebuilt where missing
//!                          /partition.snapshot where a start may begin to scan
//! ```
//!
//! Always: a batch is checked once, when it comes in ([`Batches::checked`]) or when a start finds it
//! after the last snapshot; reading takes it as it lies.
//! Always: an appender is told of success only after its bytes are on the disk (durability
//! `fsync`), and nobody reads past what is; one thread a log syncs for everybody who waits.
//! Always: only the last segment can be torn, since a segment is synced before the next one starts.
//! Its torn end is cut with a warning; damage anywhere else is an error that names file and byte.
//! Always: a failed sync ends a partition's writing until restart: after it, nobody can know which
//! pages the system threw away, so it is never tried again.
//! Always: a batch that an idempotent producer sends again is not appended again, over restarts too
//! (of each producer the last five batches are known, for a day after the last one).
//! Always: offsets only grow. In a topic that is compacted some are missing, in batches and between
//! them; segments still join without a gap.
//! Always: how far each source has got (`falaj.src`) outlives its records, whatever took them.
//! Absent on purpose: tokio, the Kafka protocol, transactions, a lock on the directory (its owner
//! holds one).

mod batch;
mod clean;
mod codec;
mod commit;
mod disk;
mod error;
mod log;
mod marks;
mod partition;
mod producer_ids;
mod producers;
mod records;
mod recovery;
mod search;
mod segment;
mod snapshot;
mod stored;
mod topic;

pub use batch::{Batches, HEAD_BYTES, Head};
pub use codec::{UNPACKED_BYTES_MAX, UnpackError};
pub use disk::{Disk, LocalDisk, SegmentFile};
pub use error::LogError;
pub use log::{Log, LogOptions};
pub use marks::SRC_HEADER;
pub use partition::{Appended, Done, Partition, Slice};
pub use records::{Headers, Malformed, Record, Records};
pub use segment::SegmentName;
pub use stored::{Located, Stored};
pub use topic::{Cleanup, Durability, Settings, Stamp, Topic, valid_name};

//! A topic: its partitions, its identity and its settings.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use crate::LogError;
use crate::disk::{replace, sync_parent};
use crate::log::Shared;
use crate::partition::{Partition, Surroundings};

const FILE: &str = "topic.json";
const FORMAT: u32 = 1;

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is on the disk.
    #[default]
    Fsync,
    /// When the system has it: survives a crash of falaj, not a loss of power.
    Os,
}

/// What becomes of old records (Kafka: `cleanup.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Cleanup {
    /// They are dropped by age and size.
    #[default]
    Delete,
    /// The newest record of each key is kept.
    Compact,
    /// Both: the newest record of each key is kept until it is too old.
    CompactDelete,
}

impl Cleanup {
    /// Whether the newest record of each key is kept, and every record must have one.
    #[must_use]
    pub fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactDelete)
    }

    /// Whether records are dropped by age and size.
    #[must_use]
    pub fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactDelete)
    }
}

/// Whose time a record has (Kafka: `message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Stamp {
    /// The one its sender gave it.
    #[default]
    Create,
    /// The one at which it was appended.
    Append,
}

/// How a topic keeps its records. Can be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Records are dropped when all of their segment were appended longer ago than this.
    pub retention_ms: Option<u64>,
    /// The oldest segments of a partition are dropped while what is left has at least this many bytes.
    pub retention_bytes: Option<u64>,
    /// A segment is closed before it grows beyond this.
    pub segment_bytes: u64,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// What becomes of old records.
    pub cleanup: Cleanup,
    /// How long a tombstone stays after the records before it were cleaned away, in milliseconds:
    /// so long a reader from the start has to get there.
    pub delete_retention_ms: u64,
    /// Records that were appended less than that many milliseconds ago are not cleaned yet.
    pub compaction_lag_ms: u64,
    /// Length of the largest batch that is taken, in bytes.
    pub batch_bytes_max: u32,
    /// Whose time a record has.
    pub stamp: Stamp,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
            segment_bytes: 256 << 20,
            durability: Durability::Fsync,
            cleanup: Cleanup::Delete,
            delete_retention_ms: 86_400_000,
            compaction_lag_ms: 0,
            batch_bytes_max: 1_048_588,
            stamp: Stamp::Create,
        }
    }
}

/// Content of `topic.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Metadata {
    format: u32,
    id: Uuid,
    partitions: i32,
    settings: Settings,
}

impl Metadata {
    fn save(&self, folder: &Path) -> Result<(), LogError> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).expect("numbers and names are always JSON");
        replace(&path, &text).map_err(LogError::files("write", &path))
    }

    fn load(folder: &Path) -> Result<Self, LogError> {
        let path = folder.join(FILE);
        let text = fs::read(&path).map_err(LogError::files("read", &path))?;
        let damaged = |what: String| LogError::Damaged {
            path: path.clone(),
            at: 0,
            what,
        };
        let metadata: Self = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if metadata.format != FORMAT {
            return Err(damaged(format!("format {} is not known", metadata.format)));
        }
        Ok(metadata)
    }
}

/// Whoever wants to know that a topic's offsets moved.
#[derive(Default)]
pub(crate) struct Watchers(RwLock<Vec<Watcher>>);

type Watcher = Box<dyn Fn() + Send + Sync>;

impl Watchers {
    pub(crate) fn call(&self) {
        for watcher in self.0.read().iter() {
            watcher();
        }
    }
}

/// A topic that is open.
pub struct Topic {
    name: Arc<str>,
    id: Uuid,
    folder: PathBuf,
    around: Surroundings,
    partitions: RwLock<Arc<[Arc<Partition>]>>,
    /// Held while `topic.json` is changed; why it may not be any more.
    changing: Mutex<Option<LogError>>,
}

impl Topic {
    /// Writes the files of a topic without records into `folder`.
    pub(crate) fn lay_out(
        folder: &Path,
        partitions: i32,
        settings: Settings,
    ) -> Result<(), LogError> {
        fs::create_dir_all(folder).map_err(LogError::files("make", folder))?;
        for id in 0..partitions {
            let path = folder.join(id.to_string());
            fs::create_dir(&path).map_err(LogError::files("make", &path))?;
        }
        Metadata {
            format: FORMAT,
            id: Uuid::new_v4(),
            partitions,
            settings,
        }
        .save(folder)
    }

    pub(crate) fn open(name: &str, folder: PathBuf, log: &Shared) -> Result<Self, LogError> {
        let name: Arc<str> = name.into();
        let metadata = Metadata::load(&folder)?;
        forget_unborn(&folder, metadata.partitions)?;
        let around = Surroundings {
            topic: Arc::clone(&name),
            disk: Arc::clone(&log.options.disk),
            queue: Arc::clone(&log.queue),
            clock: Arc::clone(&log.options.clock),
            settings: Arc::new(RwLock::new(metadata.settings)),
            watchers: Arc::default(),
            unpacker: Arc::clone(&log.unpacker),
            snapshot_bytes: log.options.snapshot_bytes,
        };
        let partitions = (0..metadata.partitions)
            .map(|id| {
                let folder = folder.join(id.to_string());
                Partition::open(id, folder, around.clone()).map(Arc::new)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            id: metadata.id,
            folder,
            around,
            partitions: RwLock::new(partitions),
            changing: Mutex::new(None),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity: another one after it was deleted and made again.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Its partitions, by number, as they are now.
    #[must_use]
    pub fn partitions(&self) -> Arc<[Arc<Partition>]> {
        Arc::clone(&self.partitions.read())
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, id: i32) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read();
        partitions.get(usize::try_from(id).ok()?).cloned()
    }

    /// How it keeps its records.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.around.settings.read().clone()
    }

    /// Changes how it keeps its records, from now on and after a restart.
    ///
    /// # Errors
    /// [`LogError::Files`] where they cannot be written, [`LogError::Deleted`] and
    /// [`LogError::Closed`]; they are then not changed.
    pub fn change(&self, settings: Settings) -> Result<(), LogError> {
        let changing = self.changing.lock();
        if let Some(ended) = &*changing {
            return Err(ended.clone());
        }
        if self.settings() == settings {
            return Ok(());
        }
        self.save(self.partitions().len(), &settings)?;
        *self.around.settings.write() = settings;
        Ok(())
    }

    /// Adds empty partitions, so that there are `count` in all: all of them or, over a crash too,
    /// none. Records stay where they are.
    ///
    /// # Errors
    /// [`LogError::NotMore`] or [`LogError::Partitions`] for a number that cannot be,
    /// [`LogError::Files`], [`LogError::Deleted`], [`LogError::Closed`]; none are then added.
    pub fn add_partitions(&self, count: i32) -> Result<(), LogError> {
        let changing = self.changing.lock();
        if let Some(ended) = &*changing {
            return Err(ended.clone());
        }
        let present = self.partitions();
        let has = i32::try_from(present.len()).unwrap_or(i32::MAX);
        if count <= has {
            return Err(LogError::NotMore {
                topic: Arc::clone(&self.name),
                has,
                wanted: count,
            });
        }
        partition_count(count)?;
        let mut all = present.to_vec();
        // Until `topic.json` tells of them, a start removes them.
        let added = (has..count)
            .try_for_each(|id| {
                let folder = self.folder.join(id.to_string());
                fs::create_dir(&folder)
                    .and_then(|()| sync_parent(&folder))
                    .map_err(LogError::files("make", &folder))?;
                let partition = Partition::open(id, folder, self.around.clone())?;
                all.push(Arc::new(partition));
                Ok(())
            })
            .and_then(|()| self.save(all.len(), &self.settings()));
        if let Err(error) = added {
            // A failure to remove them is the next start's, or the next try's.
            let _ = forget_unborn(&self.folder, has);
            return Err(error);
        }
        *self.partitions.write() = all.into();
        drop(changing);
        self.around.watchers.call();
        Ok(())
    }

    fn save(&self, partitions: usize, settings: &Settings) -> Result<(), LogError> {
        Metadata {
            format: FORMAT,
            id: self.id,
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            settings: settings.clone(),
        }
        .save(&self.folder)
    }

    /// Calls `watcher` whenever an offset of a partition may have moved: new records can be read,
    /// old ones are gone, or the topic is. It is called from the appending and the commit thread
    /// and must neither block nor call the log.
    pub fn on_advance(&self, watcher: impl Fn() + Send + Sync + 'static) {
        self.around.watchers.0.write().push(Box::new(watcher));
    }

    /// Ends all changes, and gives its partitions, whose number stays from then on.
    pub(crate) fn end(&self, why: &LogError) -> Arc<[Arc<Partition>]> {
        self.changing.lock().get_or_insert(why.clone());
        self.partitions()
    }
}

/// Removes partitions that a crash kept from being added: no record can be in them.
fn forget_unborn(folder: &Path, partitions: i32) -> Result<(), LogError> {
    for entry in fs::read_dir(folder).map_err(LogError::files("list", folder))? {
        let path = entry.map_err(LogError::files("list", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.parse::<i32>().ok());
        if number.is_some_and(|number| number >= partitions) {
            let empty = |path: &Path| {
                let mut files = fs::read_dir(path)?.map(|e| Ok(e?.metadata()?.len()));
                files.try_fold(true, |empty, bytes: io::Result<u64>| {
                    Ok(empty && bytes? == 0)
                })
            };
            match empty(&path) {
                Ok(true) => fs::remove_dir_all(&path).map_err(LogError::files("remove", &path))?,
                Ok(false) => {
                    warn!(folder = %path.display(), "partition that the topic does not have left alone");
                }
                Err(cause) => return Err(LogError::files("list", &path)(cause)),
            }
        }
    }
    Ok(())
}

/// The most partitions of a topic.
const PARTITIONS_MAX: i32 = 1024;

/// Whether a topic can have so many partitions.
pub(crate) fn partition_count(wanted: i32) -> Result<(), LogError> {
    if (1..=PARTITIONS_MAX).contains(&wanted) {
        Ok(())
    } else {
        Err(LogError::Partitions {
            wanted,
            max: PARTITIONS_MAX,
        })
    }
}

/// The longest topic name, as in Kafka.
const NAME_CHARS_MAX: usize = 249;

/// Whether Kafka would take `name` for a topic.
///
/// # Errors
/// [`LogError::Name`] with the reason.
pub fn valid_name(name: &str) -> Result<(), LogError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_CHARS_MAX {
        "it has more than 249 characters"
    } else if name == "." || name == ".." {
        "it is a folder's"
    } else if let Some(odd) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(LogError::Name {
            name: name.escape_debug().collect(),
            reason: if odd.is_ascii() {
                "it holds a character that none may have"
            } else {
                "it holds a character that is not ASCII"
            },
        });
    } else {
        return Ok(());
    };
    Err(LogError::Name {
        name: name.into(),
        reason,
    })
}

//! A topic: its partitions, its identity and its settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::LogError;
use crate::disk::replace;
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

/// How a topic keeps its records. Can be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Records are dropped when all of their segment were appended longer ago than this.
    pub retention_ms: Option<u64>,
    /// The oldest segments of a partition are dropped while what is left has at least this many bytes.
    pub retention_bytes: Option<u64>,
    /// A segment is closed before it grows beyond this.
    pub segment_bytes: u64,
    /// When an append is acknowledged.
    pub durability: Durability,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 86_400_000),
            retention_bytes: None,
            segment_bytes: 256 << 20,
            durability: Durability::Fsync,
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
    settings: Arc<RwLock<Settings>>,
    partitions: Vec<Partition>,
    watchers: Arc<Watchers>,
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
        let settings = Arc::new(RwLock::new(metadata.settings));
        let watchers = Arc::new(Watchers::default());
        let partitions = (0..metadata.partitions)
            .map(|id| {
                let around = Surroundings {
                    topic: Arc::clone(&name),
                    disk: Arc::clone(&log.options.disk),
                    queue: Arc::clone(&log.queue),
                    clock: Arc::clone(&log.options.clock),
                    settings: Arc::clone(&settings),
                    watchers: Arc::clone(&watchers),
                    snapshot_bytes: log.options.snapshot_bytes,
                };
                Partition::open(id, folder.join(id.to_string()), around)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            id: metadata.id,
            folder,
            settings,
            partitions,
            watchers,
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

    /// Its partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, id: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(id).ok()?)
    }

    /// How it keeps its records.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.read().clone()
    }

    /// Changes how it keeps its records, from now on and after a restart.
    ///
    /// # Errors
    /// [`LogError::Files`] where they cannot be written; they are then not changed.
    pub fn change(&self, settings: Settings) -> Result<(), LogError> {
        let mut current = self.settings.write();
        if *current == settings {
            return Ok(());
        }
        Metadata {
            format: FORMAT,
            id: self.id,
            partitions: i32::try_from(self.partitions.len()).unwrap_or(i32::MAX),
            settings: settings.clone(),
        }
        .save(&self.folder)?;
        *current = settings;
        Ok(())
    }

    /// Calls `watcher` whenever an offset of a partition may have moved: new records can be read,
    /// old ones are gone, or the topic is. It is called from the appending and the commit thread
    /// and must neither block nor call the log.
    pub fn on_advance(&self, watcher: impl Fn() + Send + Sync + 'static) {
        self.watchers.0.write().push(Box::new(watcher));
    }

    pub(crate) fn end(&self, why: &LogError) {
        for partition in &self.partitions {
            partition.end(why);
        }
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

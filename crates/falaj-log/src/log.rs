//! The log: all topics under one folder, and the thread that commits for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, RwLock};
use tracing::{error, warn};
use uuid::Uuid;

use crate::LogError;
use crate::clean::Cleaning;
use crate::codec::Unpacker;
use crate::commit::{Queue, Turn, after};
use crate::disk::{Disk, LocalDisk, sync_parent};
use crate::producer_ids::ProducerIds;
use crate::topic::{Settings, Topic, partition_count, valid_name};

/// A partition that could not be cleaned is left alone for so long.
const CLEAN_AGAIN_AFTER: Duration = Duration::from_mins(10);

/// Milliseconds since 1970.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Between the name and the identity in the name of a folder that is no topic yet, or no more: no
/// topic's name can hold it.
const MARK: char = '~';

/// How a log works; the defaults are for use, the rest is for tests.
#[derive(Clone)]
pub struct LogOptions {
    /// Where segments are.
    pub disk: Arc<dyn Disk>,
    /// What time it is, in milliseconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// How often retention is looked after.
    pub housekeeping: Duration,
    /// How often is looked for something to clean.
    pub cleaning: Duration,
    /// The most memory that the keys of a partition take while it is cleaned, in bytes; where they
    /// do not fit, it is cleaned in several passes.
    pub clean_map_bytes: usize,
    /// A partition is snapshot when that much was appended since the last time: so much is scanned
    /// at most after a crash.
    pub snapshot_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            disk: Arc::new(LocalDisk),
            clock: Arc::new(now_ms),
            housekeeping: Duration::from_mins(1),
            cleaning: Duration::from_secs(15),
            clean_map_bytes: 64 << 20,
            snapshot_bytes: 32 << 20,
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_millis()).ok())
        .unwrap_or(0)
}

pub(crate) struct Shared {
    folder: PathBuf,
    pub options: LogOptions,
    pub queue: Arc<Queue>,
    pub unpacker: Arc<Unpacker>,
    producer_ids: ProducerIds,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Held while topics are made and deleted.
    changing: Mutex<()>,
    /// The cleaner is to end, whatever it is at.
    stop: AtomicBool,
    /// What the cleaner waits at between two looks.
    rest: (Mutex<()>, Condvar),
}

/// All topics under one folder.
///
/// Closing it (or dropping it) commits what waits and writes a snapshot of each partition; topics
/// that are still held can be read after that, and not written to.
pub struct Log {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    cleaner: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `folder`, which is made where it is not there.
    ///
    /// # Errors
    /// [`LogError::Damaged`] or [`LogError::Missing`] where files do not hold what was written to
    /// them (other than a torn end), [`LogError::Files`] where they cannot be used.
    pub fn open(folder: &Path, options: LogOptions) -> Result<Self, LogError> {
        fs::create_dir_all(folder).map_err(LogError::files("make", folder))?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            options,
            queue: Arc::new(Queue::default()),
            unpacker: Arc::default(),
            producer_ids: ProducerIds::new(folder),
            topics: RwLock::default(),
            changing: Mutex::new(()),
            stop: AtomicBool::new(false),
            rest: Default::default(),
        });
        shared.open_topics()?;
        let thread = |name: &str, work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || work(&shared))
                .map_err(LogError::files("start a thread for", folder))
        };
        // From here on dropping it ends what was started.
        let log = Self {
            committer: Mutex::new(Some(thread("log-commit", Shared::commit)?)),
            cleaner: Mutex::new(None),
            shared: Arc::clone(&shared),
        };
        *log.cleaner.lock() = Some(thread("log-clean", Shared::keep_clean)?);
        Ok(log)
    }

    /// Makes a topic. It is there, whole, or not at all.
    ///
    /// # Errors
    /// [`LogError::Name`], [`LogError::Partitions`], [`LogError::Exists`], or [`LogError::Files`].
    pub fn create(
        &self,
        name: &str,
        partitions: i32,
        settings: Settings,
    ) -> Result<Arc<Topic>, LogError> {
        valid_name(name)?;
        partition_count(partitions)?;
        let shared = &self.shared;
        let _changing = shared.changing.lock();
        self.still_open()?;
        if shared.topics.read().contains_key(name) {
            return Err(LogError::Exists(name.into()));
        }
        let folder = shared.folder.join(name);
        let draft = shared.folder.join(format!("new{MARK}{}", Uuid::new_v4()));
        Topic::lay_out(&draft, partitions, settings)
            .and_then(|()| {
                fs::rename(&draft, &folder)
                    .and_then(|()| sync_parent(&folder))
                    .map_err(LogError::files("make", &folder))
            })
            .inspect_err(|_| {
                // What cannot be removed now is removed at the next start.
                let _ = fs::remove_dir_all(&draft);
            })?;
        let topic = Arc::new(Topic::open(name, folder, shared)?);
        shared
            .topics
            .write()
            .insert(name.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }

    /// An open topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.shared.topics.read().get(name).cloned()
    }

    /// All topics, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.shared.topics.read().values().cloned().collect()
    }

    /// Deletes a topic with all its records. Those who still use it get [`LogError::Deleted`].
    ///
    /// # Errors
    /// [`LogError::NoTopic`], or [`LogError::Files`].
    pub fn delete(&self, name: &str) -> Result<(), LogError> {
        let shared = &self.shared;
        let _changing = shared.changing.lock();
        self.still_open()?;
        let topic = self
            .topic(name)
            .ok_or_else(|| LogError::NoTopic(name.into()))?;
        let folder = shared.folder.join(name);
        let gone = shared.folder.join(format!("gone{MARK}{}", Uuid::new_v4()));
        fs::rename(&folder, &gone)
            .and_then(|()| sync_parent(&folder))
            .map_err(LogError::files("remove", &folder))?;
        shared.topics.write().remove(name);
        let deleted = LogError::Deleted(name.into());
        for partition in topic.end(&deleted).iter() {
            partition.end(&deleted);
        }
        // From here on it does not exist; what is left of it is removed at the next start at last.
        if let Err(error) = fs::remove_dir_all(&gone) {
            warn!(folder = %gone.display(), %error, "files of a deleted topic not removed yet");
        }
        Ok(())
    }

    /// An id for an idempotent producer: one that was never given before, over crashes too.
    ///
    /// # Errors
    /// [`LogError::Files`] where it cannot be written down, [`LogError::Damaged`] where what was
    /// written down is not there any more, [`LogError::Closed`].
    pub fn producer_id(&self) -> Result<i64, LogError> {
        self.still_open()?;
        self.shared.producer_ids.next(|| {
            let topics = self.topics();
            let partitions = topics.iter().flat_map(|t| t.partitions().to_vec());
            partitions
                .filter_map(|p| {
                    // A client can claim any id; one that high was never given.
                    let state = p.state.lock();
                    state.producers.ids().filter(|id| *id < i64::MAX / 2).max()
                })
                .max()
                .map_or(0, |highest| highest + 1)
        })
    }

    /// Drops what is older than each topic's retention at `now_ms`, or beyond its size. The commit
    /// thread does so by itself from time to time.
    pub fn retain(&self, now_ms: i64) {
        self.shared.retain(now_ms);
    }

    /// Cleans all compacted topics now, as if it were `now_ms`, as far as there is anything to clean.
    /// A thread does so by itself where much is to be won. Returns when it is done.
    pub fn clean(&self, now_ms: i64) {
        self.shared.clean(now_ms, true, &mut BTreeMap::new());
    }

    /// Commits what waits, writes snapshots and ends all appending. Repeating it does nothing.
    pub fn close(&self) {
        let Some(committer) = self.committer.lock().take() else {
            return;
        };
        {
            let _resting = self.shared.rest.0.lock();
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.shared.rest.1.notify_all();
        let cleaner = self.cleaner.lock().take();
        if cleaner.is_some_and(|cleaner| cleaner.join().is_err()) {
            error!("the cleaning thread of the log ended in a panic");
        }
        self.shared.queue.stop();
        if committer.join().is_err() {
            error!("the commit thread of the log ended in a panic");
        }
        for topic in self.topics() {
            for partition in topic.end(&LogError::Closed).iter() {
                partition.close();
            }
        }
    }

    fn still_open(&self) -> Result<(), LogError> {
        match *self.committer.lock() {
            Some(_) => Ok(()),
            None => Err(LogError::Closed),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn open_topics(&self) -> Result<(), LogError> {
        let folder = &self.folder;
        for entry in fs::read_dir(folder).map_err(LogError::files("list", folder))? {
            let path = entry.map_err(LogError::files("list", folder))?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
                continue;
            };
            if name.starts_with(&format!("new{MARK}")) || name.starts_with(&format!("gone{MARK}")) {
                fs::remove_dir_all(&path).map_err(LogError::files("remove", &path))?;
            } else if path.is_dir() && valid_name(name).is_ok() {
                let topic = Topic::open(name, path.clone(), self)?;
                self.topics.write().insert(name.into(), Arc::new(topic));
            }
        }
        Ok(())
    }

    /// What the commit thread runs.
    fn commit(&self) {
        let mut housekeeping_at = after(self.options.housekeeping);
        loop {
            match self.queue.turn(housekeeping_at) {
                Turn::Commit(dirty) => {
                    for (topic, partition) in dirty {
                        let topic = self.topics.read().get(&*topic).cloned();
                        if let Some(partition) = topic.and_then(|t| t.partition(partition)) {
                            partition.commit();
                        }
                    }
                }
                Turn::Housekeeping => {
                    self.retain((self.options.clock)());
                    housekeeping_at = after(self.options.housekeeping);
                }
                Turn::Stop => return,
            }
        }
    }

    /// What the cleaning thread runs.
    fn keep_clean(&self) {
        let mut failed = BTreeMap::new();
        loop {
            {
                let mut rest = self.rest.0.lock();
                let until = after(self.options.cleaning);
                while !self.stop.load(Ordering::Relaxed) && Instant::now() < until {
                    self.rest.1.wait_until(&mut rest, until);
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.clean((self.options.clock)(), false, &mut failed);
        }
    }

    /// Cleans all partitions but those that `failed` lately.
    fn clean(&self, now_ms: i64, all: bool, failed: &mut BTreeMap<(Uuid, i32), Instant>) {
        failed.retain(|_, at| at.elapsed() < CLEAN_AGAIN_AFTER);
        let cleaning = Cleaning {
            now_ms,
            all,
            map_bytes: self.options.clean_map_bytes,
            stop: &self.stop,
        };
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        for topic in topics {
            for partition in topic.partitions().iter() {
                let id = (topic.id(), partition.id());
                if self.stop.load(Ordering::Relaxed) || failed.contains_key(&id) {
                    continue;
                }
                match partition.clean(&cleaning) {
                    Ok(()) | Err(LogError::Closed | LogError::Deleted(_)) => {}
                    Err(error) => {
                        let partition = partition.id();
                        warn!(topic = topic.name(), partition, %error, "not cleaned");
                        failed.insert(id, Instant::now());
                    }
                }
            }
        }
    }

    fn retain(&self, now_ms: i64) {
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        for topic in topics {
            for partition in topic.partitions().iter() {
                partition.retain(now_ms);
            }
        }
    }
}

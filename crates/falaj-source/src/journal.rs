//! What became of requests that came with a key, for a day. Everything here blocks.
//!
//! Always: a try to publish stands here, on the disk, before its first record is published; so after
//! a crash it is known which positions it may have used, and the topic tells which of them it has.
//! Always: keys and bodies stand here as keyed hashes only.
//! Absent on purpose: syncing answers to the disk. One that a power cut takes is worked out again
//! from what the topic holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::source::{Earlier, Held};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_hours(24);
/// How often old keys are dropped.
const SWEEP_EVERY_MS: i64 = 60_000;
/// Longest wait for the file while somebody looks into it.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// A key or a body, hashed with a key of the pipeline.
pub(crate) type Hash = [u8; 16];

/// The journal's file, open.
pub(crate) struct Journal {
    connection: Connection,
    swept_ms: i64,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// All its records are on the topic; the answer, as JSON.
    Answered(String),
    /// A try was interrupted.
    Begun {
        /// Hash of the body that was tried.
        body: Hash,
        /// Position of its first record then, modulo the topic's partitions.
        residue: u64,
        /// What is on the topic.
        done: Done,
    },
}

/// What interrupted tries left on the topic, by the place of a record in its request (0 is the
/// first).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// For each partition of the topic: records up to this place are on it.
    records: BTreeMap<i32, u64>,
    /// Rejects up to this place are written.
    rejected: Option<u64>,
}

impl Done {
    /// Adds what the topic holds of the positions `first` and following.
    fn add(&mut self, held: &Held, first: u64, count: u64) {
        let place = |highest: u64| {
            let place = highest.checked_sub(first)?;
            (count > 0).then(|| place.min(count - 1))
        };
        for (partition, highest) in &held.records {
            if let Some(place) = place(*highest) {
                let known = self.records.entry(*partition).or_default();
                *known = (*known).max(place);
            }
        }
        self.rejected = self.rejected.max(held.rejected.and_then(place));
    }

    /// In positions of a try that begins at `first`.
    pub(crate) fn from(&self, first: u64) -> Earlier {
        Earlier {
            held: self
                .records
                .iter()
                .map(|(partition, place)| (*partition, first + place))
                .collect(),
            rejected: self.rejected.map(|place| first + place),
        }
    }
}

/// A try to publish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    pub key: Hash,
    pub body: Hash,
    pub count: u64,
    /// Position of the first record.
    pub first: u64,
    pub residue: u64,
}

impl Journal {
    /// Opens the file, which is made with its folder where it is not there.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        if let Some(folder) = path.parent() {
            // Where this fails, opening says why.
            let _ = fs::create_dir_all(folder);
        }
        let connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_WAIT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS keys (
                 key BLOB PRIMARY KEY, body BLOB NOT NULL, at_ms INTEGER NOT NULL,
                 count INTEGER NOT NULL, residue INTEGER NOT NULL,
                 -- Of the try that is going on, or that the process died in.
                 first INTEGER,
                 -- What was found on the topic of earlier tries.
                 done TEXT NOT NULL,
                 answer TEXT
             ) WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS keys_at ON keys (at_ms);
             CREATE INDEX IF NOT EXISTS keys_open ON keys (first) WHERE first IS NOT NULL;",
        )?;
        Ok(Self {
            connection,
            swept_ms: i64::MIN,
        })
    }

    /// Writes down what the topic holds of the tries that the process died in. To be called at the
    /// start, before anything is published: a process publishes one request at a time.
    pub(crate) fn settle(&mut self, held: &Held) -> rusqlite::Result<()> {
        durable(&self.connection, true)?;
        let transaction = self.connection.transaction()?;
        let open: Vec<(Vec<u8>, i64, i64, String)> = transaction
            .prepare("SELECT key, first, count, done FROM keys WHERE first IS NOT NULL")?
            .query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for (key, first, count, done) in open {
            let mut done: Done = parsed(&done)?;
            done.add(held, first.cast_unsigned(), count.cast_unsigned());
            transaction.execute(
                "UPDATE keys SET first = NULL, done = ?2 WHERE key = ?1",
                params![key, json(&done)],
            )?;
        }
        transaction.commit()
    }

    /// What is known of a key; nothing where it is older than a day.
    pub(crate) fn find(&self, key: &Hash, now_ms: i64) -> rusqlite::Result<Option<Entry>> {
        let found: Option<(Option<String>, Hash, i64, String)> = self
            .connection
            .prepare_cached(
                "SELECT answer, body, residue, done FROM keys WHERE key = ?1 AND at_ms > ?2",
            )?
            .query_row(params![key, oldest_ms(now_ms)], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        Ok(match found {
            None => None,
            Some((Some(answer), ..)) => Some(Entry::Answered(answer)),
            Some((None, body, residue, done)) => Some(Entry::Begun {
                body,
                residue: residue.cast_unsigned(),
                done: parsed(&done)?,
            }),
        })
    }

    /// Notes a try before it is published; it is on the disk then. What earlier tries of the key
    /// left stays known.
    pub(crate) fn begin(&mut self, tried: &Try, now_ms: i64) -> rusqlite::Result<()> {
        if now_ms.saturating_sub(self.swept_ms) >= SWEEP_EVERY_MS {
            let old = "DELETE FROM keys WHERE at_ms <= ?1";
            self.connection.execute(old, [oldest_ms(now_ms)])?;
            self.swept_ms = now_ms;
        }
        // One that is too old to be known begins anew.
        self.connection
            .prepare_cached("DELETE FROM keys WHERE key = ?1 AND at_ms <= ?2")?
            .execute(params![tried.key, oldest_ms(now_ms)])?;
        durable(&self.connection, true)?;
        self.connection
            .prepare_cached(
                "INSERT INTO keys (key, body, at_ms, count, residue, first, done)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (key) DO UPDATE SET at_ms = ?3, first = ?6",
            )?
            .execute(params![
                tried.key,
                tried.body,
                now_ms,
                tried.count.cast_signed(),
                tried.residue.cast_signed(),
                tried.first.cast_signed(),
                json(&Done::default()),
            ])?;
        Ok(())
    }

    /// Notes the answer: all records of the key are on the topic.
    pub(crate) fn end(&mut self, key: &Hash, answer: &str, now_ms: i64) -> rusqlite::Result<()> {
        durable(&self.connection, false)?;
        self.connection
            .prepare_cached("UPDATE keys SET answer = ?2, at_ms = ?3, first = NULL WHERE key = ?1")?
            .execute(params![key, answer, now_ms])?;
        Ok(())
    }
}

/// Whether the next writes are on the disk when they return, or with the operating system.
fn durable(connection: &Connection, durable: bool) -> rusqlite::Result<()> {
    let level = if durable { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", level)
}

fn oldest_ms(now_ms: i64) -> i64 {
    now_ms.saturating_sub(i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX))
}

fn json(done: &Done) -> String {
    serde_json::to_string(done).expect("numbers are always JSON")
}

fn parsed(done: &str) -> rusqlite::Result<Done> {
    serde_json::from_str(done).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 3_600_000;

    fn tried(key: u8, count: u64, first: u64) -> Try {
        Try {
            key: [key; 16],
            body: [9; 16],
            count,
            first,
            residue: first % 4,
        }
    }

    fn held(records: &[(i32, u64)], rejected: Option<u64>) -> Held {
        Held {
            records: records.iter().copied().collect(),
            rejected,
        }
    }

    fn earlier(journal: &Journal, key: u8, first: u64) -> Earlier {
        match journal.find(&[key; 16], 0) {
            Ok(Some(Entry::Begun { done, .. })) => done.from(first),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_interrupted_try_is_known_with_what_the_topic_holds_of_it_and_each_further_one_adds() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("deep/keys.sqlite");
        let mut journal = Journal::open(&path).expect("opens");
        journal.begin(&tried(1, 10, 101), 0).expect("begins");
        drop(journal);

        // 101..=104 on partition 0, 101..=107 on partition 2; partition 3 has older records only.
        let mut journal = Journal::open(&path).expect("opens");
        let topic = held(&[(0, 104), (2, 107), (3, 99)], Some(105));
        journal.settle(&topic).expect("settles");
        let want = Earlier {
            held: [(0, 203), (2, 206)].into(),
            rejected: Some(204),
        };
        assert_eq!(earlier(&journal, 1, 200), want);
        // What comes later on the topic is of other requests.
        let later = held(&[(0, 500), (1, 500), (2, 500)], Some(500));
        journal.settle(&later).expect("settles");
        assert_eq!(earlier(&journal, 1, 200), want);

        // Died again in the second try, which got farther on partition 1 and nowhere else.
        journal.begin(&tried(1, 10, 201), 0).expect("begins");
        drop(journal);
        let mut journal = Journal::open(&path).expect("opens");
        let topic = held(&[(0, 104), (1, 999), (2, 107)], None);
        journal.settle(&topic).expect("settles");
        let want = Earlier {
            held: [(0, 303), (1, 309), (2, 306)].into(),
            rejected: Some(304),
        };
        assert_eq!(earlier(&journal, 1, 300), want);

        let found = journal.find(&[1; 16], 0).expect("finds");
        assert!(
            matches!(found, Some(Entry::Begun { residue: 1, body, .. }) if body == [9; 16]),
            "{found:?}"
        );
    }

    #[test]
    fn an_answer_is_kept_for_a_day_over_restarts() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys.sqlite");
        let mut journal = Journal::open(&path).expect("opens");
        journal.begin(&tried(1, 1, 1), 0).expect("begins");
        journal.end(&[1; 16], "{}", 5).expect("ends");
        drop(journal);
        let mut journal = Journal::open(&path).expect("opens");
        journal
            .settle(&held(&[(0, 1)], None))
            .expect("nothing is open");
        let answer = Some(Entry::Answered("{}".into()));
        assert_eq!(journal.find(&[1; 16], DAY_MS).expect("finds"), answer);
        assert_eq!(journal.find(&[2; 16], 0).expect("finds"), None);
        assert_eq!(journal.find(&[1; 16], DAY_MS + 5).expect("finds"), None);
        // Old ones go, and a key may come again.
        journal.begin(&tried(2, 1, 2), DAY_MS + 5).expect("begins");
        let count = |journal: &Journal| -> i64 {
            let sql = "SELECT count(*) FROM keys";
            let counted = journal.connection.query_row(sql, [], |row| row.get(0));
            counted.expect("counts")
        };
        assert_eq!(count(&journal), 1);
        journal.begin(&tried(1, 1, 3), DAY_MS + 6).expect("begins");
        assert_eq!(count(&journal), 2);
        // Too old by a little, and not swept yet.
        let late = 2 * DAY_MS + 6;
        journal.end(&[2; 16], "{}", DAY_MS + 6).expect("ends");
        assert_eq!(journal.find(&[2; 16], late).expect("finds"), None);
        journal.swept_ms = late;
        journal.begin(&tried(2, 1, 4), late).expect("begins");
        let begun = journal.find(&[2; 16], late).expect("finds");
        assert!(matches!(begun, Some(Entry::Begun { .. })), "{begun:?}");
    }
}

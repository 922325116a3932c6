//! Rows on their way: into `update` commands, unordered, each row an upsert that its version guards.
//!
//! Always: a row is written where the key is absent or has no larger version. Where it has one, the
//! upsert finds nothing to update and fails to insert: the duplicate key says that a newer row may
//! be there, and a look at its version says whether it is. So a race that is lost is no error, and
//! one that two writers of an absent key run is won by the larger version.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::Array;
use falaj_record::{PID, Reason, ViewUpdate};
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, DateTime, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use tokio::task::JoinSet;

use super::cells::Cells;
use super::fault::{DUPLICATE_KEY, refusal};
use super::server::{Server, documents, int};
use super::tables::{Table, VERSION, millis};
use crate::{Refused, SinkError, Written};

/// Largest document, as every version of MongoDB has it.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Largest command: a document, its filter, and what stands around them.
const COMMAND_BYTES_MAX: usize = (16 << 20) + (16 << 10);
/// What stands around the rows of a command: its name, the concern, the driver's session.
const COMMAND_BYTES_AROUND: usize = 2 << 10;
/// What stands around a row: its index in the list.
const ROW_BYTES_AROUND: usize = 16;
/// Rows of a command. A majority confirms each command, so larger ones gain little, and smaller
/// ones get through to a slow server within the time that it may take to answer.
const COMMAND_ROWS_MAX: usize = 1000;
/// Commands under way at once.
const COMMANDS_MAX: usize = 4;
/// Times that a race for a row is run again: after the first the row is there, unless somebody
/// removes it in the same instant.
const RACES_MAX: usize = 8;
/// How long an erased person's pid is remembered: an older write that is still under way comes
/// sooner.
const ERASED_US: i64 = 3_600_000_000;

/// People who were erased a moment ago.
#[derive(Debug, Default)]
pub(super) struct Erased {
    /// By pid, the newest version that must not bring them back.
    until: HashMap<String, i64>,
    /// The newest version written so far.
    newest: i64,
}

impl Erased {
    /// Somebody is erased now.
    pub(super) fn add(&mut self, pid: &str, now_us: i64) {
        self.until
            .retain(|_, version| *version > now_us - ERASED_US);
        self.until.insert(pid.to_owned(), now_us.max(self.newest));
    }

    fn has(&self, pid: &str, version: i64) -> bool {
        self.until.get(pid).is_some_and(|until| version <= *until)
    }
}

/// Makes rows durable.
pub(super) async fn write(
    server: &Arc<Server>,
    tables: &HashMap<String, Table>,
    updates: &[ViewUpdate],
    erased: &mut Erased,
    now_us: i64,
) -> Result<Written, SinkError> {
    let batches = batches(tables, updates)?;
    let newest = updates.iter().map(|update| update.version).max();
    erased.newest = erased.newest.max(newest.unwrap_or(i64::MIN));
    let mut written = Written::default();
    let mut sending = Sending::new(server);
    for (view, rows) in newest_rows(&batches) {
        let mut chunk = Chunk::new(view);
        for (at, row) in rows {
            let batch = &batches[at];
            if batch.is_over(now_us) || batch.is_erased(row, erased) {
                continue;
            }
            match batch.upsert(at, row, now_us) {
                Err(reason) => written
                    .refused
                    .push(Refused::of(batch.update, row, reason, None)),
                Ok(upsert) => {
                    if !chunk.fits(&upsert) {
                        sending
                            .send(std::mem::replace(&mut chunk, Chunk::new(view)))
                            .await;
                    }
                    chunk.push(upsert);
                }
            }
        }
        sending.send(chunk).await;
    }
    for ((at, row), reason) in sending.finish().await? {
        written
            .refused
            .push(Refused::of(batches[at].update, row, reason, None));
    }
    Ok(written)
}

/// An update with its columns, as the view's collection takes them.
struct Batch<'a> {
    update: &'a ViewUpdate,
    table: &'a Table,
    cells: Vec<Cells<'a>>,
    /// Index of the column `pid`.
    pid: Option<usize>,
}

fn batches<'a>(
    tables: &'a HashMap<String, Table>,
    updates: &'a [ViewUpdate],
) -> Result<Vec<Batch<'a>>, SinkError> {
    let batch = |update: &'a ViewUpdate| {
        let view = &update.view.name;
        let table = tables.get(view);
        let table = table.ok_or_else(|| SinkError::UnknownView { view: view.clone() })?;
        Ok(Batch {
            update,
            table,
            cells: table.cells(update)?,
            pid: table
                .view
                .columns
                .iter()
                .position(|column| column.name == PID),
        })
    };
    updates.iter().map(batch).collect()
}

/// Where a row is: index of its update, and of the row in it.
type Spot = (usize, usize);

/// Of each view, the newest row of each key, in the order of the keys: neighbours share pages.
fn newest_rows<'a>(batches: &[Batch<'a>]) -> Vec<(&'a str, Vec<Spot>)> {
    let mut views: BTreeMap<&str, HashMap<&str, Spot>> = BTreeMap::new();
    for (at, batch) in batches.iter().enumerate() {
        let rows = views.entry(&batch.update.view.name).or_default();
        for row in 0..batch.update.keys.len() {
            let spot = rows
                .entry(batch.update.keys.value(row))
                .or_insert((at, row));
            if batches[spot.0].update.version <= batch.update.version {
                *spot = (at, row);
            }
        }
    }
    let sorted = views.into_iter().map(|(view, rows)| {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        (view, rows.into_iter().map(|(_, spot)| spot).collect())
    });
    sorted.collect()
}

impl Batch<'_> {
    /// Whether the retention of these rows is over already.
    fn is_over(&self, now_us: i64) -> bool {
        self.expires_ms(now_us)
            .is_some_and(|ms| ms <= now_us / 1000)
    }

    /// Versions may be ahead of the clock; nothing is kept for longer because of that.
    fn expires_ms(&self, now_us: i64) -> Option<i64> {
        let kept = millis(self.table.kept?);
        let version = self.update.version.min(now_us);
        let written = version.div_euclid(1000) + i64::from(version.rem_euclid(1000) > 0);
        Some(written.saturating_add(kept))
    }

    fn is_erased(&self, row: usize, erased: &Erased) -> bool {
        if erased.until.is_empty() {
            return false;
        }
        let version = self.update.version;
        let pid = self.pid.and_then(|column| self.cells[column].text(row));
        erased.has(self.update.keys.value(row), version)
            || pid.is_some_and(|pid| erased.has(pid, version))
    }

    /// A row as an upsert, or why no store of this kind takes it.
    fn upsert(&self, at: usize, row: usize, now_us: i64) -> Result<Upsert, Reason> {
        let (key, version) = (self.update.keys.value(row), self.update.version);
        let mut document = RawDocumentBuf::new();
        let mut micros = RawDocumentBuf::new();
        for (name, cells) in self.table.names.iter().zip(&self.cells) {
            cells.append(&mut document, name, row);
            if let Some(rest) = cells.micros(row) {
                micros.append(name, rest);
            }
        }
        if !micros.is_empty() {
            document.append(cstr!("_micros"), micros);
        }
        document.append(cstr!("_key"), key);
        document.append(cstr!("_version"), version);
        if let Some(ms) = self.expires_ms(now_us) {
            document.append(cstr!("_expires"), DateTime::from_millis(ms));
        }
        // The server adds `_id`, with its type, name, length and zero.
        let stored = document.as_bytes().len() + key.len() + 10;
        let operation = rawdoc! {
            "q": { "_id": key, "_version": { "$not": { "$gt": version } } },
            "u": document,
            "upsert": true,
        };
        let sent = operation.as_bytes().len() + ROW_BYTES_AROUND + COMMAND_BYTES_AROUND;
        if stored > DOCUMENT_BYTES_MAX || sent > COMMAND_BYTES_MAX {
            return Err(Reason::TooLargeForStore);
        }
        Ok(Upsert {
            operation,
            key: key.to_owned(),
            version,
            spot: (at, row),
        })
    }
}

/// A row on its way.
struct Upsert {
    operation: RawDocumentBuf,
    key: String,
    version: i64,
    spot: Spot,
}

impl Upsert {
    /// Whether a newer row is there; an older one, or none by now, is to be written over.
    fn is_overtaken(&self, rivals: &HashMap<String, i64>) -> bool {
        let rival = rivals.get(&self.key);
        rival.is_some_and(|version| *version >= self.version)
    }
}

/// Rows of one view that go out together.
struct Chunk {
    view: String,
    upserts: Vec<Upsert>,
    bytes: usize,
}

impl Chunk {
    fn new(view: &str) -> Self {
        Self {
            view: view.to_owned(),
            upserts: Vec::new(),
            bytes: COMMAND_BYTES_AROUND + view.len(),
        }
    }

    fn fits(&self, upsert: &Upsert) -> bool {
        let bytes = self.bytes + upsert.operation.as_bytes().len() + ROW_BYTES_AROUND;
        self.upserts.is_empty()
            || (self.upserts.len() < COMMAND_ROWS_MAX && bytes <= COMMAND_BYTES_MAX)
    }

    fn push(&mut self, upsert: Upsert) {
        self.bytes += upsert.operation.as_bytes().len() + ROW_BYTES_AROUND;
        self.upserts.push(upsert);
    }

    fn command(&self, server: &Server) -> Result<RawDocumentBuf, SinkError> {
        let operations: RawArrayBuf = self.upserts.iter().map(|u| &u.operation).collect();
        let concern = RawDocumentBuf::try_from(&server.write_concern());
        Ok(rawdoc! {
            "update": self.view.as_str(),
            "updates": operations,
            "ordered": false,
            "writeConcern": concern.map_err(|_| server.strange())?,
        })
    }
}

/// Rows that were refused, and why.
type Refusals = Vec<(Spot, Reason)>;

/// Commands under way.
struct Sending<'a> {
    server: &'a Arc<Server>,
    tasks: JoinSet<Result<Refusals, SinkError>>,
    refused: Refusals,
    error: Option<SinkError>,
}

impl<'a> Sending<'a> {
    fn new(server: &'a Arc<Server>) -> Self {
        Self {
            server,
            tasks: JoinSet::new(),
            refused: Vec::new(),
            error: None,
        }
    }

    /// Sends a chunk as soon as not too many are under way. After an error nothing more is sent.
    async fn send(&mut self, chunk: Chunk) {
        while self.tasks.len() >= COMMANDS_MAX {
            self.one_ended().await;
        }
        if self.error.is_none() && !chunk.upserts.is_empty() {
            let server = Arc::clone(self.server);
            self.tasks.spawn(async move { send(&server, chunk).await });
        }
    }

    /// Waits for all of them, after an error, too: what is still under way when a write is over
    /// would come in the middle of the next.
    async fn finish(mut self) -> Result<Refusals, SinkError> {
        while !self.tasks.is_empty() {
            self.one_ended().await;
        }
        self.refused.sort_unstable_by_key(|(spot, _)| *spot);
        self.error.map_or(Ok(self.refused), Err)
    }

    async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(Ok(refused))) => self.refused.extend(refused),
            Some(Ok(Err(error))) => {
                self.error.get_or_insert(error);
            }
            Some(Err(_)) => {
                let sink = super::NAME.into();
                self.error.get_or_insert(SinkError::Closed { sink });
            }
            None => {}
        }
    }
}

/// Sends a chunk, and again the rows of it whose race is not decided.
async fn send(server: &Server, mut chunk: Chunk) -> Result<Refusals, SinkError> {
    let what = format!("write the collection `{}`", chunk.view);
    let mut refused = Vec::new();
    for _ in 0..RACES_MAX {
        let reply = match server.run(&chunk.command(server)?, &what).await {
            Ok(reply) => reply,
            // The command as a whole is refused for the one row in it.
            Err(fault) => match (&chunk.upserts[..], refusal(fault.code)) {
                ([row], Some(reason)) => return Ok(vec![(row.spot, reason)]),
                _ => return Err(fault.error),
            },
        };
        let mut raced = Vec::new();
        for error in documents(&reply, "writeErrors") {
            let index = usize::try_from(int(error, "index")).unwrap_or(usize::MAX);
            let row = chunk.upserts.get(index).ok_or_else(|| server.strange())?;
            match judge(error) {
                Verdict::Raced => raced.push(index),
                Verdict::Refused(reason) => refused.push((row.spot, reason)),
                Verdict::Store(code) => {
                    let name = error.get_str("codeName").unwrap_or_default();
                    return Err(server.coded(code, name, &what));
                }
            }
        }
        if raced.is_empty() {
            return Ok(refused);
        }
        keep(&mut chunk.upserts, &raced);
        let rivals = rivals(server, &chunk).await?;
        chunk.upserts.retain(|row| !row.is_overtaken(&rivals));
        if chunk.upserts.is_empty() {
            return Ok(refused);
        }
    }
    Err(SinkError::Store {
        store: server.store.clone(),
        cause: "somebody else writes and removes the same rows again and again".into(),
    })
}

/// What a row's error means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The key was there; with which version, is to be seen.
    Raced,
    /// The row's fault.
    Refused(Reason),
    /// The store's, by its code.
    Store(i32),
}

fn judge(error: &Document) -> Verdict {
    let code = int(error, "code");
    if code == DUPLICATE_KEY {
        let index = error.get_document("keyPattern").ok();
        // Somebody gave the collection a unique index of their own.
        return if index.is_some_and(|keys| !keys.contains_key("_id")) {
            Verdict::Refused(Reason::RefusedByStore)
        } else {
            Verdict::Raced
        };
    }
    refusal(code).map_or(Verdict::Store(code), Verdict::Refused)
}

/// Leaves the upserts at these indexes.
fn keep(upserts: &mut Vec<Upsert>, indexes: &[usize]) {
    let mut index = 0;
    upserts.retain(|_| {
        index += 1;
        indexes.contains(&(index - 1))
    });
}

/// Versions of the rows that are there instead.
async fn rivals(server: &Server, chunk: &Chunk) -> Result<HashMap<String, i64>, SinkError> {
    let keys: Vec<_> = chunk.upserts.iter().map(|row| row.key.as_str()).collect();
    let count = i32::try_from(keys.len()).unwrap_or(i32::MAX);
    let command = doc! {
        "find": &chunk.view,
        "filter": { "_id": { "$in": keys } },
        "projection": { VERSION: 1 },
        "batchSize": count,
    };
    let what = format!("read the collection `{}`", chunk.view);
    let found = server.find(command, &what).await?;
    let each = found.into_iter().filter_map(|document| {
        let version = document.get_i64(VERSION).ok()?;
        let Some(Bson::String(key)) = document.get("_id") else {
            return None;
        };
        Some((key.clone(), version))
    });
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_lost_only_for_a_fault_of_its_own() {
        let judged = |error: Document| judge(&error);
        let other = doc! { "code": 11_000, "keyPattern": { "nat": 1 } };
        assert_eq!(judged(other), Verdict::Refused(Reason::RefusedByStore));
        for raced in [
            doc! { "code": 11_000 },
            doc! { "code": 11_000, "keyPattern": { "_id": 1 } },
        ] {
            assert_eq!(judged(raced), Verdict::Raced);
        }
        let too_large = Verdict::Refused(Reason::TooLargeForStore);
        assert_eq!(judged(doc! { "code": 10_334_i64 }), too_large);
        assert_eq!(
            judged(doc! { "code": 121.0 }),
            Verdict::Refused(Reason::RefusedByStore)
        );
        for code in [8000, 50, 112, 13] {
            assert_eq!(judged(doc! { "code": code }), Verdict::Store(code));
        }
    }

    #[test]
    fn a_race_is_lost_to_a_newer_row_and_to_no_other() {
        let upsert = |key: &str| Upsert {
            operation: RawDocumentBuf::new(),
            key: key.to_owned(),
            version: 5,
            spot: (0, 0),
        };
        let rivals = [("older", 4), ("same", 5), ("newer", 6)];
        let rivals = HashMap::from(rivals.map(|(key, version)| (key.to_owned(), version)));
        let mut upserts: Vec<_> = ["fine", "older", "same", "newer", "gone"]
            .map(upsert)
            .into();
        keep(&mut upserts, &[1, 2, 3, 4]);
        upserts.retain(|row| !row.is_overtaken(&rivals));
        let keys: Vec<_> = upserts.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["older", "gone"]);
    }

    #[test]
    fn an_erased_person_is_remembered_for_an_hour() {
        let mut erased = Erased {
            newest: 1_000,
            ..Erased::default()
        };
        erased.add("p1", 900);
        assert!(erased.has("p1", 1_000) && !erased.has("p1", 1_001) && !erased.has("p2", 1));
        erased.add("p2", 900 + ERASED_US);
        assert!(erased.has("p1", 1_000), "newer than an hour ago");
        erased.add("p3", 1_000 + ERASED_US);
        assert!(!erased.has("p1", 1_000));
        assert!(erased.has("p3", 1_000));
    }
}

//! Rows on their way: which go together, how many are under way, what is tried again.
//!
//! Always: of a key's rows in one call only the newest goes out; and since each is written at its
//! version's time, rows may overtake each other.
//! Always: rows that go together are of one partition, so they are one write to its replicas.
//! Always: a row that Cassandra refuses is told for itself; the rows it went with go out alone.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use falaj_record::{Reason, ViewUpdate};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hashbrown::{HashMap, HashSet};
use scylla::errors::ExecutionError;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use tokio::time::Instant;

use super::WriteStats;
use super::cells::Cells;
use super::connect::Connection;
use super::failure::Failure;
use super::pace::Pace;
use super::schema::Table;
use super::table::declared;
use crate::{Refused, SinkError, Written, check_shape, length, now_us};

/// Rows that go together at most, and about how many bytes of values: Cassandra warns of batches
/// beyond 5 KiB and refuses those beyond 50 KiB, but for those of one partition, which are one
/// write; theirs is bounded so that no write is long.
const BATCH_ROWS_MAX: usize = 100;
const BATCH_BYTES_MAX: u64 = 48 << 10;
/// Longest text in a key.
const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Cassandra's longest time to live: 20 years.
const TTL_MAX_S: i64 = 20 * 365 * 86_400;
/// Rows that may be refused one by one while none is taken: beyond it, it is a rule that all break.
const INVALID_MAX: usize = 1000;
/// Keys that are remembered to be none; beyond it all are told again.
const TOLD_MAX: usize = 4096;
/// Waits after failures in a row: the first, and the longest.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_LONGEST: Duration = Duration::from_secs(1);

/// Writes updates to the tables of one connection.
pub(super) struct Writer<'a> {
    pub connection: &'a Connection,
    pub pace: &'a mut Pace,
    pub stats: &'a mut WriteStats,
    pub told: &'a mut Told,
    /// The last moment at which a row may expire, in seconds since 1970.
    pub expiry_max_s: i64,
}

/// Keys that were told to be none: a group whose row changes again and again is one reject.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Hashes of view, key and reason. Two that are the same by chance cost a reject, and no row.
    hashes: HashSet<u64>,
    hasher: RandomState,
}

impl Told {
    fn hash(&self, key: &str, refused: &Refused) -> u64 {
        let Refused { view, reason, .. } = refused;
        self.hasher.hash_one((view, key, reason))
    }

    /// Leaves what was not told, and remembers it.
    fn news(&mut self, keyless: Vec<(u64, Refused)>) -> impl Iterator<Item = Refused> {
        keyless.into_iter().filter_map(|(hash, refused)| {
            if self.hashes.len() >= TOLD_MAX {
                self.hashes.clear();
            }
            self.hashes.insert(hash).then_some(refused)
        })
    }
}

/// The rows of an update, their columns looked at once.
pub(super) struct Portion<'a> {
    table: &'a Table,
    update: &'a ViewUpdate,
    /// As [`super::table::Layout::columns`].
    cells: Vec<Cells<'a>>,
}

/// A row of a portion.
#[derive(Clone, Copy)]
struct RowRef<'a> {
    portion: &'a Portion<'a>,
    row: usize,
}

/// Rows of one partition.
type Unit<'a> = Vec<RowRef<'a>>;

/// What happened to a unit.
struct Outcome<'a> {
    unit: Unit<'a>,
    result: Result<(), ExecutionError>,
    took: Duration,
}

impl<'a> Portion<'a> {
    /// # Errors
    /// Where the update has other columns than the view had when it was prepared.
    pub(super) fn of(table: &'a Table, update: &'a ViewUpdate) -> Result<Self, SinkError> {
        check_shape(&table.view, update, declared)?;
        let shape = || SinkError::shape(&table.view);
        let sources = table.layout.columns.iter().map(|column| column.source);
        let cells = sources.map(|source| Cells::of(update, source).ok_or_else(shape));
        Ok(Self {
            table,
            update,
            cells: cells.collect::<Result<_, _>>()?,
        })
    }
}

impl<'a> RowRef<'a> {
    fn key(self) -> &'a str {
        self.portion.update.keys.value(self.row)
    }

    fn refused(self, reason: Reason, column: Option<&str>) -> Refused {
        Refused::of(self.portion.update, self.row, reason, column)
    }

    /// About as many bytes as its values have.
    fn length(self) -> u64 {
        let columns = self.portion.update.rows.columns().iter();
        columns.map(|column| length(column, self.row)).sum()
    }

    /// Microseconds that it is kept from now on, none of them where its time is over; nothing where it
    /// is kept for ever.
    fn left_us(self, now_us: i64) -> Option<i64> {
        let kept = self.portion.table.kept?;
        let kept_us = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let ends_us = self.portion.update.version.saturating_add(kept_us);
        // A version may be ahead of the clock; nothing is kept for longer because of that.
        Some(ends_us.saturating_sub(now_us).clamp(0, kept_us))
    }

    /// As whole seconds: what expires while it waits is gone a second later.
    fn ttl_s(self, now_us: i64, expiry_max_s: i64) -> Option<i32> {
        let left_us = self.left_us(now_us)?;
        let whole = left_us / 1_000_000 + i64::from(left_us % 1_000_000 > 0);
        let ttl = whole
            .min(TTL_MAX_S)
            .min(expiry_max_s.saturating_sub(now_us / 1_000_000))
            .max(1);
        Some(i32::try_from(ttl).unwrap_or(i32::MAX))
    }

    /// Why its key cannot be one, if so.
    fn key_fault(self) -> Option<Refused> {
        let layout = &self.portion.table.layout;
        let alone = layout.partition.len() == 1;
        for at in layout.key_columns() {
            let column = Some(layout.columns[at].name.as_str());
            let length = self.portion.cells[at].bytes(self.row, |bytes| bytes.map(<[u8]>::len));
            match length {
                None => return Some(self.refused(Reason::RefusedByStore, column)),
                Some(0) if alone && layout.partition[0] == at => {
                    return Some(self.refused(Reason::RefusedByStore, column));
                }
                Some(length) if length > KEY_BYTES_MAX => {
                    return Some(self.refused(Reason::TooLargeForStore, column));
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Bytes that tell its partition from the others of its table.
    fn partition(self) -> Vec<u8> {
        let mut partition = Vec::new();
        for &at in &self.portion.table.layout.partition {
            self.portion.cells[at].bytes(self.row, |bytes| {
                let bytes = bytes.unwrap_or_default();
                partition.extend_from_slice(&bytes.len().to_be_bytes());
                partition.extend_from_slice(bytes);
            });
        }
        partition
    }
}

/// The newest row of each key, sorted into what goes together, and the rows that cannot go, each
/// with what [`Told`] knows it by.
fn units<'a>(
    portions: &'a [Portion<'a>],
    told: &Told,
) -> (VecDeque<Unit<'a>>, Vec<(u64, Refused)>) {
    let now = now_us();
    let (mut units, mut keyless) = (VecDeque::<Unit<'a>>::new(), Vec::new());
    // The unit that a partition's next row goes to, and how many bytes it has.
    let mut open = HashMap::<(&str, Vec<u8>), (usize, u64)>::new();
    for row in newest(portions) {
        if row.left_us(now) == Some(0) {
            continue;
        }
        if let Some(fault) = row.key_fault() {
            keyless.push((told.hash(row.key(), &fault), fault));
            continue;
        }
        let table = row.portion.table;
        if table.layout.clustering.is_empty() {
            units.push_back(vec![row]);
            continue;
        }
        let length = row.length();
        let place = open
            .entry((&table.view.name, row.partition()))
            .or_insert((usize::MAX, 0));
        match units.get_mut(place.0) {
            Some(unit) if unit.len() < BATCH_ROWS_MAX && place.1 + length <= BATCH_BYTES_MAX => {
                unit.push(row);
                place.1 += length;
            }
            _ => {
                *place = (units.len(), length);
                units.push_back(vec![row]);
            }
        }
    }
    (units, keyless)
}

fn newest<'a>(portions: &'a [Portion<'a>]) -> Vec<RowRef<'a>> {
    let mut rows: Vec<RowRef<'a>> = Vec::new();
    let mut known = HashMap::<(&str, &str), usize>::new();
    let mut times = HashMap::<&str, usize>::new();
    for portion in portions {
        *times.entry(&portion.table.view.name).or_default() += 1;
    }
    for portion in portions {
        let view = portion.table.view.name.as_str();
        for row in 0..portion.update.rows.num_rows() {
            let row = RowRef { portion, row };
            // In one update each key occurs once.
            if times[view] == 1 {
                rows.push(row);
                continue;
            }
            let at = *known.entry((view, row.key())).or_insert(rows.len());
            match rows.get_mut(at) {
                Some(other) if other.portion.update.version <= portion.update.version => {
                    *other = row;
                }
                Some(_) => {}
                None => rows.push(row),
            }
        }
    }
    rows
}

impl Writer<'_> {
    pub(super) async fn write(&mut self, portions: &[Portion<'_>]) -> Result<Written, SinkError> {
        let (mut waiting, keyless) = units(portions, self.told);
        let mut refused = Vec::new();
        let (mut acknowledged, mut invalid) = (false, 0);
        let connection = self.connection;
        let mut under_way = FuturesUnordered::new();
        let mut checked = HashSet::<&str>::new();
        let mut failures = 0_u32;
        let mut resume_at = Instant::now();
        let patience = connection.access.timeout;
        let mut give_up_at = Instant::now() + patience;
        let mut last = None;
        loop {
            let now = Instant::now();
            while now >= resume_at
                && under_way.len() < self.pace.limit()
                && let Some(unit) = waiting.pop_front()
            {
                self.stats.requests += 1;
                under_way.push(send(connection, unit, self.expiry_max_s));
                self.stats.under_way_max = self.stats.under_way_max.max(under_way.len());
            }
            if waiting.is_empty() && under_way.is_empty() {
                // Not before: of a write that fails nobody is told anything.
                let mut all: Vec<_> = self.told.news(keyless).collect();
                all.append(&mut refused);
                return Ok(Written { refused: all });
            }
            let outcome = tokio::select! {
                Some(outcome) = under_way.next() => outcome,
                () = tokio::time::sleep_until(resume_at), if now < resume_at => continue,
                // As long as something is acknowledged it goes on, however slowly: writing all of
                // it again would be no faster.
                () = tokio::time::sleep_until(give_up_at) => {
                    let of = connection.access.doing("write");
                    return Err(last.unwrap_or_else(|| of.no_answer(patience)));
                }
            };
            let Outcome { unit, result, took } = outcome;
            let error = match result {
                Ok(()) => {
                    self.stats.rows += unit.len() as u64;
                    self.pace.answered(took);
                    failures = 0;
                    acknowledged = true;
                    give_up_at = Instant::now() + patience;
                    continue;
                }
                Err(error) => error,
            };
            let table = unit[0].portion.table;
            let what = format!("write the table `{}`", table.view.name);
            let passing = match connection.access.doing(&what).write(&error) {
                Failure::Fatal(error) => return Err(error),
                Failure::Row(_) | Failure::Invalid(_) if unit.len() > 1 => {
                    waiting.extend(unit.into_iter().map(|row| vec![row]));
                    continue;
                }
                Failure::Row(reason) => {
                    refused.push(unit[0].refused(reason, None));
                    continue;
                }
                Failure::Invalid(reason) => {
                    if checked.insert(&table.view.name) {
                        connection.still_takes_rows(table).await?;
                    }
                    // A size is the row's own; a text that is not known may be about all of them.
                    invalid += usize::from(reason == Reason::RefusedByStore);
                    if invalid > INVALID_MAX && !acknowledged {
                        return Err(SinkError::Store {
                            store: connection.access.store.clone(),
                            cause: format!("it calls each of {invalid} rows invalid"),
                        });
                    }
                    refused.push(unit[0].refused(reason, None));
                    give_up_at = Instant::now() + patience;
                    continue;
                }
                Failure::Congested(error) => {
                    self.pace.congested();
                    error
                }
                Failure::Away(error) => error,
            };
            self.stats.retries += 1;
            waiting.push_back(unit);
            last = Some(passing);
            if Instant::now() >= resume_at {
                failures = failures.saturating_add(1);
                resume_at = Instant::now() + again(failures);
            }
        }
    }
}

/// The wait after so many failures in a row.
fn again(failures: u32) -> Duration {
    let doubled = AGAIN_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(AGAIN_LONGEST)
}

async fn send<'a>(connection: &Connection, unit: Unit<'a>, expiry_max_s: i64) -> Outcome<'a> {
    let started = Instant::now();
    let now = now_us();
    let values = |row: &RowRef<'a>| Values {
        row: *row,
        ttl_s: row.ttl_s(now, expiry_max_s),
    };
    let insert = &unit[0].portion.table.insert;
    let session = &connection.session;
    let result = match &unit[..] {
        [row] => session.execute_unpaged(insert, values(row)).await,
        rows => {
            let statement = || BatchStatement::PreparedStatement(insert.clone());
            let statements = rows.iter().map(|_| statement()).collect();
            let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
            batch.set_is_idempotent(true);
            let values: Vec<_> = rows.iter().map(values).collect();
            session.batch(&batch, values).await
        }
    };
    Outcome {
        result: result.map(drop),
        took: started.elapsed(),
        unit,
    }
}

/// A row as the values of [`super::table::Layout::insert`].
struct Values<'a> {
    row: RowRef<'a>,
    ttl_s: Option<i32>,
}

impl SerializeRow for Values<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let mut put = |bytes: Option<&[u8]>| {
            let cell = writer.make_cell_writer();
            if let Some(bytes) = bytes {
                cell.set_value(bytes)
                    .map(drop)
                    .map_err(SerializationError::new)
            } else {
                cell.set_null();
                Ok(())
            }
        };
        let RowRef { portion, row } = self.row;
        for cells in &portion.cells {
            cells.bytes(row, &mut put)?;
        }
        put(Some(&portion.update.version.to_be_bytes()))?;
        match self.ttl_s {
            Some(ttl_s) => put(Some(&ttl_s.to_be_bytes())),
            None => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

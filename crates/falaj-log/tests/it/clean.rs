//! The cleaner: what it keeps, and that nothing goes wrong while it works.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use falaj_log::{
    Batches, Cleanup, Durability, HEAD_BYTES, Head, Log, LogError, LogOptions, Partition, Settings,
};
use kafka_protocol::records::{Record, RecordBatchDecoder};

use crate::support::{
    COMPRESSIONS, Dice, Faulty, by_producer, copy, long, on, options, packed, record, segments,
};

/// How long tombstones stay.
const STAY_MS: i64 = 1000;

/// The smallest map there is: 7 keys.
const MAP_BYTES_MIN: usize = 1;

/// Timestamp, key, value.
type Row = (i64, String, Option<String>);

fn compacted(segment_bytes: u64) -> Settings {
    Settings {
        cleanup: Cleanup::Compact,
        delete_retention_ms: STAY_MS.unsigned_abs(),
        retention_ms: None,
        segment_bytes,
        durability: Durability::Os,
        ..Settings::default()
    }
}

fn partition(log: &Log) -> Arc<Partition> {
    log.topic("t").unwrap().partition(0).unwrap()
}

/// All records from `from` on, through the codec of another author; checks what holds of every log.
fn rows(partition: &Partition, from: i64, bytes_max: usize) -> BTreeMap<i64, Row> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = BTreeMap::new();
    let (mut at, mut last) = (from, i64::MIN);
    loop {
        let slice = partition.read(at, bytes_max).unwrap();
        if slice.batches.is_empty() {
            assert_eq!(at, slice.end);
            return found;
        }
        let mut rest = slice.batches;
        while let Some(head) = Head::parse(&rest) {
            let mut batch = rest.split_to(head.bytes);
            assert!(
                head.base >= last && head.next() > at,
                "batches are in order"
            );
            let crc = u32::from_be_bytes(*batch[17..].first_chunk().unwrap());
            assert_eq!(crc32c::crc32c(&batch[21..]), crc, "every checksum holds");
            last = head.next();
            at = head.next();
            if head.count == 0 {
                assert_eq!((head.bytes, head.compression()), (HEAD_BYTES, 0));
                continue;
            }
            for read in RecordBatchDecoder::decode(&mut batch).unwrap().records {
                assert!((head.base..head.next()).contains(&read.offset));
                let before = found
                    .last_key_value()
                    .map_or(i64::MIN, |(offset, _)| *offset);
                assert!(read.offset > before, "offsets grow");
                if read.offset >= from {
                    let value = read.value.as_ref().map(text);
                    let row = (read.timestamp, text(&read.key.unwrap()), value);
                    found.insert(read.offset, row);
                }
            }
        }
    }
}

/// What was appended, and what of it is to be there.
#[derive(Clone, Default)]
struct Model {
    rows: Vec<Row>,
    /// When a tombstone at an offset may go.
    horizons: BTreeMap<i64, i64>,
    /// Up to where all was cleaned, and when last.
    cleaned: (i64, i64),
    /// The last batch of each producer: how it was sent, and its offsets.
    producers: BTreeMap<i64, (BytesMut, std::ops::Range<i64>)>,
}

impl Model {
    fn end(&self) -> i64 {
        i64::try_from(self.rows.len()).unwrap()
    }

    fn all(&self) -> impl Iterator<Item = (i64, &Row)> {
        (0..).zip(&self.rows)
    }

    fn clean(&mut self, before: i64, now_ms: i64) {
        let newest = self.newest(before);
        for (offset, (_, key, value)) in (0..).zip(&self.rows).take_while(|(o, _)| *o < before) {
            if value.is_none() && newest[key] == offset {
                self.horizons.entry(offset).or_insert(now_ms + STAY_MS);
            }
        }
        self.cleaned = (before, now_ms);
    }

    fn newest(&self, before: i64) -> BTreeMap<String, i64> {
        self.all()
            .take_while(|(offset, _)| *offset < before)
            .map(|(offset, (_, key, _))| (key.clone(), offset))
            .collect()
    }

    fn expected(&self) -> BTreeMap<i64, Row> {
        let (before, now_ms) = self.cleaned;
        let newest = self.newest(before);
        self.all()
            .filter(|(offset, (_, key, value))| {
                let passed = || self.horizons[offset] <= now_ms;
                *offset >= before || newest[key] == *offset && (value.is_some() || !passed())
            })
            .map(|(offset, row)| (offset, row.clone()))
            .collect()
    }
}

/// Where the active segment begins.
fn active(folder: &Path) -> i64 {
    let last = segments(folder).pop().unwrap();
    last.file_stem().unwrap().to_str().unwrap()[..20]
        .parse()
        .unwrap()
}

/// A batch of some records with some of twelve keys, perhaps by a producer.
fn send(dice: &mut Dice, partition: &Partition, model: &mut Model) {
    let count = 1 + usize::try_from(dice.below(6)).unwrap();
    let records: Vec<Record> = (0..count)
        .map(|n| {
            let time = i64::try_from(dice.below(1_000_000)).unwrap();
            let key = format!("k{}", dice.below(12));
            let value = (dice.below(4) > 0).then(|| format!("{}-{n}", model.end()));
            model.rows.push((time, key.clone(), value.clone()));
            record(n, time, Some(key.into()), value.map(Into::into))
        })
        .collect();
    let compression = COMPRESSIONS[usize::try_from(dice.below(10)).unwrap() % 5];
    let mut bytes = packed(&records, compression);
    let first = model.end() - i64::try_from(count).unwrap();
    if dice.below(3) == 0 {
        // Sequences that go on are the partition's own matter: each batch starts an epoch.
        let id = i64::try_from(dice.below(3)).unwrap();
        let epoch = i16::try_from(first).unwrap();
        bytes = by_producer(bytes, id, epoch, 0);
        model
            .producers
            .insert(id, (bytes.clone(), first..model.end()));
    }
    let appended = partition.append(Batches::checked(bytes).unwrap()).unwrap();
    assert_eq!(appended.offsets, first..model.end());
}

fn check(folder: &Path, log: &Log, model: &Model, dice: &mut Dice, what: &str) {
    let partition = partition(log);
    let expected = model.expected();
    let window = 1 + usize::try_from(dice.below(2000)).unwrap();
    assert_eq!(rows(&partition, 0, window), expected, "{what}");
    for _ in 0..3 {
        let from = i64::try_from(dice.below(model.rows.len() as u64 + 1)).unwrap();
        let tail: BTreeMap<_, _> = expected
            .range(from..)
            .map(|(o, r)| (*o, r.clone()))
            .collect();
        assert_eq!(rows(&partition, from, window), tail, "{what} from {from}");
    }
    for (id, (bytes, offsets)) in &model.producers {
        let again = partition
            .append(Batches::checked(bytes.clone()).unwrap())
            .unwrap();
        assert!(again.repeated, "{what}: producer {id}");
        assert_eq!(&again.offsets, offsets);
    }
    let time = |row: &Row| row.0;
    let highest = expected.values().map(time).max();
    assert_eq!(partition.newest().unwrap().map(|n| n.1), highest, "{what}");
    let ms = i64::try_from(dice.below(1_000_000)).unwrap();
    let found = expected.iter().find(|(_, row)| time(row) >= ms);
    assert_eq!(
        partition.find(ms).unwrap(),
        found.map(|(o, row)| (*o, time(row)))
    );
    assert_eq!(partition.offsets(), 0..model.end());
    let left = fs::read_dir(folder.join("t/0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "cleaned"));
    assert_eq!(left, None, "{what}");
}

#[test]
fn the_newest_record_of_each_key_stays_whatever_comes_between() {
    let seeds = if long() { 100 } else { 12 };
    for seed in 1..=seeds {
        let mut dice = Dice(seed * 0x9E37_79B9_7F4A_7C15);
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        let mut model = Model::default();
        let mut now_ms = 0;
        for life in 0..4 {
            let log = Log::open(
                &folder,
                LogOptions {
                    clean_map_bytes: [MAP_BYTES_MIN, 1 << 20][usize::from(dice.below(2) == 0)],
                    snapshot_bytes: 1 + dice.below(20_000),
                    ..options()
                },
            )
            .unwrap();
            if log.topic("t").is_none() {
                let settings = compacted(200 + dice.below(2000));
                log.create("t", 1, settings).unwrap();
            }
            let partition = partition(&log);
            let mut crash = (folder.clone(), model.clone());
            for step in 0..12 {
                let what = format!("seed {seed}, life {life}, step {step}");
                for _ in 0..dice.below(8) {
                    send(&mut dice, &partition, &mut model);
                }
                if dice.below(2) == 0 {
                    now_ms += i64::try_from(dice.below(900)).unwrap();
                    log.clean(now_ms);
                    model.clean(active(&folder), now_ms);
                    let files = segments(&folder);
                    check(&folder, &log, &model, &mut dice, &what);
                    log.clean(now_ms);
                    assert_eq!(segments(&folder), files, "nothing is left to clean");
                }
                if dice.below(10) == 0 {
                    crash = (
                        dir.path().join(format!("crash{life}-{step}")),
                        model.clone(),
                    );
                    copy(&folder, &crash.0);
                }
            }
            drop((partition, log));
            if crash.0 != folder {
                fs::remove_dir_all(&folder).unwrap();
                fs::rename(&crash.0, &folder).unwrap();
                model = crash.1;
            }
            if dice.below(3) == 0 {
                let _ = fs::remove_file(folder.join("t/0/partition.snapshot"));
            }
        }
        let log = Log::open(&folder, options()).unwrap();
        check(
            &folder,
            &log,
            &model,
            &mut dice,
            &format!("seed {seed} at last"),
        );
    }
}

/// Three keys in ten segments, a tombstone for one of them.
fn written(log: &Log) -> Model {
    let topic = log.create("t", 1, compacted(400)).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut model = Model::default();
    for n in 0..30_i64 {
        let records: Vec<_> = (0..2)
            .map(|i| {
                let key = format!("k{}", (n + i) % 3);
                let value = (n + i != 20).then(|| format!("{n}"));
                model.rows.push((n, key.clone(), value.clone()));
                record(
                    usize::try_from(i).unwrap(),
                    n,
                    Some(key.into()),
                    value.map(Into::into),
                )
            })
            .collect();
        let compression = COMPRESSIONS[usize::try_from(n).unwrap() % 5];
        let bytes = by_producer(
            packed(&records, compression),
            n % 2,
            0,
            i32::try_from(n / 2).unwrap() * 2,
        );
        model
            .producers
            .insert(n % 2, (bytes.clone(), model.end() - 2..model.end()));
        partition.append(Batches::checked(bytes).unwrap()).unwrap();
    }
    model
}

/// Nothing that must be there is gone, nothing that was never there has come.
fn between(found: &BTreeMap<i64, Row>, before: &BTreeMap<i64, Row>, after: &BTreeMap<i64, Row>) {
    assert!(
        after
            .iter()
            .all(|(offset, row)| found.get(offset) == Some(row))
    );
    assert!(
        found
            .iter()
            .all(|(offset, row)| before.get(offset) == Some(row))
    );
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_of_each_segment() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, &folder);
    let mut model = written(&log);
    // One round before, so that cleaned segments are cleaned again.
    log.clean(1);
    model.clean(active(&folder), 1);
    for n in 60..90 {
        let row = (n, format!("k{}", n % 2), Some(n.to_string()));
        model.rows.push(row.clone());
        let record = record(0, n, Some(row.1.into()), row.2.map(Into::into));
        let bytes = packed(&[record], COMPRESSIONS[0]);
        partition(&log)
            .append(Batches::checked(bytes).unwrap())
            .unwrap();
    }
    let before = model.expected();
    model.clean(active(&folder), 2);
    let after = model.expected();
    assert!(after.len() + 20 < before.len());
    assert_eq!(rows(&partition(&log), 0, 500), before);

    let crashes = Arc::new(Mutex::new(Vec::<(String, PathBuf)>::new()));
    let hook = {
        let (folder, into, crashes) = (folder.clone(), dir.path().to_owned(), Arc::clone(&crashes));
        move |what: &str| {
            let mut crashes = crashes.lock().unwrap();
            let crash = into.join(format!("crash{}", crashes.len()));
            copy(&folder, &crash);
            crashes.push((what.to_owned(), crash));
            Ok(())
        }
    };
    *faulty.hook.lock().unwrap() = Some(Box::new(hook));
    log.clean(2);
    *faulty.hook.lock().unwrap() = None;
    assert_eq!(rows(&partition(&log), 0, 500), after);
    let crashes = std::mem::take(&mut *crashes.lock().unwrap());
    for step in ["create", "write", "sync", "rename", "remove"] {
        for when in ["before", "after"] {
            let what = format!("{when} {step}");
            assert!(crashes.iter().any(|(at, _)| *at == what), "{what}");
        }
    }
    let (mut old, mut new) = (false, false);
    let mut dice = Dice(3);
    for (n, (what, crash)) in crashes.iter().enumerate() {
        for snapshot in [true, false] {
            let copied = dir.path().join("copied");
            copy(crash, &copied);
            if !snapshot {
                fs::remove_file(copied.join("t/0/partition.snapshot")).unwrap();
            }
            let log = Log::open(&copied, options()).unwrap();
            let what = format!("step {n}, {what}, snapshot {snapshot}");
            let found = rows(&partition(&log), 0, 500);
            between(&found, &before, &after);
            old |= found == before;
            new |= found == after;
            assert_eq!(partition(&log).highest("file"), Some(89), "{what}");
            log.clean(2);
            check(&copied, &log, &model, &mut dice, &what);
            drop(log);
            check(
                &copied,
                &Log::open(&copied, options()).unwrap(),
                &model,
                &mut dice,
                &what,
            );
            fs::remove_dir_all(&copied).unwrap();
        }
    }
    assert!(old && new);
}

#[test]
fn a_step_that_fails_leaves_the_old_or_the_new_and_the_next_time_goes_well() {
    let mut dice = Dice(5);
    let mut failed = true;
    let mut at = 0;
    while failed {
        let dir = tempfile::tempdir().unwrap();
        let faulty = Faulty::with_room(i64::MAX);
        let log = on(&faulty, dir.path());
        let mut model = written(&log);
        let before = model.expected();
        model.clean(active(dir.path()), 1);
        let steps = Arc::new(AtomicI64::new(0));
        let hook = {
            let steps = Arc::clone(&steps);
            move |what: &str| {
                // A failed sync of what is appended is another matter: that ends all writing.
                if what.ends_with("sync") {
                    return Ok(());
                }
                if steps.fetch_add(1, Ordering::SeqCst) == at {
                    Err(std::io::Error::other("no"))
                } else {
                    Ok(())
                }
            }
        };
        *faulty.hook.lock().unwrap() = Some(Box::new(hook));
        log.clean(1);
        *faulty.hook.lock().unwrap() = None;
        failed = steps.load(Ordering::SeqCst) > at;
        between(&rows(&partition(&log), 0, 500), &before, &model.expected());
        log.clean(1);
        let what = format!("step {at}");
        check(dir.path(), &log, &model, &mut dice, &what);
        drop(log);
        let log = Log::open(dir.path(), options()).unwrap();
        check(dir.path(), &log, &model, &mut dice, &what);
        at += 1;
    }
    assert!(at > 10, "{at} steps");
}

#[test]
fn readers_and_appenders_go_on_while_it_is_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let topic = log.create("t", 1, compacted(500)).unwrap();
    let partition = topic.partition(0).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..400_i64 {
                let records: Vec<_> = (0..3)
                    .map(|i| {
                        let key = format!("k{}", n % 5 + i);
                        record(
                            usize::try_from(i).unwrap(),
                            n,
                            Some(key.into()),
                            Some(n.to_string().into()),
                        )
                    })
                    .collect();
                let bytes = packed(&records, COMPRESSIONS[usize::try_from(n).unwrap() % 2]);
                partition.append(Batches::checked(bytes).unwrap()).unwrap();
            }
            ended.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                log.clean(0);
            }
        });
        for window in [1, 5000] {
            let (partition, ended) = (&partition, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    for (offset, (time, key, value)) in rows(partition, 0, window) {
                        let n = offset / 3;
                        assert_eq!(time, n);
                        assert_eq!(key, format!("k{}", n % 5 + offset % 3));
                        assert_eq!(value.unwrap(), n.to_string());
                    }
                    assert!(partition.find(1).unwrap().is_none_or(|(_, ms)| ms >= 1));
                }
            });
        }
    });
    log.clean(0);
    let left = rows(&partition, 0, 5000);
    let newest: BTreeMap<_, _> = left
        .iter()
        .map(|(o, (_, key, _))| (key.clone(), *o))
        .collect();
    let in_active = left.range(active(dir.path())..).count();
    assert_eq!(newest.len(), 7);
    assert!(left.len() <= 7 + in_active);
    // Small segments became one.
    assert!(
        segments(dir.path()).len() <= 4,
        "{:?}",
        segments(dir.path())
    );
}

#[test]
fn both_policies_together_drop_what_is_too_old_too() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(0));
    let clock = Arc::clone(&now);
    let opened = || {
        let clock = Arc::clone(&clock);
        let clock = Arc::new(move || clock.load(Ordering::SeqCst));
        Log::open(dir.path(), LogOptions { clock, ..options() }).unwrap()
    };
    let log = opened();
    let settings = Settings {
        cleanup: Cleanup::CompactDelete,
        retention_ms: Some(8000),
        compaction_lag_ms: 500,
        ..compacted(1 << 20)
    };
    let topic = log.create("t", 1, settings).unwrap();
    let partition = topic.partition(0).unwrap();
    let append = |ms, key: &'static str| {
        now.store(ms, Ordering::SeqCst);
        let bytes = packed(
            &[record(0, ms, Some(key.into()), Some("v".into()))],
            COMPRESSIONS[0],
        );
        partition.append(Batches::checked(bytes).unwrap()).unwrap();
    };
    let offsets = || {
        rows(&partition, partition.offsets().start, 500)
            .into_keys()
            .collect::<Vec<_>>()
    };
    for (ms, key) in [(0, "a"), (10, "b"), (20, "a"), (2000, "a"), (2100, "c")] {
        append(ms, key);
    }
    // The first three were appended long enough ago; the others are still written to.
    log.clean(519);
    assert_eq!(offsets(), [0, 1, 2, 3, 4]);
    log.clean(520);
    assert_eq!(offsets(), [1, 2, 3, 4]);
    // The active segment is closed when it is as old as an append would close it at.
    log.clean(3100);
    assert_eq!(offsets(), [1, 3, 4]);
    log.retain(8020);
    assert_eq!(offsets(), [1, 3, 4]);
    log.retain(8021);
    // By when they were appended, not by when they were cleaned.
    assert_eq!(offsets(), [3, 4]);
    drop((partition, topic, log));
    let log = opened();
    let partition = self::partition(&log);
    assert_eq!(partition.offsets(), 3..5);
    log.retain(10_101);
    assert_eq!(partition.offsets(), 5..5);
}

#[test]
fn damage_is_never_cleaned_into_a_segment_with_a_right_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let model = written(&log);
    let file = segments(dir.path()).remove(1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    log.clean(1);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let last = model.end() - 1;
    assert!(
        rows(&partition(&log), last, 500).contains_key(&last),
        "all else goes on"
    );
    log.close();
    log.clean(1);
    assert!(matches!(
        partition(&log).delete_before(-1),
        Err(LogError::Closed)
    ));
}

#[test]
fn a_thread_cleans_by_itself_what_is_worth_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(
        dir.path(),
        LogOptions {
            cleaning: std::time::Duration::from_millis(5),
            ..options()
        },
    )
    .unwrap();
    let model = written(&log);
    let partition = partition(&log);
    let (began, most) = (std::time::Instant::now(), std::time::Duration::from_mins(1));
    while rows(&partition, 0, 5000).len() * 2 > model.rows.len() {
        assert!(began.elapsed() < most, "nothing was cleaned");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    log.close();
}

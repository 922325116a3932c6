//! What is dropped, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use falaj_log::{Log, LogError, LogOptions, Settings};

use crate::support::{batch, copy, counted, numbers, options, segments, small_segments};

fn clocked(folder: &std::path::Path, now: &Arc<AtomicI64>) -> Log {
    let now = Arc::clone(now);
    let clock = Arc::new(move || now.load(Ordering::SeqCst));
    Log::open(folder, LogOptions { clock, ..options() }).unwrap()
}

#[test]
fn whole_segments_go_when_their_newest_record_was_appended_too_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(0));
    let log = clocked(dir.path(), &now);
    let settings = Settings {
        retention_ms: Some(80_000),
        ..Settings::default()
    };
    let topic = log.create("t", 1, settings).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..20 {
        now.store(n * 4000, Ordering::SeqCst);
        // The records' own times do not matter: one is long ago, one far in the future.
        partition
            .append(batch([if n % 2 == 0 { 0 } else { i64::MAX / 4 }]))
            .unwrap();
    }
    // A segment spans an eighth of the retention time: 0..=8 s, 12..=20 s and so on.
    assert_eq!(segments(dir.path()).len(), 7);
    for (at, start) in [(0, 0), (87_999, 0), (88_001, 3), (99_999, 3), (100_001, 6)] {
        log.retain(at);
        assert_eq!(partition.offsets(), start..20, "at {at}");
    }
    assert!(matches!(
        partition.read(5, 100),
        Err(LogError::Overtaken {
            wanted: 5,
            start: 6,
            ..
        })
    ));
    // The active segment too, once its newest record has expired.
    log.retain(76_000 + 80_001);
    assert_eq!(partition.offsets(), 20..20);
    assert_eq!(segments(dir.path()).len(), 1);
    assert_eq!(partition.append(batch([7])).unwrap().offsets, 20..21);
    // Start offset and marks outlive the records, over a crash and over a clean end.
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    drop((topic, log));
    for folder in [crashed.path(), dir.path()] {
        let log = clocked(folder, &now);
        let topic = log.topic("t").unwrap();
        let partition = topic.partition(0).unwrap();
        assert_eq!(partition.offsets(), 20..21);
        assert_eq!(
            partition.highest("file"),
            Some(u64::try_from(i64::MAX / 4).unwrap())
        );
        assert_eq!(numbers(&partition, 20, 100), [(20, 7)]);
    }
}

#[test]
fn the_oldest_segments_go_while_enough_bytes_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let settings = Settings {
        retention_ms: None,
        retention_bytes: Some(2000),
        ..small_segments(600)
    };
    let topic = log.create("t", 1, settings).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..60 {
        partition.append(batch(n * 2..n * 2 + 2)).unwrap();
    }
    log.retain(i64::MAX);
    let left = partition.bytes();
    assert!((2000..2600).contains(&left), "{left} bytes");
    let start = partition.offsets().start;
    assert_eq!(numbers(&partition, start, 500), counted(start..120));
    let on_disk: u64 = segments(dir.path())
        .iter()
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, left);
}

#[test]
fn a_crash_between_snapshot_and_removal_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&dir.path().join("a"), options()).unwrap();
    let settings = Settings {
        retention_bytes: Some(1),
        ..small_segments(1)
    };
    let topic = log.create("t", 1, settings).unwrap();
    for n in 0..5 {
        topic.partition(0).unwrap().append(batch([n])).unwrap();
    }
    copy(&dir.path().join("a"), &dir.path().join("before"));
    log.retain(0);
    drop((topic, log));
    // The new snapshot with the old files.
    let new = dir.path().join("a/t/0/partition.snapshot");
    std::fs::copy(new, dir.path().join("before/t/0/partition.snapshot")).unwrap();
    let log = Log::open(&dir.path().join("before"), options()).unwrap();
    assert_eq!(
        log.topic("t").unwrap().partition(0).unwrap().offsets(),
        4..5
    );
    assert_eq!(segments(&dir.path().join("before")).len(), 1);
}

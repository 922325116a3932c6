//! Idempotent producers: what is sent again is not there twice.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;

use falaj_log::{Appended, Batches, Log, LogError, LogOptions, Partition, Settings};

use crate::support::{
    Faulty, batch, by_producer, copy, encode, numbers, on, open, options, record, resealed,
    small_segments,
};

/// `count` records of producer 7.
fn sent(epoch: i16, sequence: i32, count: usize) -> Batches {
    let records: Vec<_> = (0..count)
        .map(|n| record(n, i64::from(sequence), None, Some("0".into())))
        .collect();
    Batches::checked(by_producer(encode(&records), 7, epoch, sequence)).unwrap()
}

fn partition(log: &Log) -> Arc<Partition> {
    log.topic("t").unwrap().partition(0).unwrap()
}

fn fresh(offsets: std::ops::Range<i64>) -> Appended {
    Appended {
        offsets,
        repeated: false,
        append_ms: None,
    }
}

fn repeated(offsets: std::ops::Range<i64>) -> Appended {
    Appended {
        repeated: true,
        ..fresh(offsets)
    }
}

#[test]
fn a_batch_sent_again_has_its_first_offsets_over_restarts_and_crashes_too() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(&dir.path().join("a"));
    let topic = log.create("t", 1, small_segments(300)).unwrap();
    let held = topic.partition(0).unwrap();
    for n in 0..7 {
        let at = i64::from(n) * 4;
        assert_eq!(held.append(sent(0, n * 3, 3)).unwrap(), fresh(at..at + 3));
        held.append(batch([9])).unwrap();
    }
    drop((held, topic));
    copy(&dir.path().join("a"), &dir.path().join("crashed"));
    copy(&dir.path().join("a"), &dir.path().join("scanned"));
    fs::remove_file(dir.path().join("scanned/t/0/partition.snapshot")).unwrap();
    drop(log);
    for which in ["a", "crashed", "scanned"] {
        let log = open(&dir.path().join(which));
        let held = partition(&log);
        for n in 2..7 {
            let at = i64::from(n) * 4;
            let again = held.append(sent(0, n * 3, 3)).unwrap();
            assert_eq!(again, repeated(at..at + 3), "{which}");
        }
        assert_eq!(held.offsets(), 0..28);
        // Older ones are not known any more, and cannot follow.
        let error = held.append(sent(0, 3, 3)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "producer 7 sent sequence 3 to `t` partition 0, where 21 follows"
        );
        assert!(matches!(error, LogError::OutOfOrder { .. }));
        assert!(held.append(sent(0, 24, 3)).is_err());
        assert!(
            held.append(sent(1, 21, 3)).is_err(),
            "a new epoch begins at 0"
        );
        assert_eq!(held.append(sent(0, 21, 3)).unwrap(), fresh(28..31));
        assert_eq!(held.append(sent(1, 0, 3)).unwrap(), fresh(31..34));
        assert!(matches!(
            held.append(sent(0, 24, 3)),
            Err(LogError::Fenced { current: 1, .. })
        ));
        assert_eq!(numbers(&held, 0, 1000).len(), 34);
    }
}

#[test]
fn who_sends_again_is_told_when_the_first_one_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    faulty.gate.set(true);
    let (done, told) = mpsc::channel();
    for (n, sequence, again) in [(0, 0, false), (1, 3, false), (2, 0, true), (3, 3, true)] {
        let done = done.clone();
        let tell = Box::new(move |result: Result<(), LogError>| {
            done.send((n, result.is_ok())).unwrap();
        });
        let appended = partition.append_then(sent(0, sequence, 3), tell).unwrap();
        assert_eq!(appended.repeated, again);
    }
    assert!(told.try_recv().is_err(), "nothing is synced yet");
    faulty.gate.set(false);
    let order: Vec<_> = (0..4).map(|_| told.recv().unwrap()).collect();
    assert_eq!(order, [(0, true), (2, true), (1, true), (3, true)]);
    // And at once, where it is durable.
    assert!(partition.append(sent(0, 3, 3)).unwrap().repeated);
    // A disk that fails tells those who repeat too.
    faulty.gate.set(true);
    for (n, again) in [(4, false), (5, true)] {
        let done = done.clone();
        let tell = Box::new(move |result: Result<(), LogError>| {
            done.send((n, result.is_ok())).unwrap();
        });
        let appended = partition.append_then(sent(0, 6, 3), tell).unwrap();
        assert_eq!(appended.repeated, again);
    }
    faulty.no_sync.store(true, Ordering::SeqCst);
    faulty.gate.set(false);
    let order: Vec<_> = (0..2).map(|_| told.recv().unwrap()).collect();
    assert_eq!(order, [(4, false), (5, false)]);
}

#[test]
fn a_producer_that_is_idle_for_a_day_is_forgotten_and_then_taken_at_any_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(0));
    let clock = Arc::clone(&now);
    let log = Log::open(
        dir.path(),
        LogOptions {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            ..options()
        },
    )
    .unwrap();
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(sent(3, 0, 1)).unwrap();
    log.retain(86_400_000 - 1);
    assert!(partition.append(sent(3, 5, 1)).is_err());
    log.retain(86_400_000);
    assert!(!partition.append(sent(2, 5, 1)).unwrap().repeated);
    // Deleting records forgets nobody.
    assert_eq!(partition.delete_before(-1).unwrap(), 2);
    assert!(partition.append(sent(2, 5, 1)).unwrap().repeated);
    assert!(partition.append(sent(2, 7, 1)).is_err());
}

#[test]
fn sequences_go_on_at_0_after_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.create("t", 1, Settings::default()).unwrap();
    let partition = partition(&log);
    for (sequence, offsets) in [(i32::MAX - 1, 0..3), (1, 3..6), (4, 6..9)] {
        assert_eq!(
            partition.append(sent(0, sequence, 3)).unwrap(),
            fresh(offsets.clone())
        );
        assert_eq!(
            partition.append(sent(0, sequence, 3)).unwrap(),
            repeated(offsets)
        );
    }
}

#[test]
fn batches_that_no_producer_sends_are_refused() {
    let good = encode(&[record(0, 7, None, None)]);
    let refused = |bytes, reason: &str| {
        let error = Batches::checked(bytes).unwrap_err();
        assert_eq!(error.to_string(), format!("record batch refused: {reason}"));
    };
    for (epoch, sequence) in [(-1, 0), (0, -1)] {
        let bytes = by_producer(good.clone(), 7, epoch, sequence);
        refused(bytes, "it has a producer and no epoch or no sequence");
    }
    for bit in [8, 64] {
        let bytes = resealed(good.clone(), |b| b[22] |= bit);
        refused(bytes, "its timestamps claim to be a broker's");
    }
    // Two batches of one append could be repeats in part.
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.create("t", 1, Settings::default()).unwrap();
    let mut two = by_producer(good.clone(), 7, 0, 0);
    two.extend_from_slice(&by_producer(good, 7, 0, 1));
    let error = partition(&log).append(Batches::checked(two).unwrap());
    assert!(matches!(error, Err(LogError::Refused { .. })));
}

#[test]
fn no_producer_id_is_given_twice_over_crashes_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    let mut given = Vec::new();
    for life in 0..4 {
        let log = open(&folder);
        let count = [3, 1000, 1, 2100][life];
        given.extend((0..count).map(|_| log.producer_id().unwrap()));
        let crash = dir.path().join(format!("crash{life}"));
        copy(&folder, &crash);
        log.close();
        assert!(matches!(log.producer_id(), Err(LogError::Closed)));
        drop(log);
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&crash, &folder).unwrap();
    }
    assert!(given.windows(2).all(|w| w[0] < w[1]), "each is new");
    let file: &Path = &folder.join("producers~.json");
    fs::write(file, b"{}").unwrap();
    assert!(matches!(
        open(&folder).producer_id(),
        Err(LogError::Damaged { .. })
    ));
    // Where the file is lost, those that partitions remember are not given again.
    fs::remove_file(file).unwrap();
    let log = open(&folder);
    let topic = log.create("t", 1, Settings::default()).unwrap();
    topic.partition(0).unwrap().append(sent(0, 0, 1)).unwrap();
    assert_eq!(log.producer_id().unwrap(), 8);
}

//! Appending, reading, topics.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use bytes::BytesMut;
use falaj_log::{Batches, Durability, LogError, Records, Settings, valid_name};

use crate::support::{
    Faulty, batch, counted, encode, numbers, on, open, padded, record, small_segments,
};

#[test]
fn what_is_appended_is_read_from_every_offset_and_in_every_window() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create("t", 2, small_segments(4000)).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut next = 0;
    for size in [1, 5, 2, 30, 1, 1, 100, 3, 60, 7] {
        assert_eq!(
            partition.append(batch(next..next + size)).unwrap().offsets,
            next..next + size
        );
        next += size;
    }
    for from in 0..=next {
        for window in [1, 200, 5000, 1 << 20] {
            assert_eq!(
                numbers(&partition, from, window),
                counted(from..next),
                "{from} {window}"
            );
        }
    }
    assert_eq!(topic.partition(1).unwrap().offsets(), 0..0);
    assert!(topic.partition(2).is_none() && topic.partition(-1).is_none());
}

#[test]
fn a_batch_larger_than_segment_and_window_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let large = Settings {
        batch_bytes_max: 4_000_000,
        ..small_segments(1000)
    };
    let topic = log.create("t", 1, large).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..6 {
        let size = if n % 2 == 0 { 3_000_000 } else { 10 };
        partition.append(padded([n], size)).unwrap();
    }
    assert_eq!(numbers(&partition, 0, 100), counted(0..6));
    // The index has an entry every 32 KiB only: a large batch between small ones is found too.
    let topic = log.create("big", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..40 {
        let size = if n % 3 == 0 { 50_000 } else { 10 };
        partition.append(padded([n], size)).unwrap();
    }
    for from in 0..40 {
        assert_eq!(numbers(&partition, from, 100), counted(from..40));
    }
}

#[test]
fn offsets_outside_what_is_held_are_errors_with_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(batch(0..3)).unwrap();
    assert!(partition.read(3, 100).unwrap().batches.is_empty());
    for (offset, text) in [
        (4, "offset 4 of `t` partition 0 is beyond the end, 3"),
        (
            -1,
            "retention overtook offset -1 of `t` partition 0: it starts at 0",
        ),
    ] {
        assert_eq!(partition.read(offset, 100).err().unwrap().to_string(), text);
    }
}

#[test]
fn foreign_batches_are_refused_unless_whole_and_valid() {
    let good = encode(&[record(0, 7, None, None), record(1, 8, None, None)]);
    assert!(Batches::checked(good.clone()).is_ok());
    let reason = |change: &dyn Fn(&mut BytesMut)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Batches::checked(bytes).err().map(|e| e.to_string())
    };
    let resealed = |change: fn(&mut BytesMut)| {
        reason(&|b| {
            change(b);
            let crc = crc32c::crc32c(&b[21..]);
            b[17..21].copy_from_slice(&crc.to_be_bytes());
        })
    };
    let refused = |why: &str| Some(format!("record batch refused: {why}"));
    assert_eq!(reason(&|b| b.clear()), refused("it is empty"));
    assert_eq!(
        reason(&|b| b[16] = 1),
        refused("it has no head of format v2")
    );
    assert_eq!(reason(&|b| b.truncate(70)), refused("it is cut off"));
    assert_eq!(
        reason(&|b| *b.last_mut().unwrap() ^= 1),
        refused("its checksum is wrong")
    );
    assert_eq!(
        resealed(|b| b[22] |= 16),
        refused("transactions are not offered")
    );
    assert_eq!(
        resealed(|b| b[60] = 1),
        refused("its offsets do not count its records")
    );
    assert_eq!(
        resealed(|b| *b.last_mut().unwrap() ^= 1),
        None,
        "a header's value is free"
    );
    assert_eq!(
        resealed(|b| b[61] ^= 2),
        refused("it holds a malformed record")
    );
    // Offsets inside a batch must count up from 0: byte 63 and on are deltas of the first record.
    assert_eq!(
        resealed(|b| b[64] = 2),
        refused("it holds a malformed record")
    );
}

#[test]
fn no_garbage_makes_the_record_reader_panic() {
    let good = encode(&[
        record(0, 7, Some("key".into()), Some("value".into())),
        record(1, 8, None, None),
    ]);
    let head = falaj_log::Head::parse(&good).unwrap();
    for at in 61..good.len() {
        for value in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = value;
            let read: Vec<_> = Records::new(&head, &bytes[61..]).collect();
            assert!(read.len() <= 3);
            if value == good[at] {
                assert!(read.iter().all(Result::is_ok));
            }
        }
    }
}

#[test]
fn nobody_reads_what_is_not_synced_and_one_sync_serves_many() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    let (advanced, told) = mpsc::channel();
    topic.on_advance(move || {
        // The test may be over already.
        let _ = advanced.send(());
    });
    faulty.gate.set(true);
    let (done, acknowledged) = mpsc::channel();
    for n in 0..50 {
        let done = done.clone();
        let told =
            Box::new(move |result: Result<(), LogError>| done.send((n, result.is_ok())).unwrap());
        assert_eq!(
            partition.append_then(batch([n]), told).unwrap().offsets,
            n..n + 1
        );
    }
    assert_eq!(partition.offsets(), 0..0);
    assert!(partition.read(0, 1000).unwrap().batches.is_empty());
    assert!(matches!(
        partition.read(1, 1000),
        Err(LogError::BeyondEnd { .. })
    ));
    assert!(acknowledged.try_recv().is_err());
    faulty.gate.set(false);
    let order: Vec<_> = (0..50).map(|_| acknowledged.recv().unwrap()).collect();
    assert_eq!(order, (0..50).map(|n| (n, true)).collect::<Vec<_>>());
    assert!(faulty.syncs.load(Ordering::SeqCst) <= 2, "group commit");
    assert_eq!(numbers(&partition, 0, 1000), counted(0..50));
    told.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn durability_os_acknowledges_without_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let settings = Settings {
        durability: Durability::Os,
        ..Settings::default()
    };
    let topic = log.create("t", 1, settings).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..20 {
        partition.append(batch([n])).unwrap();
    }
    assert_eq!(faulty.syncs.load(Ordering::SeqCst), 0);
    assert_eq!(numbers(&partition, 0, 1000), counted(0..20));
    log.close();
    assert_eq!(
        numbers(
            &open(dir.path()).topic("t").unwrap().partition(0).unwrap(),
            0,
            9
        ),
        counted(0..20)
    );
}

#[test]
fn many_appenders_and_readers_agree_on_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create("t", 1, small_segments(3000)).unwrap();
    let partition = topic.partition(0).unwrap();
    let partition = &*partition;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..50 {
                    partition
                        .append(batch([thread * 1000 + n, thread * 1000 + n]))
                        .unwrap();
                }
            });
        }
        scope.spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 400 {
                let from = i64::try_from(seen.len()).unwrap();
                seen.extend(numbers(partition, from, 700));
            }
            assert!(seen.iter().zip(0..).all(|((offset, _), n)| *offset == n));
        });
    });
    let all = numbers(partition, 0, 5000);
    for thread in 0..4 {
        let own: Vec<_> = all
            .iter()
            .map(|(_, n)| *n)
            .filter(|n| n / 1000 == thread)
            .collect();
        let sent: Vec<_> = (0..50).flat_map(|n| [thread * 1000 + n; 2]).collect();
        assert_eq!(own, sent, "order of thread {thread}");
    }
}

#[test]
fn times_are_found_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create("t", 1, small_segments(900)).unwrap();
    let partition = topic.partition(0).unwrap();
    // Timestamps 0, 10, 20 .. with one that is out of order.
    for n in 0..60 {
        let time = if n == 30 { 5 } else { n * 10 };
        partition.append(batch([time, time + 1])).unwrap();
    }
    for (ms, found) in [
        (i64::MIN, Some((0, 0))),
        (0, Some((0, 0))),
        (1, Some((1, 1))),
        (2, Some((2, 10))),
        (295, Some((62, 310))),
        (591, Some((119, 591))),
        (592, None),
    ] {
        assert_eq!(partition.find(ms).unwrap(), found, "at {ms}");
    }
}

#[test]
fn topics_are_made_listed_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create("t", 3, Settings::default()).unwrap();
    assert!(matches!(
        log.create("t", 1, Settings::default()),
        Err(LogError::Exists(_))
    ));
    assert!(matches!(
        log.create("u", 0, Settings::default()),
        Err(LogError::Partitions { .. })
    ));
    assert!(matches!(log.delete("u"), Err(LogError::NoTopic(_))));
    let id = topic.id();
    let shorter = Settings {
        retention_ms: Some(5),
        ..Settings::default()
    };
    topic.change(shorter.clone()).unwrap();
    drop((topic, log));

    let log = open(dir.path());
    let topic = log.topic("t").unwrap();
    assert_eq!((topic.id(), topic.partitions().len()), (id, 3));
    assert_eq!(topic.settings(), shorter);
    topic.partition(1).unwrap().append(batch(0..3)).unwrap();
    log.delete("t").unwrap();
    assert!(matches!(
        topic.partition(1).unwrap().append(batch(0..3)),
        Err(LogError::Deleted(_))
    ));
    assert!(matches!(
        topic.partition(1).unwrap().read(0, 9),
        Err(LogError::Deleted(_))
    ));
    assert!(log.topic("t").is_none() && log.topics().is_empty());
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "no file is left"
    );
    let again = log.create("t", 3, Settings::default()).unwrap();
    assert_ne!(again.id(), id);
    assert_eq!(again.partition(1).unwrap().offsets(), 0..0);
    log.close();
    assert!(matches!(
        again.partition(0).unwrap().append(batch([1])),
        Err(LogError::Closed)
    ));
    assert!(matches!(
        log.create("v", 1, Settings::default()),
        Err(LogError::Closed)
    ));
}

#[test]
fn names_are_those_that_kafka_takes() {
    for name in [
        "messages",
        "messages.rejects",
        "A-b_c.9",
        "...",
        &"x".repeat(249),
    ] {
        assert!(valid_name(name).is_ok(), "{name}");
    }
    for name in ["", ".", "..", "a b", "a/b", "é", "a~b", &"x".repeat(250)] {
        assert!(valid_name(name).is_err(), "{name}");
    }
}

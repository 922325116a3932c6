//! Records by their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use falaj_log::{Batches, HEAD_BYTES, Head, Log, LogOptions, Records, Settings, Stamp};

use crate::support::{COMPRESSIONS, Dice, options, packed, record, small_segments};

#[test]
fn the_answer_is_exact_in_batches_of_every_compression() {
    for seed in 1..=12 {
        let mut dice = Dice(seed * 0x9E37_79B9_7F4A_7C15);
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), options()).unwrap();
        let topic = log.create("t", 1, small_segments(900)).unwrap();
        let partition = topic.partition(0).unwrap();
        let mut times = Vec::new();
        let mut random = |n| i64::try_from(dice.below(n)).unwrap();
        for n in 0..40 {
            let records: Vec<_> = (0..=random(5))
                .map(|i| {
                    let index = usize::try_from(i).unwrap();
                    record(index, 10 * n + random(300), None, Some("0".into()))
                })
                .collect();
            times.extend(records.iter().map(|r| r.timestamp));
            let compression = COMPRESSIONS[usize::try_from(random(5)).unwrap()];
            let batch = Batches::checked(packed(&records, compression)).unwrap();
            partition.append(batch).unwrap();
        }
        let count = i64::try_from(times.len()).unwrap();
        let mut start = 0;
        while start <= count {
            let held = || (0..).zip(&times).skip(usize::try_from(start).unwrap());
            for ms in (-5..720).step_by(7) {
                let first = held().find(|(_, time)| **time >= ms);
                assert_eq!(
                    partition.find(ms).unwrap(),
                    first.map(|(offset, time)| (offset, *time)),
                    "seed {seed}, {ms} ms from {start}"
                );
            }
            let highest = held().map(|(_, time)| time).max();
            let newest = partition.newest().unwrap();
            assert_eq!(newest.map(|(_, time)| time), highest.copied());
            if let Some((offset, time)) = newest {
                assert!(offset >= start);
                assert_eq!(times[usize::try_from(offset).unwrap()], time);
            }
            if start == count {
                break;
            }
            start = (start + 1 + random(50)).min(count);
            assert_eq!(partition.delete_before(start).unwrap(), start);
        }
    }
}

#[test]
fn what_cannot_be_unpacked_answers_with_its_head() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    let records = [record(0, 10, None, None), record(1, 20, None, None)];
    for compression in [1, 2, 3, 4, 5, 7] {
        let bytes = crate::support::resealed(packed(&records, COMPRESSIONS[0]), |b| {
            b[22] = compression;
        });
        let batch = Batches::checked(bytes).unwrap();
        let at = partition.append(batch).unwrap().offsets.start;
        assert_eq!(partition.find(15).unwrap(), Some((0, 20)));
        assert_eq!(partition.newest().unwrap(), Some((0, 20)));
        assert!(at % 2 == 0);
    }
}

#[test]
fn a_topic_can_give_records_the_time_at_which_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(5000));
    let clock = Arc::clone(&now);
    let log = Log::open(
        dir.path(),
        LogOptions {
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
            ..options()
        },
    )
    .unwrap();
    let settings = Settings {
        stamp: Stamp::Append,
        ..Settings::default()
    };
    let topic = log.create("t", 1, settings).unwrap();
    let partition = topic.partition(0).unwrap();
    for (n, compression) in COMPRESSIONS.into_iter().enumerate() {
        now.store(5000 + i64::try_from(n).unwrap(), Ordering::SeqCst);
        let records = [
            record(0, 1, None, Some("0".into())),
            record(1, 9, None, None),
        ];
        let bytes = crate::support::by_producer(
            packed(&records, compression),
            7,
            0,
            2 * i32::try_from(n).unwrap(),
        );
        let batch = || Batches::checked(bytes.clone()).unwrap();
        let appended = partition.append(batch()).unwrap();
        let at_ms = Some(5000 + i64::try_from(n).unwrap());
        assert_eq!((appended.append_ms, appended.repeated), (at_ms, false));
        // A repeat has the time of the first.
        now.fetch_add(100, Ordering::SeqCst);
        let again = partition.append(batch()).unwrap();
        assert_eq!((again.append_ms, again.repeated), (at_ms, true));
    }
    assert_eq!(partition.find(0).unwrap(), Some((0, 5000)));
    assert_eq!(partition.find(5003).unwrap(), Some((6, 5003)));
    assert_eq!(partition.newest().unwrap(), Some((8, 5004)));
    // As a client reads it: the checksum holds, and the batch says whose time it is.
    let slice = partition.read(0, 1 << 20).unwrap();
    let mut rest = &slice.batches[..];
    for n in 0..5 {
        let head = Head::parse(rest).unwrap();
        assert_eq!((head.append_time(), head.newest_ms), (true, 5000 + n));
        let batch = &rest[..head.bytes];
        let crc = u32::from_be_bytes(*batch[17..].first_chunk().unwrap());
        assert_eq!(crc32c::crc32c(&batch[21..]), crc);
        if head.compression() == 0 {
            for read in Records::new(&head, &batch[HEAD_BYTES..]) {
                assert_eq!(read.unwrap().timestamp_ms, 5000 + n);
            }
        }
        rest = &rest[head.bytes..];
    }
}

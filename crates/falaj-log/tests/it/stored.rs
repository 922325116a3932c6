//! What is passed on as it lies is what a read gives.

use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;

use bytes::BytesMut;
use falaj_log::{Batches, Located, Log, LogError, Partition, Settings, Stored};

use crate::support::{Dice, Faulty, on, options, padded, segments, small_segments};

fn bytes(stored: &Stored) -> Vec<u8> {
    let mut all = vec![0; stored.bytes()];
    // By pieces, as they are asked for.
    for at in (0..all.len()).step_by(100_000) {
        let end = all.len().min(at + 100_000);
        stored.read(at, &mut all[at..end]).unwrap();
    }
    if let Some((file, from)) = stored.system_file() {
        let mut again = vec![0; all.len()];
        file.read_exact_at(&mut again, from).unwrap();
        assert!(again == all);
    }
    all
}

/// Whether the batches of `locate` are the first of those of `read`, none behind `bytes_max`.
fn check(partition: &Partition, offset: i64, bytes_max: usize) -> bool {
    let slice = partition.read(offset, bytes_max).unwrap();
    match partition.locate(offset, bytes_max).unwrap() {
        Located::Read(located) => {
            assert!(
                located.batches == slice.batches,
                "from {offset}, {bytes_max}"
            );
            false
        }
        Located::Stored {
            batches,
            start,
            end,
        } => {
            assert_eq!((start, end), (slice.start, slice.end));
            let bytes = bytes(&batches);
            assert!(bytes.len() <= bytes_max);
            assert!(
                slice.batches.starts_with(&bytes),
                "from {offset}, {bytes_max}"
            );
            // Whole ones: what is left out begins with a batch.
            let rest = BytesMut::from(&slice.batches[bytes.len()..]);
            assert!(rest.is_empty() || Batches::checked(rest).is_ok());
            assert!(
                slice.batches.len() - bytes.len() <= 150_000,
                "little is left out"
            );
            true
        }
    }
}

#[test]
fn what_is_located_is_the_beginning_of_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let topic = log.create("t", 1, small_segments(3 << 20)).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut dice = Dice(0x5eed);
    while partition.bytes() < 8 << 20 {
        let padding = [0, 0, 100, 3000, 40_000, 100_000][usize::try_from(dice.below(6)).unwrap()];
        let count = i64::try_from(1 + dice.below(4)).unwrap();
        partition.append(padded(0..count, padding)).unwrap();
    }
    assert!(segments(dir.path()).len() >= 3);
    let end = partition.offsets().end;
    let (mut read, mut stored) = (0, 0);
    for _ in 0..2000 {
        let offset = i64::try_from(dice.below(end.unsigned_abs() + 1)).unwrap();
        let bytes_max = [1, 64 << 10, 200_000, 1 << 20, 2 << 20, 16 << 20];
        let bytes_max = bytes_max[usize::try_from(dice.below(6)).unwrap()];
        *if check(&partition, offset, bytes_max) {
            &mut stored
        } else {
            &mut read
        } += 1;
    }
    assert!(read > 100 && stored > 100, "{read} read, {stored} stored");
    assert!(partition.locate(end + 1, 1 << 20).is_err());
    assert!(partition.locate(-1, 1 << 20).is_err());
}

#[test]
fn what_is_not_synced_is_not_located() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..5 {
        partition.append(padded([n], 50_000)).unwrap();
    }
    faulty.gate.set(true);
    let (done, acknowledged) = mpsc::channel();
    for n in 5..10 {
        let done = done.clone();
        let told = Box::new(move |result: Result<(), LogError>| {
            // The test may be over already.
            let _ = done.send(result.is_ok());
        });
        partition.append_then(padded([n], 50_000), told).unwrap();
    }
    assert_eq!(partition.offsets().end, 5);
    assert!(check(&partition, 0, 16 << 20));
    let Located::Stored { batches, .. } = partition.locate(0, 16 << 20).unwrap() else {
        panic!("it is much");
    };
    assert!(batches.bytes() < 5 * 51_000);
    faulty.gate.set(false);
    assert!((0..5).all(|_| acknowledged.recv().unwrap()));
    assert!(check(&partition, 0, 16 << 20));
}

#[test]
fn what_was_located_stays_readable_though_its_segment_goes() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let topic = log.create("t", 1, small_segments(1 << 20)).unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..50 {
        partition.append(padded([n], 50_000)).unwrap();
    }
    let read = partition.read(0, 500_000).unwrap().batches;
    let Located::Stored { batches, .. } = partition.locate(0, 500_000).unwrap() else {
        panic!("it is much");
    };
    let before = segments(dir.path()).len();
    partition.delete_before(-1).unwrap();
    assert!(segments(dir.path()).len() < before);
    assert!(read.starts_with(&bytes(&batches)));
    assert!(partition.locate(0, 500_000).is_err());
}

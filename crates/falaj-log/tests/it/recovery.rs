//! Starts: after a clean end, after a crash, and over damaged files.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use falaj_log::{Head, Log, LogError, LogOptions, Settings};

use crate::support::{
    Dice, Faulty, FaultyDisk, batch, copy, counted, numbers, on, open, options, segments,
    small_segments,
};

/// A log with batches of 3 records each, not closed; returns the end.
fn written(folder: &Path, batches: i64, settings: Settings) -> (Log, i64) {
    let log = open(folder);
    let topic = log.create("t", 1, settings).unwrap();
    for n in 0..batches {
        topic
            .partition(0)
            .unwrap()
            .append(batch(n * 3..n * 3 + 3))
            .unwrap();
    }
    (log, batches * 3)
}

fn read_all(log: &Log) -> Vec<(i64, i64)> {
    let topic = log.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    numbers(&partition, partition.offsets().start, 1000)
}

fn damage(file: &Path, at: u64) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

#[test]
fn everything_acknowledged_is_there_after_a_crash_and_after_a_clean_end() {
    for segment_bytes in [1, 700, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let (log, end) = written(&dir.path().join("a"), 20, small_segments(segment_bytes));
        copy(&dir.path().join("a"), &dir.path().join("crashed"));
        drop(log);
        for which in ["a", "crashed"] {
            let log = open(&dir.path().join(which));
            assert_eq!(read_all(&log), counted(0..end), "{which} {segment_bytes}");
            let topic = log.topic("t").unwrap();
            let partition = topic.partition(0).unwrap();
            assert_eq!(partition.highest("file"), Some(59));
            assert_eq!(partition.highest("other"), None);
            assert_eq!(partition.append(batch([60])).unwrap().offsets, end..end + 1);
            assert_eq!(partition.highest("file"), Some(60));
        }
    }
}

#[test]
fn a_torn_end_is_cut_at_every_byte_of_the_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (log, end) = written(&dir.path().join("a"), 4, Settings::default());
    let file = segments(&dir.path().join("a")).remove(0);
    let before = fs::metadata(&file).unwrap().len();
    log.topic("t")
        .unwrap()
        .partition(0)
        .unwrap()
        .append(batch(end..end + 3))
        .unwrap();
    let length = fs::metadata(&file).unwrap().len();
    for cut in before..length {
        {
            let zeros = if cut % 2 == 0 { 0 } else { 100 };
            let torn = dir.path().join("torn");
            copy(&dir.path().join("a"), &torn);
            let file = fs::OpenOptions::new()
                .write(true)
                .open(&segments(&torn)[0])
                .unwrap();
            file.set_len(cut).unwrap();
            file.set_len(cut + zeros).unwrap();
            let log = open(&torn);
            assert_eq!(read_all(&log), counted(0..end), "cut at {cut}");
            assert_eq!(fs::metadata(&segments(&torn)[0]).unwrap().len(), before);
            let topic = log.topic("t").unwrap();
            assert_eq!(topic.partition(0).unwrap().highest("file"), Some(11));
            topic.partition(0).unwrap().append(batch([end])).unwrap();
            assert_eq!(read_all(&log), counted(0..end + 1));
            drop((topic, log));
            if cut % 16 == 0 {
                assert_eq!(read_all(&open(&torn)), counted(0..end + 1));
            }
            fs::remove_dir_all(&torn).unwrap();
        }
    }
}

#[test]
fn a_flipped_byte_is_an_error_that_names_file_and_byte_and_only_in_the_last_batch_a_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, end) = written(&dir.path().join("a"), 4, Settings::default());
    let bytes = fs::read(&segments(&dir.path().join("a"))[0]).unwrap();
    let length = bytes.len() as u64;
    let mut starts = vec![0];
    while let Some(head) = Head::parse(&bytes[*starts.last().unwrap()..]) {
        starts.push(starts.last().unwrap() + head.bytes);
    }
    assert_eq!((starts.len(), starts.pop()), (5, Some(bytes.len())));
    for at in (0..length).step_by(3) {
        let start = *starts.iter().rfind(|s| **s as u64 <= at).unwrap() as u64;
        // These four bytes are the broker's own (leader epoch): no checksum covers them.
        if (12..16).contains(&(at - start)) {
            continue;
        }
        let copied = dir.path().join("copy");
        copy(&dir.path().join("a"), &copied);
        let file = segments(&copied).remove(0);
        damage(&file, at);
        let opened = Log::open(&copied, options());
        if start == starts[3] as u64 {
            assert_eq!(read_all(&opened.unwrap()), counted(0..end - 3), "byte {at}");
        } else {
            match opened.err() {
                Some(LogError::Damaged { path, at: byte, .. }) => {
                    assert_eq!((path, byte), (file.clone(), start));
                }
                other => panic!("byte {at}: {other:?}"),
            }
            assert_eq!(
                fs::metadata(&file).unwrap().len(),
                length,
                "nothing was cut"
            );
        }
        fs::remove_dir_all(&copied).unwrap();
    }
}

#[test]
fn random_crashes_and_damage_never_lose_or_change_a_record_silently() {
    for seed in 1..=15 {
        let mut dice = Dice(seed * 0x9E37_79B9_7F4A_7C15);
        let dir = tempfile::tempdir().unwrap();
        let mut next = 0;
        let folder = dir.path().join("a");
        // Some lives, each of which ends cleanly or by a crash.
        for life in 0..3 {
            let log = Log::open(
                &folder,
                LogOptions {
                    snapshot_bytes: 500,
                    ..options()
                },
            )
            .unwrap();
            let topic = match log.topic("t") {
                Some(topic) => topic,
                None => log.create("t", 1, small_segments(800)).unwrap(),
            };
            for _ in 0..dice.below(12) {
                let size = 1 + i64::try_from(dice.below(4)).unwrap();
                topic
                    .partition(0)
                    .unwrap()
                    .append(batch(next..next + size))
                    .unwrap();
                next += size;
            }
            let crash = dir.path().join(format!("crash{life}"));
            copy(&folder, &crash);
            drop((topic, log));
            if dice.below(2) == 0 {
                fs::remove_dir_all(&folder).unwrap();
                fs::rename(&crash, &folder).unwrap();
            }
        }
        if dice.below(3) == 0 {
            // A missing snapshot or index costs time only.
            let _ = fs::remove_file(folder.join("t/0/partition.snapshot"));
        }
        let files = segments(&folder);
        let file = &files[usize::try_from(dice.below(files.len() as u64)).unwrap()];
        let length = fs::metadata(file).unwrap().len();
        let intact = length == 0 || dice.below(4) == 0;
        if !intact && dice.below(2) == 0 {
            let file = fs::OpenOptions::new().write(true).open(file).unwrap();
            file.set_len(dice.below(length)).unwrap();
        } else if !intact {
            damage(file, dice.below(length));
        }
        match Log::open(&folder, options()) {
            Err(LogError::Damaged { .. } | LogError::Missing { .. }) => assert!(!intact),
            Err(other) => panic!("seed {seed}: {other}"),
            Ok(log) => {
                let topic = log.topic("t").unwrap();
                let partition = topic.partition(0).unwrap();
                let end = partition.offsets().end;
                assert!(end == next || !intact, "seed {seed}");
                // Damage below a snapshot is not looked for at start; reading finds most of it,
                // and what it does not find is inside a value, whose checksum travels with it.
                let read =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read_all(&log)));
                if intact {
                    assert_eq!(read.unwrap(), counted(0..next), "seed {seed}");
                }
            }
        }
    }
}

#[test]
fn a_missing_segment_is_an_error_unless_it_is_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let (log, end) = written(&dir.path().join("a"), 10, small_segments(500));
    drop(log);
    let count = segments(&dir.path().join("a")).len();
    assert!(count > 3, "{count} segments");
    for snapshot in [true, false] {
        for gone in 0..count {
            let copied = dir.path().join("copy");
            copy(&dir.path().join("a"), &copied);
            if !snapshot {
                fs::remove_file(copied.join("t/0/partition.snapshot")).unwrap();
            }
            let file = segments(&copied).remove(gone);
            fs::remove_file(&file).unwrap();
            let opened = Log::open(&copied, options());
            if gone == 0 {
                let read = read_all(&opened.unwrap());
                assert!(read[0].0 > 0 && read.last() == Some(&(end - 1, end - 1)));
            } else if gone == count - 1 && !snapshot {
                // Nothing is left that tells of it.
                assert!(read_all(&opened.unwrap()).len() < usize::try_from(end).unwrap());
            } else {
                assert!(
                    matches!(opened.err(), Some(LogError::Missing { .. })),
                    "{gone}"
                );
            }
            fs::remove_dir_all(&copied).unwrap();
        }
    }
}

#[test]
fn a_missing_partition_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = written(dir.path(), 3, Settings::default());
    drop(log);
    fs::remove_dir_all(dir.path().join("t/0")).unwrap();
    let error = Log::open(dir.path(), options()).err().unwrap();
    assert!(matches!(error, LogError::Files { action: "list", .. }));
}

#[test]
fn a_file_shorter_than_its_snapshot_knows_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = written(dir.path(), 10, Settings::default());
    drop(log);
    let file = segments(dir.path()).remove(0);
    let length = fs::metadata(&file).unwrap().len();
    let cut = fs::OpenOptions::new().write(true).open(&file).unwrap();
    cut.set_len(length - 1).unwrap();
    let error = Log::open(dir.path(), options()).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "`{}` is damaged at byte {}: it was {length} bytes long and is {}",
            file.display(),
            length - 1,
            length - 1
        )
    );
}

#[test]
fn damaged_snapshots_and_indexes_only_cost_time() {
    let dir = tempfile::tempdir().unwrap();
    let (log, end) = written(&dir.path().join("a"), 30, small_segments(1500));
    drop(log);
    let folder = dir.path().join("a/t/0");
    let beside: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e != "log"))
        .collect();
    assert!(beside.iter().any(|p| p.ends_with("partition.snapshot")) && beside.len() > 2);
    for remove in [true, false] {
        for file in &beside {
            let copied = dir.path().join("copy");
            copy(&dir.path().join("a"), &copied);
            let file = copied.join("t/0").join(file.file_name().unwrap());
            if remove {
                fs::remove_file(&file).unwrap();
            } else {
                damage(&file, fs::metadata(&file).unwrap().len() / 2);
            }
            let log = open(&copied);
            assert_eq!(read_all(&log), counted(0..end), "{}", file.display());
            assert_eq!(
                log.topic("t")
                    .unwrap()
                    .partition(0)
                    .unwrap()
                    .highest("file"),
                Some(end.unsigned_abs() - 1)
            );
            drop(log);
            fs::remove_dir_all(&copied).unwrap();
        }
    }
}

#[test]
fn a_start_reads_only_what_came_after_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (log, end) = written(&dir.path().join("a"), 200, small_segments(2000));
    drop(log);
    // Damage below the snapshot is not seen by a start, so it did not read there.
    damage(&segments(&dir.path().join("a"))[0], 200);
    let log = open(&dir.path().join("a"));
    assert_eq!(
        log.topic("t").unwrap().partition(0).unwrap().offsets(),
        0..end
    );
}

#[test]
fn what_a_failed_start_of_a_segment_leaves_behind_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let (log, end) = written(&dir.path().join("a"), 5, Settings::default());
    copy(&dir.path().join("a"), &dir.path().join("b"));
    drop(log);
    fs::write(dir.path().join("b/t/0/00000000000000000006.log"), b"").unwrap();
    fs::write(dir.path().join("b/t/0/partition.new"), b"half").unwrap();
    fs::create_dir(dir.path().join("b/new~1")).unwrap();
    fs::create_dir(dir.path().join("b/gone~2")).unwrap();
    let log = open(&dir.path().join("b"));
    assert_eq!(read_all(&log), counted(0..end));
    assert_eq!(segments(&dir.path().join("b")).len(), 1);
    assert_eq!(fs::read_dir(dir.path().join("b")).unwrap().count(), 1);
}

#[test]
fn what_a_crashed_process_wrote_is_synced_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, end) = written(&dir.path().join("a"), 5, Settings::default());
    copy(&dir.path().join("a"), &dir.path().join("b"));
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, &dir.path().join("b"));
    assert!(faulty.syncs.load(std::sync::atomic::Ordering::SeqCst) > 0);
    assert_eq!(read_all(&log), counted(0..end));
    // A disk that fails just then is an error, not a log that reads what may vanish.
    copy(&dir.path().join("a"), &dir.path().join("c"));
    faulty
        .no_sync
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let disk = Arc::new(FaultyDisk(Arc::clone(&faulty)));
    let opened = Log::open(&dir.path().join("c"), LogOptions { disk, ..options() });
    assert!(matches!(opened.err(), Some(LogError::Files { .. })));
}

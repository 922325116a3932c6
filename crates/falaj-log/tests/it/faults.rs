//! A disk that is full, and a disk that fails.

use std::sync::atomic::Ordering;

use falaj_log::{LogError, Settings};
use falaj_record::Hint;

use crate::support::{Faulty, batch, copy, counted, numbers, on, open, small_segments};

#[test]
fn a_full_disk_fails_the_append_and_writing_goes_on_when_there_is_room() {
    for (no_cut, segment_bytes) in [(false, 1 << 20), (true, 1 << 20), (true, 400)] {
        for room in (0..i64::try_from(batch(3..6).len()).unwrap()).step_by(11) {
            let dir = tempfile::tempdir().unwrap();
            let faulty = Faulty::with_room(i64::MAX);
            let log = on(&faulty, &dir.path().join("a"));
            let topic = log.create("t", 1, small_segments(segment_bytes)).unwrap();
            let partition = topic.partition(0).unwrap();
            partition.append(batch(0..3)).unwrap();

            faulty.room.store(room, Ordering::SeqCst);
            faulty.no_cut.store(no_cut, Ordering::SeqCst);
            let error = partition.append(batch(3..6)).unwrap_err();
            assert!(
                error.disk_full() && matches!(error, LogError::Write { .. }),
                "{error}"
            );
            assert_eq!(
                error.hint().as_deref(),
                Some("free some space on the disk; writing goes on by itself")
            );
            assert_eq!(numbers(&partition, 0, 1000), counted(0..3));
            // A crash now finds what was acknowledged.
            copy(&dir.path().join("a"), &dir.path().join("crashed"));
            let crashed = open(&dir.path().join("crashed"));
            assert_eq!(
                numbers(&crashed.topic("t").unwrap().partition(0).unwrap(), 0, 1000),
                counted(0..3)
            );

            faulty.room.store(i64::MAX, Ordering::SeqCst);
            if no_cut {
                assert!(matches!(
                    partition.append(batch(3..4)),
                    Err(LogError::Write { .. })
                ));
                faulty.no_cut.store(false, Ordering::SeqCst);
            }
            assert_eq!(partition.append(batch(3..4)).unwrap().offsets, 3..4);
            assert_eq!(numbers(&partition, 0, 1000), counted(0..4));
            drop((topic, log));
            let log = open(&dir.path().join("a"));
            assert_eq!(
                numbers(&log.topic("t").unwrap().partition(0).unwrap(), 0, 1000),
                counted(0..4)
            );
        }
    }
}

#[test]
fn a_segment_that_cannot_be_made_fails_the_append_only() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let topic = log.create("t", 1, small_segments(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(batch(0..3)).unwrap();
    faulty.no_create.store(true, Ordering::SeqCst);
    assert!(partition.append(batch(3..6)).unwrap_err().disk_full());
    faulty.no_create.store(false, Ordering::SeqCst);
    partition.append(batch(3..6)).unwrap();
    assert_eq!(numbers(&partition, 0, 1000), counted(0..6));
    drop((topic, log));
    assert_eq!(
        numbers(
            &open(dir.path()).topic("t").unwrap().partition(0).unwrap(),
            0,
            1000
        ),
        counted(0..6)
    );
}

#[test]
fn a_failed_sync_ends_writing_until_restart_and_is_never_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let topic = log.create("t", 2, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(batch(0..3)).unwrap();
    faulty.no_sync.store(true, Ordering::SeqCst);
    let error = partition.append(batch(3..6)).unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }));
    assert!(
        error
            .to_string()
            .ends_with("could not be synced to the disk; its partition takes no more writes")
    );
    assert!(error.hint().unwrap().contains("start falaj again"));
    faulty.no_sync.store(false, Ordering::SeqCst);
    let syncs = faulty.syncs.load(Ordering::SeqCst);
    assert!(matches!(
        partition.append(batch(3..6)),
        Err(LogError::Poisoned { .. })
    ));
    assert_eq!(
        faulty.syncs.load(Ordering::SeqCst),
        syncs,
        "no sync after a failed one"
    );
    // What was durable before is read on; other partitions go on.
    assert_eq!(numbers(&partition, 0, 1000), counted(0..3));
    topic.partition(1).unwrap().append(batch(0..3)).unwrap();
    drop((topic, log));
    let log = open(dir.path());
    let topic = log.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    let end = partition.offsets().end;
    assert!(
        end == 3 || end == 6,
        "what was not acknowledged may be there or not"
    );
    partition.append(batch([end])).unwrap();
    assert_eq!(numbers(&partition, 0, 1000), counted(0..end + 1));
}

#[test]
fn a_failed_sync_at_a_roll_is_final_too() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = Faulty::with_room(i64::MAX);
    let log = on(&faulty, dir.path());
    let topic = log.create("t", 1, small_segments(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(batch(0..3)).unwrap();
    faulty.no_sync.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert!(matches!(
            partition.append(batch(3..6)),
            Err(LogError::Poisoned { .. })
        ));
    }
    assert_eq!(numbers(&partition, 0, 1000), counted(0..3));
}

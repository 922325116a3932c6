//! Deleting records before an offset.

use falaj_log::{LogError, Settings};

use crate::support::{batch, copy, counted, numbers, open, segments, small_segments};

#[test]
fn the_start_moves_on_and_stays_there_over_a_crash() {
    for segment_bytes in [1, 600, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        let log = open(&folder);
        let topic = log.create("t", 1, small_segments(segment_bytes)).unwrap();
        let partition = topic.partition(0).unwrap();
        for n in 0..10 {
            partition.append(batch(n * 3..n * 3 + 3)).unwrap();
        }
        let mut start = 0;
        for (wanted, gives) in [
            (0, 0),
            (4, 4),
            (2, 4),
            (4, 4),
            (12, 12),
            (29, 29),
            (-1, 30),
            (30, 30),
        ] {
            assert_eq!(partition.delete_before(wanted).unwrap(), gives);
            start = gives.max(start);
            assert_eq!(partition.offsets(), start..30);
            assert_eq!(numbers(&partition, start, 500), counted(start..30));
            if start > 0 {
                assert!(matches!(
                    partition.read(start - 1, 500),
                    Err(LogError::Overtaken { .. })
                ));
            }
            let crashed = dir.path().join(format!("crashed{wanted}"));
            copy(&folder, &crashed);
            let log = open(&crashed);
            let partition = log.topic("t").unwrap().partition(0).unwrap();
            assert_eq!(partition.offsets(), start..30, "{segment_bytes} {wanted}");
            assert_eq!(numbers(&partition, start, 500), counted(start..30));
            assert_eq!(partition.highest("file"), Some(29));
            assert_eq!(partition.append(batch([30])).unwrap().offsets, 30..31);
            drop((partition, log));
            std::fs::remove_dir_all(&crashed).unwrap();
        }
        assert!(matches!(
            partition.delete_before(31),
            Err(LogError::BeyondEnd { end: 30, .. })
        ));
        assert!(partition.delete_before(-2).is_err());
        // Nothing of what was deleted is left in a file.
        assert_eq!(partition.bytes(), 0);
        let left: u64 = segments(&folder)
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert_eq!(left, 0);
        partition.append(batch([30])).unwrap();
        assert_eq!(numbers(&partition, 30, 500), [(30, 30)]);
        drop((partition, topic, log));
        let log = open(&folder);
        let partition = log.topic("t").unwrap().partition(0).unwrap();
        assert_eq!(partition.offsets(), 30..31);
        log.close();
        assert!(matches!(partition.delete_before(-1), Err(LogError::Closed)));
    }
}

#[test]
fn what_cannot_be_written_down_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create("t", 1, Settings::default()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(batch(0..5)).unwrap();
    // A folder stands where the snapshot's replacement would be written.
    std::fs::create_dir(dir.path().join("t/0/partition.new")).unwrap();
    assert!(matches!(
        partition.delete_before(3),
        Err(LogError::Files { .. })
    ));
    assert_eq!(partition.offsets(), 0..5);
    assert_eq!(numbers(&partition, 0, 500), counted(0..5));
    std::fs::remove_dir(dir.path().join("t/0/partition.new")).unwrap();
    assert_eq!(partition.delete_before(3).unwrap(), 3);
}

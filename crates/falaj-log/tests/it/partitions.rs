//! More partitions, and what topics are told to take.

use std::fs;

use falaj_log::{Batches, Cleanup, LogError, Settings, Stamp};

use crate::support::{COMPRESSIONS, batch, copy, counted, numbers, open, packed, record};

#[test]
fn partitions_are_added_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a");
    let log = open(&folder);
    let topic = log.create("t", 2, Settings::default()).unwrap();
    topic.partition(1).unwrap().append(batch(0..3)).unwrap();
    for count in [-1, 0, 1, 2, 1025] {
        assert!(topic.add_partitions(count).is_err(), "{count}");
    }
    assert_eq!(
        topic.add_partitions(1).unwrap_err().to_string(),
        "`t` has 2 partitions already, which cannot become 1"
    );
    // Something is in the way: none is added, and nothing is left of those that were begun.
    fs::create_dir(folder.join("t/4")).unwrap();
    fs::write(folder.join("t/4/file"), "x").unwrap();
    assert!(matches!(
        topic.add_partitions(5),
        Err(LogError::Files { .. })
    ));
    assert_eq!(topic.partitions().len(), 2);
    assert!(!folder.join("t/2").exists() && !folder.join("t/3").exists());
    fs::remove_dir_all(folder.join("t/4")).unwrap();
    // A crash before the topic's file tells of them.
    fs::create_dir(folder.join("t/2")).unwrap();
    fs::write(folder.join("t/2/00000000000000000000.log"), "").unwrap();
    copy(&folder, &dir.path().join("crashed"));
    fs::remove_dir_all(folder.join("t/2")).unwrap();
    let crashed = open(&dir.path().join("crashed"));
    let of_crashed = crashed.topic("t").unwrap();
    assert_eq!(of_crashed.partitions().len(), 2);
    of_crashed.add_partitions(3).unwrap();

    topic.add_partitions(5).unwrap();
    assert_eq!(topic.partitions().len(), 5);
    topic.partition(4).unwrap().append(batch(0..7)).unwrap();
    copy(&folder, &dir.path().join("after"));
    let again = open(&dir.path().join("after"));
    let topic_again = again.topic("t").unwrap();
    assert_eq!(
        (topic_again.partitions().len(), topic_again.id()),
        (5, topic.id())
    );
    let read = numbers(&topic_again.partition(4).unwrap(), 0, 500);
    assert_eq!(read, counted(0..7));
    // A topic that was deleted is not changed any more, even where another has its name.
    log.delete("t").unwrap();
    log.create("t", 1, Settings::default()).unwrap();
    assert!(matches!(topic.add_partitions(9), Err(LogError::Deleted(_))));
    let settings = Settings {
        retention_ms: None,
        ..Settings::default()
    };
    assert!(matches!(topic.change(settings), Err(LogError::Deleted(_))));
    assert_eq!(log.topic("t").unwrap().partitions().len(), 1);
    log.close();
    assert!(matches!(
        log.topic("t").unwrap().add_partitions(9),
        Err(LogError::Closed)
    ));
}

#[test]
fn a_topic_made_before_a_setting_existed_has_its_default() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.create("t", 1, Settings::default()).unwrap();
    drop(log);
    let file = dir.path().join("t/topic.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let settings = json["settings"].as_object_mut().unwrap();
    for new in [
        "cleanup",
        "delete_retention_ms",
        "compaction_lag_ms",
        "batch_bytes_max",
        "stamp",
    ] {
        assert!(settings.remove(new).is_some(), "{new}");
    }
    fs::write(&file, json.to_string()).unwrap();
    let settings = open(dir.path()).topic("t").unwrap().settings();
    assert_eq!(settings, Settings::default());
    assert_eq!(
        (settings.cleanup, settings.stamp),
        (Cleanup::Delete, Stamp::Create)
    );
    assert_eq!(
        (settings.delete_retention_ms, settings.batch_bytes_max),
        (86_400_000, 1_048_588)
    );
}

#[test]
fn a_larger_batch_than_the_topic_takes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let bytes = u32::try_from(batch(0..3).len()).unwrap();
    for (batch_bytes_max, fits) in [(bytes, true), (bytes - 1, false)] {
        let settings = Settings {
            batch_bytes_max,
            ..Settings::default()
        };
        let topic = log.create(&format!("t{fits}"), 1, settings).unwrap();
        let appended = topic.partition(0).unwrap().append(batch(0..3));
        match appended {
            Ok(_) => assert!(fits),
            Err(LogError::TooLarge { max, .. }) => assert!(!fits && max == batch_bytes_max),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_compacted_topic_takes_only_records_with_keys_compressed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let settings = Settings {
        cleanup: Cleanup::Compact,
        ..Settings::default()
    };
    let topic = log.create("t", 1, settings).unwrap();
    let partition = topic.partition(0).unwrap();
    for compression in COMPRESSIONS {
        let of = |last: Option<&'static str>| {
            let first = record(0, 7, Some("k".into()), Some("v".into()));
            let second = record(1, 7, last.map(Into::into), None);
            packed(&[first, second], compression)
        };
        let append = |bytes| partition.append(Batches::checked(bytes).unwrap());
        let error = append(of(None)).unwrap_err();
        assert!(
            matches!(error, LogError::NoKey { .. }),
            "{compression:?}: {error}"
        );
        append(of(Some("k"))).unwrap();
        append(of(Some(""))).unwrap();
        if compression as i16 != 0 {
            // What lies inside is looked at here, so it is checked here.
            let broken = crate::support::resealed(of(Some("k")), |b| {
                let end = b.len();
                b[end - 9..].fill(0x55);
                b[75..].fill(0x55);
            });
            let error = append(broken).unwrap_err();
            assert!(matches!(error, LogError::Refused { .. }), "{error}");
        }
    }
    assert_eq!(partition.offsets(), 0..20);
}

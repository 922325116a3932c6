//! Files as people have them: lines, saved replies, damaged and missing ones.

use std::path::Path;

use falaj_record::{ByteSize, Hint, Raw};
use falaj_source::{
    FileConfig, IngestConfig, Opening, Source, SourceConfig, SourceError, SourceState, open, reread,
};
use tokio_util::sync::CancellationToken;

async fn opened(
    folder: &Path,
    name: &str,
    records: Option<&str>,
) -> Result<Box<dyn Source>, SourceError> {
    let config = SourceConfig::File(FileConfig {
        path: name.into(),
        records: records.map(Into::into),
    });
    let opening = Opening {
        max_record: ByteSize(1000),
        ..Opening::new(folder, CancellationToken::new())
    };
    open(&config, opening).await
}

async fn rest(source: &mut dyn Source) -> Vec<Raw> {
    let mut records = Vec::new();
    while let Some(portion) = source.next().await.expect("readable") {
        let batch = portion.raws;
        assert!((1..=4096).contains(&batch.len()));
        records.extend(batch);
    }
    records
}

async fn read(text: &[u8], path: Option<&str>, after: u64) -> Vec<(u64, Vec<u8>)> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("records"), text).expect("written");
    let mut source = opened(folder.path(), "records", path).await.expect("opens");
    source.resume_after(0, after);
    let records = rest(&mut *source).await;
    let status = source.status().borrow().clone();
    assert_eq!(status.state, SourceState::Ended);
    assert_eq!(status.records, records.len() as u64);
    records
        .iter()
        .map(|raw| (raw.position, raw.bytes.to_vec()))
        .collect()
}

#[tokio::test]
async fn lines_and_saved_replies_are_told_apart_and_numbered() {
    for (text, path, records) in [
        (
            &b"{\"n\":1}\n{\"n\":2}\n"[..],
            None,
            vec![(1, &b"{\"n\":1}"[..]), (2, b"{\"n\":2}")],
        ),
        (
            b"\xef\xbb\xbf{\"n\":1}\r\n\r\n  \n{\"n\":2}",
            None,
            vec![(1, b"{\"n\":1}"), (4, b"{\"n\":2}")],
        ),
        (
            b"{\"n\":\"\xff\"}\nnonsense\n",
            None,
            vec![(1, b"{\"n\":\"\xff\"}"), (2, b"nonsense")],
        ),
        (
            b"\xef\xbb\xbf[ {\"n\":1},\n{\"n\":2} ]\n",
            None,
            vec![(1, b"{\"n\":1}"), (2, b"{\"n\":2}")],
        ),
        (
            b"{\"results\":[{\"n\":1}],\"info\":{}}",
            None,
            vec![(1, b"{\"n\":1}")],
        ),
        (
            b"{\"results\":[{\"n\":1}]}\n{\"results\":[{\"n\":2}]}\n",
            None,
            vec![(1, b"{\"n\":1}"), (2, b"{\"n\":2}")],
        ),
        (
            b"{\"info\":{},\"data\":{\"users\":[1,2]}}",
            Some("data.users"),
            vec![(1, b"1"), (2, b"2")],
        ),
        (b"", None, vec![]),
        (b"", Some("results"), vec![]),
        (b"\n\n", None, vec![]),
        (b"\xef\xbb\xbf", None, vec![]),
        (b"[]", None, vec![]),
    ] {
        for after in 0..3 {
            let expected: Vec<_> = records
                .iter()
                .filter(|(position, _)| *position > after)
                .map(|(position, bytes)| (*position, bytes.to_vec()))
                .collect();
            assert_eq!(
                read(text, path, after).await,
                expected,
                "{}",
                text.escape_ascii()
            );
        }
    }
}

#[tokio::test]
async fn a_long_file_comes_in_order_and_goes_on_after_any_line() {
    let mut text = String::new();
    for n in 1..=150_000 {
        text.push_str("{\"n\":");
        text.push_str(&n.to_string());
        text.push_str(",\"x\":\"a text that makes the file longer than a few pieces of it\"}\n");
    }
    let all = read(text.as_bytes(), None, 0).await;
    let lines: Vec<_> = (1..)
        .zip(text.lines().map(|line| line.as_bytes().to_vec()))
        .collect();
    assert!(all == lines);
    for after in [1, 4096, 77_777, 149_999, 150_000, 200_000] {
        let at = usize::try_from(after).expect("small").min(lines.len());
        assert!(
            read(text.as_bytes(), None, after).await == lines[at..],
            "after {after}"
        );
    }
}

#[tokio::test]
async fn a_line_beyond_max_record_is_handed_on_cut_to_be_rejected() {
    let long = vec![b'x'; 9 << 20];
    let text = [b"{\"n\":1}\n", &long[..], b"\n{\"n\":2}\n", &long[..]].concat();
    let records = read(&text, None, 0).await;
    let lengths: Vec<_> = records
        .iter()
        .map(|(at, bytes)| (*at, bytes.len()))
        .collect();
    // Longer than the 1000 bytes that the gate takes, and far from 9 MB.
    assert_eq!(
        lengths.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert_eq!((lengths[0].1, lengths[2].1), (7, 7));
    assert_eq!((lengths[1].1, lengths[3].1), (1001, 1001));
}

#[tokio::test]
async fn a_file_is_known_again_by_its_path_and_first_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let material = async |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
        let source = opened(folder.path(), name, None).await.expect("opens");
        assert_eq!(
            (source.kind(), source.finite(), source.label()),
            ("file", true, name)
        );
        source.material().to_vec()
    };
    let first = material("a", "{\"n\":1}\n{\"n\":2}\n").await;
    assert_eq!(first, b"a\n\n{\"n\":1}");
    assert_eq!(
        material("a", "\n{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n").await,
        first
    );
    assert_ne!(material("a", "{\"n\":5}\n").await, first);
    assert_ne!(material("b", "{\"n\":1}\n").await, first);
    assert_eq!(material("a", "[{\"n\":1}]").await, first);
    assert_eq!(material("a", "").await, b"a\n\n");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_with_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("folder")).expect("made");
    let shown = |name: &str| folder.path().join(name).display().to_string();
    for (name, text, path, message) in [
        ("missing", None, None, "does not exist"),
        ("folder", None, None, "is a directory"),
        (
            "gzip",
            Some(&b"\x1f\x8b\x08\x00"[..]),
            None,
            "is gzip-compressed",
        ),
        (
            "utf16",
            Some(b"\xff\xfe{\0"),
            None,
            "is UTF-16 text, not UTF-8",
        ),
        (
            "cut",
            Some(b"{\"results\":[{\"n\":\"canary\"},{"),
            None,
            "breaks off in the middle of its JSON",
        ),
        (
            "bad",
            Some(b"[{\"n\":1}\n,canary]"),
            None,
            "is not JSON (line 2)",
        ),
        (
            "error",
            Some(b"{\"error\":\"canary\"}"),
            Some("results"),
            "carries an `error` in place of records",
        ),
        (
            "other",
            Some(b"{\"canary\":[]}"),
            Some("a.b"),
            "has nothing at `a.b`",
        ),
    ] {
        if let Some(text) = text {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let Err(error) = opened(folder.path(), name, path).await else {
            panic!("opened: {name}")
        };
        assert_eq!(
            error.to_string(),
            format!("source file `{}` {message}", shown(name))
        );
        assert!(!format!("{error:?}").contains("canary"), "{name}");
        let damaged = matches!(name, "cut" | "bad" | "error");
        assert_eq!(error.hint().is_none(), damaged, "{name}");
    }
    let error = opened(folder.path(), "gzip", Some("a."))
        .await
        .err()
        .expect("refused");
    assert_eq!(
        error.to_string(),
        "`records` of the file source is not a path: `a.`"
    );
}

#[tokio::test]
async fn a_stop_ends_reading_and_the_thread_behind_it() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("records"),
        "{\"n\":1}\n".repeat(1_000_000),
    )
    .expect("written");
    let config = SourceConfig::File(FileConfig {
        path: "records".into(),
        records: None,
    });
    let stop = CancellationToken::new();
    let mut source = open(&config, Opening::new(folder.path(), stop.clone()))
        .await
        .expect("opens");
    let batch = source
        .next()
        .await
        .expect("readable")
        .expect("not at the end")
        .raws;
    assert_eq!(batch.len(), 4096);
    stop.cancel();
    assert!(source.next().await.expect("no error").is_none());
    assert_eq!(source.status().borrow().state, SourceState::Ok);
    let refused = open(&config, Opening::new(folder.path(), stop)).await;
    assert!(matches!(refused, Err(SourceError::Stopped)));
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_gives_each_line_as_it_comes() {
    use std::io::Write;

    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    // A line is written only after the one before it was handed on.
    let (go, turn) = std::sync::mpsc::channel::<u32>();
    let writer = std::thread::spawn(move || {
        let mut pipe = std::fs::File::create(pipe).expect("opens for writing");
        for n in turn {
            writeln!(pipe, "{{\"n\":{n}}}").expect("written");
        }
    });
    go.send(1).expect("the writer lives");
    let mut source = opened(folder.path(), "pipe", None).await.expect("opens");
    for n in 1..=3_u32 {
        let batch = source
            .next()
            .await
            .expect("readable")
            .expect("not at the end")
            .raws;
        assert_eq!(batch[0].bytes, format!("{{\"n\":{n}}}"));
        assert_eq!((batch.len(), batch[0].position), (1, u64::from(n)));
        go.send(n + 1).expect("the writer lives");
    }
    drop(go);
    let last = rest(&mut *source).await;
    assert_eq!(last.len(), 1);
    writer.join().expect("the writer ends");
}

/// The records of a file at positions, in calls of a few; how many positions had none.
async fn read_again(
    text: &[u8],
    path: Option<&str>,
    calls: &[&[u64]],
) -> (Vec<(u64, Vec<u8>)>, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("records"), text).expect("written");
    let config = SourceConfig::File(FileConfig {
        path: "records".into(),
        records: path.map(Into::into),
    });
    let opening = Opening {
        max_record: ByteSize(1000),
        ..Opening::new(folder.path(), CancellationToken::new())
    };
    let source = open(&config, opening.clone()).await.expect("opens");
    let mut again = reread(&config, opening).await.expect("opens again");
    assert_eq!((again.kind(), again.parted()), ("file", false));
    assert_eq!(again.material(), source.material(), "it is the same source");
    let (mut records, mut gone) = (Vec::new(), 0);
    for wanted in calls {
        let mut wanted = *wanted;
        while !wanted.is_empty() {
            let found = again.read(0, wanted).await.expect("readable");
            let found = found.expect("not stopped");
            assert!((1..=wanted.len()).contains(&found.looked_at));
            gone += (found.looked_at - found.raws.len()) as u64;
            records.extend(found.raws.iter().map(|r| (r.position, r.bytes.to_vec())));
            wanted = &wanted[found.looked_at..];
        }
    }
    (records, gone)
}

#[tokio::test]
async fn chosen_records_are_read_again_and_those_that_are_gone_are_told() {
    let line = |n: u32| format!("{{\"n\":{n}}}\n");
    let lines: String = (1..=20_000).map(line).collect();
    let record = |n: u64| (n, format!("{{\"n\":{n}}}").into_bytes());
    let (found, gone) = read_again(
        lines.as_bytes(),
        None,
        &[&[3, 4, 9000], &[9001, 19_999], &[20_000, 20_001, 30_000]],
    )
    .await;
    assert_eq!(found, [3, 4, 9000, 9001, 19_999, 20_000].map(record));
    assert_eq!(gone, 2, "lines beyond the end");

    // A blank line is no record; a line that is too long is handed on, for the gate to say so.
    let text = format!("{}\n\r\n{}\n{}", line(1), "x".repeat(2000), line(5));
    let (found, gone) = read_again(text.as_bytes(), None, &[&[1, 2, 3], &[4, 5]]).await;
    assert_eq!(gone, 2);
    assert_eq!(found[0], record(1));
    assert!(found[1].0 == 4 && found[1].1.len() > 1000);
    assert_eq!(found[2], record(5));

    let (found, gone) = read_again(
        b"{\"users\":[{\"n\":1},{\"n\":2}]}{\"users\":[{\"n\":3}]}",
        Some("users"),
        &[&[2, 3, 4]],
    )
    .await;
    assert_eq!((found, gone), (vec![record(2), record(3)], 1));
    let (found, gone) = read_again(b"", None, &[&[1]]).await;
    assert_eq!((found, gone), (vec![], 1));
}

#[tokio::test]
async fn what_is_read_again_at_once_is_bounded_and_a_stop_ends_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let big = format!("\"{}\"\n", "x".repeat(3 << 20));
    std::fs::write(folder.path().join("records"), big.repeat(4)).expect("written");
    let config = SourceConfig::File(FileConfig {
        path: "records".into(),
        records: None,
    });
    let stop = CancellationToken::new();
    let opening = Opening::new(folder.path(), stop.clone());
    let mut again = reread(&config, opening).await.expect("opens");
    let found = again.read(0, &[1, 2, 3, 4]).await.expect("readable");
    let found = found.expect("not stopped");
    assert_eq!((found.looked_at, found.raws.len()), (2, 2));
    stop.cancel();
    assert!(again.read(0, &[3, 4]).await.expect("no error").is_none());
}

#[tokio::test]
async fn what_gives_a_record_once_cannot_be_read_again() {
    for (config, kind) in [
        (
            SourceConfig::File(FileConfig {
                path: "-".into(),
                records: None,
            }),
            "file",
        ),
        (SourceConfig::Ingest(IngestConfig::default()), "ingest"),
    ] {
        assert!(!config.gives_again());
        let opening = Opening::new(".", CancellationToken::new());
        let refused = reread(&config, opening).await.err().expect("refused");
        assert!(matches!(refused, SourceError::Unsupported { kind: k } if k == kind));
    }
}

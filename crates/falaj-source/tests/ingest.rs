//! `[source.ingest]` without a server: a desk, a source, and somebody who publishes.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use falaj_record::{At, ByteSize, Hint, Reason, Reject, Secret};
use falaj_source::{
    Desk, Form, Held, IngestConfig, Journalled, Opening, Outcome, Portion, Refusal, Request,
    Source, SourceConfig, SourceError, open,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Not a keyed one: nothing here is secret.
fn digest(kind: &str, bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    for (half, seed) in hash.chunks_mut(8).zip([1, 2]) {
        let mut hasher = DefaultHasher::new();
        (seed, kind, bytes).hash(&mut hasher);
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    hash
}

async fn opened(
    folder: &Path,
    config: &IngestConfig,
    stop: &CancellationToken,
) -> Result<Box<dyn Source>, SourceError> {
    let opening = Opening {
        journal: Some(Journalled {
            path: folder.join("keys.sqlite"),
            digest: Arc::new(digest),
            partitions: 4,
        }),
        ..Opening::new(folder, stop.clone())
    };
    open(&SourceConfig::Ingest(config.clone()), opening).await
}

fn request(body: impl Into<Bytes>, form: Form, key: Option<&'static str>) -> Request {
    Request {
        body: body.into(),
        form,
        key: key.map(|key| Bytes::from_static(key.as_bytes())),
    }
}

async fn send(desk: &Desk, request: Request) -> Result<Value, Refusal> {
    let place = desk.reserve(request.body.len() as u64)?;
    let answer = desk.take(place, request).await?;
    Ok(serde_json::from_str(&answer).expect("JSON"))
}

/// Says that a portion is durable, with those rejected that the gate would not even parse.
async fn publish(source: &mut dyn Source, portion: &Portion) {
    let rejects: Vec<Reject> = portion
        .raws
        .iter()
        .filter(|raw| !raw.bytes.starts_with(b"{"))
        .map(|raw| Reject {
            at: At::Source {
                source: "s".into(),
                position: raw.position,
            },
            reason: Reason::NotJson,
            path: None,
            length: raw.bytes.len() as u64,
            time_ms: 0,
        })
        .collect();
    let outcome = Outcome {
        part: 0,
        position: portion.raws.last().expect("not empty").position,
        published: (portion.raws.len() - rejects.len()) as u64,
        rejects: &rejects,
        withheld: 0,
    };
    source.done(outcome).await;
}

async fn portion(source: &mut dyn Source) -> Portion {
    source.next().await.expect("no error").expect("not stopped")
}

#[tokio::test]
async fn an_answer_comes_after_the_records_are_durable_and_names_rejects_by_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = CancellationToken::new();
    let mut source = opened(folder.path(), &IngestConfig::default(), &stop)
        .await
        .expect("opens");
    assert_eq!(
        (source.kind(), source.finite(), source.rereads()),
        ("ingest", false, false)
    );
    source.resume_after(0, 41);
    let desk = source.desk().expect("requests come in here");
    let lines = "\u{feff}{\"n\":1}\r\n\n  \nnonsense\n{\"n\":2}";
    let mut position = 42;
    for (body, form, want) in [
        (
            lines,
            Form::Lines,
            json!({"in": 3, "published": 2, "rejected": [{"position": 4, "reason": "not_json"}], "withheld": 0}),
        ),
        (
            " {\"n\":[1]} ",
            Form::Json,
            json!({"in": 1, "published": 1, "rejected": [], "withheld": 0}),
        ),
        (
            "\u{feff}[{\"n\":1}, 7 ,{}]",
            Form::Json,
            json!({"in": 3, "published": 2, "rejected": [{"position": 2, "reason": "not_json"}], "withheld": 0}),
        ),
        // No JSON value, but the gate says so of a record.
        (
            "{} {}",
            Form::Json,
            json!({"in": 1, "published": 1, "rejected": [], "withheld": 0}),
        ),
    ] {
        let sent = tokio::spawn({
            let desk = desk.clone();
            async move { send(&desk, request(body, form, None)).await }
        });
        let portion = portion(&mut *source).await;
        assert_eq!(portion.raws[0].position, position, "{body}");
        position += portion.raws.len() as u64;
        assert!(!sent.is_finished(), "answered before it was durable");
        publish(&mut *source, &portion).await;
        assert_eq!(sent.await.expect("no panic"), Ok(want), "{body}");
    }
    let many = "x\n".repeat(300);
    let (answer, ()) = tokio::join!(send(&desk, request(many, Form::Lines, None)), async {
        let portion = portion(&mut *source).await;
        publish(&mut *source, &portion).await;
    });
    let answer = answer.expect("taken");
    assert_eq!(
        (&answer["in"], &answer["published"]),
        (&json!(300), &json!(0))
    );
    assert_eq!(
        answer["rejected"].as_array().expect("a list").len(),
        100,
        "capped"
    );
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_a_status_and_adds_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = CancellationToken::new();
    let source = opened(folder.path(), &IngestConfig::default(), &stop)
        .await
        .expect("opens");
    let desk = source.desk().expect("requests come in here");
    let too_many = "{}\n".repeat(100_001);
    let array = format!("[{}]", vec!["{}"; 100_001].join(","));
    let long: &'static str = "k".repeat(256).leak();
    for (body, form, key, status) in [
        (
            Bytes::from_static(b"{\"n\":\"\xff\"}"),
            Form::Json,
            None,
            400,
        ),
        ("".into(), Form::Json, None, 400),
        (" \n ".into(), Form::Json, None, 400),
        ("\n\r\n".into(), Form::Lines, None, 400),
        ("[]".into(), Form::Json, None, 400),
        ("[{}".into(), Form::Json, None, 400),
        ("[{}] x".into(), Form::Json, None, 400),
        (too_many.into(), Form::Lines, None, 413),
        (array.into(), Form::Json, None, 413),
        ("{}".into(), Form::Json, Some(""), 400),
        ("{}".into(), Form::Json, Some("a b"), 400),
        ("{}".into(), Form::Json, Some("ä"), 400),
        ("{}".into(), Form::Json, Some(long), 400),
    ] {
        let refused = send(&desk, request(body, form, key))
            .await
            .expect_err("refused");
        assert_eq!(refused.status(), status, "{refused}");
        assert!(refused.hint().is_some());
    }
    stop.cancel();
    let refused = send(&desk, request("{}", Form::Json, None)).await;
    assert_eq!(refused.expect_err("it stops").status(), 503);
}

#[tokio::test]
async fn a_full_queue_is_told_at_once_and_whoever_waits_is_told_of_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = CancellationToken::new();
    let config = IngestConfig {
        max_body: ByteSize(4096),
        queue: ByteSize(1),
        token: None,
    };
    let mut source = opened(folder.path(), &config, &stop).await.expect("opens");
    let desk = source.desk().expect("requests come in here");
    // One of the largest always has room; five are counted of it, one for each kB and one more.
    let largest = desk.reserve(4096).expect("room for one");
    assert_eq!(desk.reserve(0).expect_err("full").status(), 429);
    drop(largest);
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let place = desk.reserve(10).expect("room");
            let desk = desk.clone();
            tokio::spawn(async move { desk.take(place, request("{}", Form::Json, None)).await })
        })
        .collect();
    assert_eq!(desk.reserve(0).expect_err("full").status(), 429);
    let first = portion(&mut *source).await;
    publish(&mut *source, &first).await;
    // The second is taken up and never published: falaj stops.
    let _ = portion(&mut *source).await;
    stop.cancel();
    assert!(source.next().await.expect("no error").is_none());
    let mut statuses = Vec::new();
    for one in waiting {
        statuses.push(
            one.await
                .expect("no panic")
                .map_or_else(|e| e.status(), |_| 200),
        );
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503, 503, 503, 503]);
}

#[tokio::test]
async fn a_key_that_comes_again_adds_nothing_and_gets_the_same_answer_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let want = json!({"in": 2, "published": 1, "rejected": [{"position": 2, "reason": "not_json"}], "withheld": 0});
    for round in 0..2 {
        let stop = CancellationToken::new();
        let mut source = opened(folder.path(), &IngestConfig::default(), &stop)
            .await
            .expect("opens");
        let held = Held {
            records: [(0, 1)].into(),
            rejected: Some(2),
        };
        source.resume_with(&held).await.expect("settles");
        source.resume_after(0, round * 2);
        let desk = source.desk().expect("requests come in here");
        let body = || request("{}\nnonsense", Form::Lines, Some("same"));
        let work = tokio::spawn(async move {
            let mut portions = 0;
            while let Some(portion) = source.next().await.expect("no error") {
                portions += 1;
                publish(&mut *source, &portion).await;
            }
            portions
        });
        // Both at once: the second waits for the first.
        let (one, two) = tokio::join!(send(&desk, body()), send(&desk, body()));
        assert_eq!((one, two), (Ok(want.clone()), Ok(want.clone())));
        // Even where the body is another one.
        let other = request("{}", Form::Json, Some("same"));
        assert_eq!(send(&desk, other).await, Ok(want.clone()));
        stop.cancel();
        assert_eq!(work.await.expect("no panic"), u32::from(round == 0));
    }
}

#[tokio::test]
async fn an_interrupted_request_goes_on_at_congruent_positions_with_what_the_topic_lacks() {
    let folder = tempfile::tempdir().expect("a folder");
    let body = || request("{}\n{}\n{}", Form::Lines, Some("key"));
    let stop = CancellationToken::new();
    let mut source = opened(folder.path(), &IngestConfig::default(), &stop)
        .await
        .expect("opens");
    source
        .resume_with(&Held::default())
        .await
        .expect("nothing to settle");
    source.resume_after(0, 9);
    let desk = source.desk().expect("requests come in here");
    let sent = tokio::spawn(async move { send(&desk, body()).await });
    let tried = portion(&mut *source).await;
    assert_eq!(tried.raws[0].position, 10);
    assert_eq!(tried.earlier, falaj_source::Earlier::default());
    // Killed: nobody gets an answer, and partition 3 has the second record.
    drop(source);
    assert_eq!(sent.await.expect("no panic"), Err(Refusal::Stopping));

    let stop = CancellationToken::new();
    let mut source = opened(folder.path(), &IngestConfig::default(), &stop)
        .await
        .expect("opens");
    let held = Held {
        records: [(2, 9), (3, 11)].into(),
        rejected: None,
    };
    source.resume_with(&held).await.expect("settles");
    source.resume_after(0, 11);
    let desk = source.desk().expect("requests come in here");
    let other = request("{}", Form::Json, Some("key"));
    let both = async { tokio::join!(send(&desk, other), send(&desk, body())) };
    let work = async {
        let again = portion(&mut *source).await;
        assert_eq!(
            again.raws[0].position, 14,
            "10 and 14 are congruent modulo 4"
        );
        assert_eq!(again.earlier.held, [(3, 15)].into());
        assert_eq!(again.earlier.rejected, None);
        publish(&mut *source, &again).await;
    };
    let ((other, answer), ()) = tokio::join!(both, work);
    assert_eq!(other.expect_err("another body").status(), 422);
    assert_eq!(answer.expect("taken")["published"], 3);
}

#[tokio::test]
async fn only_the_right_token_is_admitted_and_a_token_must_be_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = CancellationToken::new();
    let with = |content: Option<&str>| {
        if let Some(content) = content {
            std::fs::write(folder.path().join("token"), content).expect("written");
        }
        IngestConfig {
            token: Some(Secret::File(content.map_or("missing", |_| "token").into())),
            ..IngestConfig::default()
        }
    };
    let source = opened(folder.path(), &with(Some("secret-1\n")), &stop)
        .await
        .expect("opens");
    let desk = source.desk().expect("requests come in here");
    assert!(desk.has_token() && desk.admits(Some(b"secret-1")));
    for wrong in [
        None,
        Some(&b""[..]),
        Some(b"secret-2"),
        Some(b"secret-1\n"),
        Some(b"Secret-1"),
    ] {
        assert!(!desk.admits(wrong));
    }
    for (content, part) in [
        (Some(""), "empty or no visible ASCII"),
        (Some("two words"), "empty or no visible ASCII"),
        (None, "secret for `token` of the ingest source"),
    ] {
        let error = opened(folder.path(), &with(content), &stop)
            .await
            .err()
            .expect("refused");
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.hint().is_some());
    }
    let open = opened(folder.path(), &IngestConfig::default(), &stop)
        .await
        .expect("opens");
    let desk = open.desk().expect("requests come in here");
    assert!(!desk.has_token() && desk.admits(None));
}

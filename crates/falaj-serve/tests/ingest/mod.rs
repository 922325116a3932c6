//! `/ingest` over a real socket, with somebody behind it who takes what comes.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::client::{Answer, Running, serve};
use async_trait::async_trait;
use falaj_record::Hint;
use falaj_serve::{Hub, Ingest, Listen, Posted, Refused, ServeError, Server};

const MAX: u64 = 1000;

/// What was taken: body, whether it is lines, key.
type Taken = (Vec<u8>, bool, Option<Vec<u8>>);

#[derive(Default)]
struct Counter {
    token: Option<&'static [u8]>,
    /// What to answer instead of taking.
    refusal: Option<u16>,
    taken: Mutex<Vec<Taken>>,
    reserved: Mutex<Vec<u64>>,
}

#[async_trait]
impl Ingest for Counter {
    fn max_body(&self) -> u64 {
        MAX
    }

    fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn admits(&self, token: Option<&[u8]>) -> bool {
        self.token.is_none() || token == self.token
    }

    fn reserve(&self, body_bytes: u64) -> Result<Box<dyn Any + Send>, Refused> {
        self.reserved.lock().expect("no panic").push(body_bytes);
        Ok(Box::new(body_bytes))
    }

    async fn take(&self, room: Box<dyn Any + Send>, posted: Posted) -> Result<String, Refused> {
        assert!(room.is::<u64>(), "the room that was reserved");
        if let Some(status) = self.refusal {
            return Err(Refused {
                status,
                error: "not now".into(),
                hint: Some("later".into()),
            });
        }
        let Posted { body, lines, key } = posted;
        let mut taken = self.taken.lock().expect("no panic");
        taken.push((body.to_vec(), lines, key.map(|key| key.to_vec())));
        Ok(r#"{"in":1}"#.into())
    }
}

async fn started(counter: &Arc<Counter>) -> Running {
    let hub = Hub::new("p", &[], vec![]);
    hub.set_ingest(Arc::clone(counter) as Arc<dyn Ingest>);
    serve(hub).await
}

async fn post(server: &Running, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    server.post("/ingest?with=query", headers, body).await
}

#[tokio::test]
async fn a_request_is_handed_over_as_it_came() {
    let counter = Arc::new(Counter::default());
    let server = started(&counter).await;
    let many = vec![b' '; 1000];
    for (headers, body, lines, key) in [
        (
            &[("Content-Type", "application/json")][..],
            &b"{}"[..],
            false,
            None,
        ),
        (
            &[
                ("content-type", "Application/X-NDJSON; charset=utf-8"),
                ("idempotency-key", "a-b"),
                ("authorization", "Bearer unasked"),
            ],
            b"{}\n{}",
            true,
            Some(b"a-b".to_vec()),
        ),
        (&[("Content-Type", "application/jsonl")], &many, true, None),
    ] {
        let answer = post(&server, headers, body).await;
        assert_eq!((answer.code, answer.text()), (200, r#"{"in":1}"#));
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "no-store");
        let taken = counter.taken.lock().expect("no panic").pop();
        assert_eq!(taken, Some((body.to_vec(), lines, key)));
        let reserved = counter.reserved.lock().expect("no panic").pop();
        assert_eq!(reserved, Some(body.len() as u64));
    }
    // In chunks, as long as it is told: room for the longest body is taken.
    let chunked = [
        ("Content-Type", "application/json"),
        ("Transfer-Encoding", "chunked"),
    ];
    let answer = server
        .post_as_is("/ingest", &chunked, b"3\r\n{} \r\n0\r\n\r\n")
        .await;
    assert_eq!(answer.code, 200);
    assert_eq!(
        counter.taken.lock().expect("no panic").pop(),
        Some((b"{} ".to_vec(), false, None))
    );
    assert_eq!(counter.reserved.lock().expect("no panic").pop(), Some(MAX));
}

#[tokio::test]
async fn what_is_wrong_is_told_in_json_and_taken_by_nobody() {
    let counter = Arc::new(Counter {
        token: Some(b"open-sesame"),
        ..Counter::default()
    });
    let server = started(&counter).await;
    let token = ("Authorization", "Bearer open-sesame");
    let json = ("Content-Type", "application/json");
    let long = vec![b' '; 1001];
    for (headers, body, code, part) in [
        (&[json][..], &b"{}"[..], 401, "token"),
        (
            &[json, ("Authorization", "Bearer open")],
            b"{}",
            401,
            "token",
        ),
        (
            &[json, ("Authorization", "Basic open-sesame")],
            b"{}",
            401,
            "token",
        ),
        (&[json, ("Authorization", "b\u{e4}r")], b"{}", 401, "token"),
        (&[token], b"{}", 415, "Content-Type"),
        (
            &[token, ("Content-Type", "text/plain")],
            b"{}",
            415,
            "Content-Type",
        ),
        (
            &[token, ("Content-Type", "application/x-www-form-urlencoded")],
            b"{}",
            415,
            "Content-Type",
        ),
        (
            &[token, json, ("Content-Encoding", "gzip")],
            b"{}",
            415,
            "Content-Encoding",
        ),
        (&[token, json], &long, 413, "max_body"),
        (
            &[
                token,
                json,
                ("Idempotency-Key", "a"),
                ("Idempotency-Key", "b"),
            ],
            b"{}",
            400,
            "more than one",
        ),
    ] {
        let answer = post(&server, headers, body).await;
        assert_eq!(answer.code, code, "{}", answer.text());
        let told = answer.json();
        assert!(
            told["error"]
                .as_str()
                .is_some_and(|error| error.contains(part)),
            "{told}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            if code == 401 { "Bearer" } else { "" }
        );
    }
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", " ".repeat(1001));
    let headers = [token, json, ("Transfer-Encoding", "chunked")];
    let answer = server
        .post_as_is("/ingest", &headers, chunk.as_bytes())
        .await;
    assert_eq!(answer.code, 413, "{}", answer.text());
    assert_eq!(
        server
            .ask("GET", "/ingest", &[("Host", "localhost")])
            .await
            .code,
        405
    );
    assert!(counter.taken.lock().expect("no panic").is_empty());

    for (status, again) in [(429, "1"), (503, "1"), (422, ""), (9, "")] {
        let counter = Arc::new(Counter {
            refusal: Some(status),
            ..Counter::default()
        });
        let server = started(&counter).await;
        let answer = post(&server, &[json], b"{}").await;
        let code = if status == 9 { 500 } else { status };
        assert_eq!((answer.code, answer.header("retry-after")), (code, again));
        assert_eq!(answer.json()["hint"], "later");
    }
    let none = serve(Hub::new("p", &[], vec![])).await;
    assert_eq!(post(&none, &[json], b"{}").await.code, 404);
}

#[tokio::test]
async fn other_machines_need_a_token() {
    let mut listen = Listen::from(SocketAddr::from(([0, 0, 0, 0], 0)));
    listen.insecure = true;
    for (token, served) in [(None, false), (Some(&b"t"[..]), true)] {
        // Also where requests are taken only later.
        for open in [true, false] {
            let hub = Hub::new("p", &[], vec![]);
            if open {
                hub.set_ingest(Arc::new(Counter {
                    token,
                    ..Counter::default()
                }));
            } else {
                hub.close_ingest(token.is_some());
            }
            let bound = Server::bind(&listen, hub).await;
            assert_eq!(bound.is_ok(), served);
            if let Err(error) = bound {
                assert!(matches!(error, ServeError::ExposedIngest { .. }));
                assert!(error.hint().is_some_and(|hint| hint.contains("token")));
            }
        }
    }
}

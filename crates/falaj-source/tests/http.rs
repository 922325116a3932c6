//! An API with every bad day, on a socket: whatever it does, the next good reply is used, and the
//! status said why there was none before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use falaj_record::{ByteSize, Raw};
use falaj_source::{
    Auth, Backoff, HttpConfig, Opening, Setting, Source, SourceConfig, SourceError, SourceState,
    SourceStatus, open,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// Stands for a value of a person: must not come back in a status or an error.
const CANARY: &str = "canary-4711";

#[derive(Clone)]
enum Answer {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, then nothing for a long time.
    Stall(Vec<u8>),
}

/// A server that gives one answer after the other, and the last one again and again.
struct Api {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Api {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((socket, _)) = listener.accept().await {
                let answer = answers[turn.min(answers.len() - 1)].clone();
                turn += 1;
                tokio::spawn(serve(socket, answer, seen.clone()));
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/api/", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

async fn serve(mut socket: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<String>>>) {
    let (mut head, mut part) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match socket.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => head.extend_from_slice(&part[..bytes]),
        }
    }
    seen.lock()
        .expect("not poisoned")
        .push(String::from_utf8_lossy(&head).into_owned());
    let (Answer::Bytes(bytes) | Answer::Stall(bytes)) = &answer;
    let _ = socket.write_all(bytes).await;
    if matches!(answer, Answer::Stall(_)) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn json(body: &str) -> Answer {
    Answer::Bytes(reply(
        "200 OK",
        "content-type: application/json\r\n",
        body.as_bytes(),
    ))
}

fn good() -> Answer {
    json(r#"{"results":[{"n":1},{"n":2}],"info":{"results":5}}"#)
}

fn config(api: &Api) -> HttpConfig {
    HttpConfig {
        url: api.url(),
        query: BTreeMap::new(),
        records: Some("results".into()),
        every: "20ms".parse().expect("a period"),
        headers: BTreeMap::new(),
        auth: None,
        timeout: "1m".parse().expect("a period"),
        max_body: ByteSize(2000),
        inc: true,
    }
}

fn opening(stop: &CancellationToken) -> Opening {
    Opening {
        backoff: Backoff {
            shortest: Duration::from_millis(150),
            longest: Duration::from_millis(150),
        },
        ..Opening::new(".", stop.clone())
    }
}

async fn opened(config: HttpConfig, stop: &CancellationToken) -> Box<dyn Source> {
    let config = SourceConfig::Http(config);
    open(&config, opening(stop)).await.expect("opens")
}

fn texts(batch: &[Raw]) -> Vec<(u64, String)> {
    batch
        .iter()
        .map(|raw| {
            (
                raw.position,
                String::from_utf8_lossy(&raw.bytes).into_owned(),
            )
        })
        .collect()
}

/// What a source says of its first bad day, and what it says after the good reply that follows.
async fn after(answer: Answer) -> (SourceStatus, SourceStatus) {
    let stalls = matches!(answer, Answer::Stall(_));
    let api = Api::start(vec![answer, good()]).await;
    let mut config = config(&api);
    if stalls {
        config.timeout = "300ms".parse().expect("a period");
    }
    let stop = CancellationToken::new();
    let mut source = opened(config, &stop).await;
    let mut status = source.status();
    let (batch, retrying) = tokio::join!(source.next(), async {
        status
            .wait_for(|status| status.state == SourceState::Retrying)
            .await
            .expect("the source lives")
            .clone()
    });
    let batch = batch.expect("no error").expect("not stopped").raws;
    assert_eq!(
        texts(&batch),
        [(1, "{\"n\":1}".into()), (2, "{\"n\":2}".into())]
    );
    let recovered = source.status().borrow().clone();
    (retrying, recovered)
}

#[expect(clippy::too_many_lines, reason = "a table of bad days")]
#[tokio::test]
async fn every_bad_day_is_told_and_outlived() {
    let html = format!("<html>{CANARY}</html>");
    let long = format!("[{}\"{CANARY}\"]", "0,".repeat(2000));
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfff\r\n{}\r\n0\r\n\r\n",
        " ".repeat(0xfff)
    );
    let status = |status: &str, body: &str| Answer::Bytes(reply(status, "", body.as_bytes()));
    let typed = |kind: &str, body: &str| {
        let header = format!("content-type: {kind}\r\n");
        Answer::Bytes(reply("200 OK", &header, body.as_bytes()))
    };
    let redirect =
        |to: &str| Answer::Bytes(reply("302 Found", &format!("location: {to}\r\n"), b""));
    let cut = |keep: usize| {
        let Answer::Bytes(mut bytes) = good() else {
            unreachable!("bytes")
        };
        bytes.truncate(bytes.len() - keep);
        bytes
    };
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03not deflate at all";

    let cases: Vec<(&str, Answer, &str, bool)> = vec![
        (
            "rate limit",
            status(
                "429 Too Many Requests",
                &format!("{{\"error\":\"{CANARY}\"}}"),
            ),
            "status 429 (too many requests)",
            false,
        ),
        (
            "overload",
            status("503 Service Unavailable", &html),
            "status 503 (service unavailable)",
            false,
        ),
        (
            "bad gateway",
            status("502 Bad Gateway", &html),
            "status 502 (bad gateway)",
            false,
        ),
        ("odd status", status("599 What", ""), "status 599", false),
        (
            "request timed out",
            status("408 Request Timeout", ""),
            "status 408 (request timed out)",
            false,
        ),
        (
            "not found",
            status("404 Not Found", "Not Found"),
            "status 404 (not found)",
            true,
        ),
        (
            "not allowed",
            status("403 Forbidden", &html),
            "status 403 (not allowed)",
            true,
        ),
        (
            "not modified",
            status("304 Not Modified", ""),
            "status 304",
            true,
        ),
        (
            "HTML with 200",
            typed("text/html", &html),
            "the reply is HTML, not JSON",
            false,
        ),
        (
            "CSV",
            typed("text/csv", CANARY),
            "the reply is CSV, not JSON",
            false,
        ),
        (
            "HTML that calls itself JSON",
            json(&html),
            "the reply is not JSON (line 1)",
            false,
        ),
        (
            "no users",
            json(r#"{"results":[],"info":{"results":1}}"#),
            "the reply holds no records",
            false,
        ),
        (
            "no content",
            status("204 No Content", ""),
            "the reply breaks off in the middle of its JSON",
            false,
        ),
        (
            "error key",
            json(&format!("{{\"error\":\"{CANARY}\"}}")),
            "the reply carries an `error` in place of records",
            false,
        ),
        (
            "no such key",
            json(&format!("{{\"{CANARY}\":[]}}")),
            "the reply has nothing at `results`",
            true,
        ),
        (
            "not an array",
            json(&format!("{{\"results\":\"{CANARY}\"}}")),
            "the reply has no array at `results`",
            true,
        ),
        (
            "cut JSON",
            json(&format!("{{\"results\":[{{\"n\":\"{CANARY}\"}},{{")),
            "the reply breaks off in the middle of its JSON",
            false,
        ),
        (
            "short body",
            Answer::Bytes(cut(5)),
            "the reply broke off after 45 bytes",
            false,
        ),
        (
            "no body",
            Answer::Bytes(cut(50)),
            "the reply broke off after 0 bytes",
            false,
        ),
        (
            "no reply",
            Answer::Bytes(Vec::new()),
            "the reply broke off after 0 bytes",
            false,
        ),
        (
            "not HTTP",
            Answer::Bytes(format!("{CANARY}\r\n\r\n").into_bytes()),
            "the reply broke off after 0 bytes",
            false,
        ),
        (
            "hang",
            Answer::Stall(Vec::new()),
            "no complete reply within 300ms",
            false,
        ),
        (
            "slow body",
            Answer::Stall(cut(5)),
            "no complete reply within 300ms",
            false,
        ),
        (
            "too large, announced",
            json(&long),
            "the reply is longer than `max_body` (2kB)",
            false,
        ),
        (
            "too large, in chunks",
            Answer::Bytes(endless.into_bytes()),
            "the reply is longer than `max_body` (2kB)",
            false,
        ),
        (
            "broken gzip",
            Answer::Bytes(reply("200 OK", "content-encoding: gzip\r\n", gzip)),
            "the reply broke off after 0 bytes",
            false,
        ),
        (
            "redirect to nowhere",
            redirect("http://127.0.0.1:1/"),
            "cannot connect to `",
            false,
        ),
        (
            "empty body",
            json(""),
            "the reply breaks off in the middle of its JSON",
            false,
        ),
    ];
    let mut days = tokio::task::JoinSet::new();
    for (name, answer, detail, configuration) in cases {
        days.spawn(async move { (name, detail, configuration, after(answer).await) });
    }
    while let Some(day) = days.join_next().await {
        let (name, detail, configuration, (bad, good)) = day.expect("no panic");
        let text = bad.detail.clone().expect("a detail");
        assert!(text.starts_with(detail), "{name}: {text}");
        assert_eq!(bad.likely_configuration, configuration, "{name}");
        let empty = name == "no users";
        assert_eq!(
            (bad.replies_failed, bad.replies_empty),
            (u64::from(!empty), u64::from(empty)),
            "{name}"
        );
        assert_eq!((bad.attempts, bad.records), (1, 0), "{name}");
        assert!(bad.retry_at_ms.is_some(), "{name}");
        assert!(!format!("{bad:?}").contains(CANARY), "{name}");

        assert_eq!(good.state, SourceState::Ok, "{name}");
        assert_eq!(
            (good.detail, good.retry_at_ms, good.attempts),
            (None, None, 0),
            "{name}"
        );
        assert_eq!(
            (good.replies_ok, good.records, good.last_status),
            (1, 2, Some(200)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_service_that_is_down_or_redirects_for_ever_is_asked_again() {
    let stop = CancellationToken::new();
    let looping = Api::start(vec![Answer::Bytes(reply(
        "302 Found",
        "location: /api/\r\n",
        b"",
    ))])
    .await;
    // Bound and not listening: nobody answers there, and nobody else can take the port.
    let silent = TcpSocket::new_v4().expect("a socket");
    silent
        .bind(([127, 0, 0, 1], 0).into())
        .expect("a free port");
    let gone = Api {
        address: silent.local_addr().expect("bound"),
        requests: Arc::default(),
    };
    let mut nameless = config(&gone);
    nameless.url = "http://no-such-host.invalid/".into();
    for (config, detail) in [
        (config(&looping), "redirected too often"),
        (config(&gone), "connection refused"),
        (nameless, "cannot connect to `no-such-host.invalid:80`: "),
    ] {
        let mut source = opened(config, &stop).await;
        let mut status = source.status();
        tokio::select! {
            _ = source.next() => panic!("there is nothing to give"),
            said = status.wait_for(|status| status.attempts >= 2) => {
                let text = said.expect("the source lives").detail.clone().unwrap_or_default();
                assert!(text.contains(detail), "{text}");
            }
        }
    }
    // Five redirects are followed, twice.
    assert_eq!(looping.requests().len(), 12);
}

#[tokio::test]
async fn a_secret_is_sent_and_neither_shown_nor_carried_away() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), format!("{CANARY}\n")).expect("written");
    let secret = || falaj_record::Secret::File("key".into());
    let elsewhere = Api::start(vec![good()]).await;
    let away = format!(
        "location: http://localhost:{}/\r\n",
        elsewhere.address.port()
    );
    let api = Api::start(vec![Answer::Bytes(reply("307 Go", &away, b"")), good()]).await;
    let config = HttpConfig {
        query: BTreeMap::from([
            ("key".into(), Setting::Secret(secret())),
            ("results".into(), Setting::Int(2)),
            ("odd &=".into(), Setting::Text("ä b".into())),
        ]),
        headers: BTreeMap::from([("x-key".into(), Setting::Secret(secret()))]),
        auth: Some(Auth::Basic {
            user: "me".into(),
            password: secret(),
        }),
        ..config(&api)
    };
    let stop = CancellationToken::new();
    let opening = Opening {
        base: folder.path().to_owned(),
        inc: vec!["nat".into(), "dob".into()],
        ..opening(&stop)
    };
    let mut source = open(&SourceConfig::Http(config), opening)
        .await
        .expect("opens");
    assert_eq!(source.label(), api.url());
    let material = String::from_utf8_lossy(source.material()).into_owned();
    assert_eq!(
        material,
        format!("{}\nkey=\nodd &==ä b\nresults=2", api.url())
    );

    let mut status = source.status();
    let (batch, said) = tokio::join!(source.next(), async {
        let said = status.wait_for(|status| status.attempts == 1).await;
        said.expect("the source lives").clone()
    });
    assert_eq!(batch.expect("no error").expect("not stopped").raws.len(), 2);
    assert_eq!(
        said.detail.as_deref(),
        Some("redirected to another host, where falaj does not send a secret")
    );
    assert!(said.likely_configuration);
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
    let request = &api.requests()[0];
    assert!(request.starts_with(&format!(
        "GET /api/?key={CANARY}&odd+%26%3D=%C3%A4+b&results=2&inc=nat%2Cdob HTTP/1.1\r\n"
    )));
    for header in [
        format!("x-key: {CANARY}\r\n"),
        "accept: application/json\r\n".into(),
        "authorization: Basic bWU6Y2FuYXJ5LTQ3MTE=\r\n".into(),
        "user-agent: falaj/".into(),
    ] {
        assert!(request.contains(&header), "{header}");
    }
    assert!(!request.contains("referer"));
}

#[tokio::test]
async fn only_an_inc_of_ones_own_or_none_keeps_falaj_from_adding_one() {
    let stop = CancellationToken::new();
    for (own, url, add, asked) in [
        (None, "", true, "/api/?inc=nat"),
        (None, "", false, "/api/"),
        (Some("email"), "", true, "/api/?inc=email"),
        (None, "?inc=dob", true, "/api/?inc=dob"),
        (None, "?a=b", true, "/api/?a=b&inc=nat"),
    ] {
        let api = Api::start(vec![good()]).await;
        let mut config = config(&api);
        config.url.push_str(url);
        config.inc = add;
        let own = own.map(|own: &str| ("inc".to_owned(), Setting::Text(own.into())));
        config.query = own.into_iter().collect();
        let opening = Opening {
            inc: vec!["nat".into()],
            ..opening(&stop)
        };
        let mut source = open(&SourceConfig::Http(config), opening)
            .await
            .expect("opens");
        source.next().await.expect("no error");
        let line = api.requests()[0]
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        assert_eq!(line, format!("GET {asked} HTTP/1.1"));
    }
}

#[tokio::test]
async fn positions_go_on_after_the_last_one_over_replies_and_batches() {
    let many = vec!["{}"; 5000].join(",");
    let api = Api::start(vec![json(&format!("[{many}]")), json("{\"n\":3}")]).await;
    let stop = CancellationToken::new();
    let config = HttpConfig {
        records: None,
        max_body: ByteSize(64_000_000),
        ..config(&api)
    };
    let mut source = opened(config, &stop).await;
    assert_eq!((source.kind(), source.finite()), ("http", false));
    assert_eq!(source.status().borrow().state, SourceState::Waiting);
    source.resume_after(0, 100);
    let mut ranges = Vec::new();
    for _ in 0..3 {
        let batch = source
            .next()
            .await
            .expect("no error")
            .expect("not stopped")
            .raws;
        ranges.push((batch[0].position, batch[batch.len() - 1].position));
    }
    assert_eq!(ranges, [(101, 4196), (4197, 5100), (5101, 5101)]);
    let status = source.status().borrow().clone();
    assert_eq!((status.records, status.replies_ok), (5001, 2));
    assert_eq!(status.bytes, 5000 * 3 + 1 + 7);
}

#[tokio::test]
async fn retry_after_is_obeyed_and_stopping_ends_every_wait() {
    let limit = Answer::Bytes(reply("429 Slow", "retry-after: 3600\r\n", b""));
    let api = Api::start(vec![limit]).await;
    let stop = CancellationToken::new();
    let mut source = opened(config(&api), &stop).await;
    let mut status = source.status();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let (end, ()) = tokio::join!(source.next(), async {
        let said = status.wait_for(|status| status.attempts == 1).await;
        let retry_at = said.expect("the source lives").retry_at_ms.expect("a time");
        let wait = u128::try_from(retry_at).expect("after 1970") - now.as_millis();
        assert!((3_600_000..3_700_000).contains(&wait), "{wait}");
        stop.cancel();
    });
    assert!(end.expect("no error").is_none());

    // While a request hangs, too.
    let api = Api::start(vec![Answer::Stall(Vec::new())]).await;
    let stop = CancellationToken::new();
    let mut config = config(&api);
    config.timeout = "1h".parse().expect("a period");
    let mut source = opened(config, &stop).await;
    let (end, ()) = tokio::join!(source.next(), async {
        while api.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    assert!(end.expect("no error").is_none());
    assert!(source.next().await.expect("no error").is_none());
}

#[tokio::test]
async fn a_gzip_reply_is_unpacked() {
    // `{"results":[{"n":1}]}`, by gzip.
    let packed = [
        31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 42, 74, 45, 46, 205, 41, 41, 86, 178, 138, 174,
        86, 202, 83, 178, 50, 172, 141, 173, 5, 0, 89, 77, 134, 112, 21, 0, 0, 0,
    ];
    let api = Api::start(vec![Answer::Bytes(reply(
        "200 OK",
        "content-encoding: gzip\r\n",
        &packed,
    ))])
    .await;
    let stop = CancellationToken::new();
    let mut source = opened(config(&api), &stop).await;
    let batch = source
        .next()
        .await
        .expect("no error")
        .expect("not stopped")
        .raws;
    assert_eq!(texts(&batch), [(1, "{\"n\":1}".into())]);
    assert_eq!(source.status().borrow().bytes, 21);
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_the_first_request() {
    let stop = CancellationToken::new();
    let api = Api::start(vec![good()]).await;
    let with = |change: fn(&mut HttpConfig)| {
        let mut config = config(&api);
        change(&mut config);
        SourceConfig::Http(config)
    };
    let cases: Vec<(SourceConfig, &str)> = vec![
        (
            with(|c| c.url = "nowhere".into()),
            "`url` of the http source is not an http address: relative URL without a base",
        ),
        (
            with(|c| c.url = "ftp://x/".into()),
            "`url` of the http source is not an http address: it does not begin with `http://` or `https://`",
        ),
        (
            with(|c| c.url = format!("http://me:{CANARY}@x/")),
            "`url` of the http source holds a user name or password",
        ),
        (
            with(|c| c.every = "0s".parse().expect("a period")),
            "`every` of the http source is zero",
        ),
        (
            with(|c| c.records = Some("a..b".into())),
            "`records` of the http source is not a path: `a..b`",
        ),
        (
            with(|c| c.records = Some(String::new())),
            "`records` of the http source is not a path: ``",
        ),
        (
            with(|c| {
                c.headers.insert("a b".into(), Setting::Int(1));
            }),
            "header `a b` of the http source is not valid in HTTP",
        ),
        (
            with(|c| {
                c.headers
                    .insert("a".into(), Setting::Text(format!("{CANARY}\n")));
            }),
            "header `a` of the http source is not valid in HTTP",
        ),
        (
            with(|c| {
                c.auth = Some(Auth::Bearer(falaj_record::Secret::Env(
                    "FALAJ_TEST_NOT_SET".into(),
                )));
            }),
            "secret for `auth.bearer` of the http source: environment variable `FALAJ_TEST_NOT_SET` is not set",
        ),
        (
            with(|c| {
                c.query.insert(
                    "key".into(),
                    Setting::Secret(falaj_record::Secret::Env("FALAJ_TEST_NOT_SET".into())),
                );
            }),
            "secret for `query.key` of the http source: environment variable `FALAJ_TEST_NOT_SET` is not set",
        ),
    ];
    for (config, text) in cases {
        let error: SourceError = match open(&config, opening(&stop)).await {
            Err(error) => error,
            Ok(_) => panic!("opened: {text}"),
        };
        assert_eq!(error.to_string(), text);
        assert!(falaj_record::Hint::hint(&error).is_some(), "{text}");
        assert!(!format!("{error:?}").contains(CANARY));
    }
    assert_eq!(api.requests(), Vec::<String>::new());
}

//! A small HTTP/1.1 client over a plain socket, and a server to talk to.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use falaj_serve::{Hub, Listen, ServeError, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing here takes long; a test that hangs must fail nevertheless.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port of loopback.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    /// Ends it.
    pub stop: CancellationToken,
    /// Its end.
    pub task: JoinHandle<Result<(), ServeError>>,
}

/// Starts to serve `hub`.
pub async fn serve(hub: Hub) -> Running {
    let listen = Listen::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let server = Server::bind(&listen, hub)
        .await
        .expect("the system has a free port");
    let (address, stop) = (server.address(), CancellationToken::new());
    let task = tokio::spawn(server.run(stop.clone()));
    Running {
        address,
        stop,
        task,
    }
}

/// An answer.
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

impl Running {
    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[("Host", "127.0.0.1")]).await
    }

    /// Any request without a body.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut headers = headers.to_vec();
        headers.push(("Connection", "close"));
        self.open(method, path, &headers).await.answer().await
    }

    /// `POST path` with a body.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        headers.push(("Content-Length", &length));
        self.post_as_is(path, &headers, body).await
    }

    /// `POST path`, with the bytes of the body as they are to be sent.
    pub async fn post_as_is(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut headers = headers.to_vec();
        headers.extend([("Host", "127.0.0.1"), ("Connection", "close")]);
        let mut stream = self.open("POST", path, &headers).await;
        // Who answers early may not read all of it.
        let _ = stream.socket.write_all(body).await;
        stream.answer().await
    }

    /// Opens the event stream, perhaps after `last`.
    pub async fn events(&self, last: Option<&str>) -> Events {
        let mut headers = vec![("Host", "localhost:8050")];
        headers.extend(last.map(|id| ("Last-Event-ID", id)));
        let mut stream = self.open("GET", "/api/v1/events", &headers).await;
        let (code, headers) = stream.head().await;
        assert_eq!(
            (code, headers["content-type"].as_str()),
            (200, "text/event-stream")
        );
        Events {
            stream,
            text: String::new(),
        }
    }

    async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut socket = TcpStream::connect(self.address).await.expect("it listens");
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request.push_str("\r\n");
        socket
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        Stream {
            socket,
            buffer: Vec::new(),
        }
    }
}

struct Stream {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Stream {
    /// All of the answer.
    async fn answer(mut self) -> Answer {
        let (code, headers) = self.head().await;
        let mut body = std::mem::take(&mut self.buffer);
        timeout(PATIENCE, self.socket.read_to_end(&mut body))
            .await
            .expect("in time")
            .expect("whole");
        Answer {
            code,
            headers,
            body,
        }
    }

    /// Reads up to and with `end`; what follows stays in the buffer.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.buffer.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
            if read.expect("in time").expect("the connection holds") == 0 {
                return None;
            }
        }
    }

    async fn head(&mut self) -> (u16, BTreeMap<String, String>) {
        let head = self.until(b"\r\n\r\n").await.expect("an answer");
        let head = String::from_utf8(head).expect("headers are text");
        let mut lines = head.lines();
        let code = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or_default();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        (code.parse().expect("a status code"), headers.collect())
    }
}

/// The event stream.
pub struct Events {
    stream: Stream,
    text: String,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// `snapshot`, `delta`, `status`, `bye`.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its data.
    pub data: serde_json::Value,
}

impl Events {
    /// The next event, comments and settings left out; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let prefix = format!("{name}: ");
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(&prefix).map(str::to_owned))
                };
                let event = field("event").map(|name| Event {
                    name,
                    id: field("id").unwrap_or_default(),
                    data: serde_json::from_str(&field("data").unwrap_or_default()).expect("JSON"),
                });
                let rest = rest.to_owned();
                self.text = rest;
                if event.is_some() {
                    return event;
                }
            }
            let chunk = self.chunk().await?;
            self.text += &chunk;
        }
    }

    /// The next event of that name.
    pub async fn next_named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.name == name {
                return event;
            }
        }
    }

    /// One chunk of the chunked body.
    async fn chunk(&mut self) -> Option<String> {
        let size = self.stream.until(b"\r\n").await?;
        let size = String::from_utf8(size).expect("a size");
        let size = usize::from_str_radix(size.trim(), 16).expect("a hexadecimal size");
        while self.stream.buffer.len() < size + 2 {
            let read = timeout(
                PATIENCE,
                self.stream.socket.read_buf(&mut self.stream.buffer),
            )
            .await;
            read.expect("in time").ok().filter(|n| *n > 0)?;
        }
        let rest = self.stream.buffer.split_off(size + 2);
        let mut chunk = std::mem::replace(&mut self.stream.buffer, rest);
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).expect("events are text"))
    }
}

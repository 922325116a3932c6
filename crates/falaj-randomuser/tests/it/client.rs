//! A client small enough to show every byte of a reply.

use std::io::Read;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A reply, its body as it was before chunks and gzip.
pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn people(&self) -> usize {
        self.json()["results"].as_array().expect("a list").len()
    }
}

pub async fn get(addr: SocketAddr, target: &str) -> Reply {
    ask(addr, "GET", target, "").await
}

/// Sends one request on a connection of its own and reads until the server closes it.
pub async fn ask(addr: SocketAddr, method: &str, target: &str, headers: &str) -> Reply {
    let mut stream = TcpStream::connect(addr).await.expect("connects");
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("reads");
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("headers end");
    let head = std::str::from_utf8(&bytes[..end]).expect("ASCII headers");
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a status line");
    let headers = lines.filter_map(|line| line.split_once(": "));
    let mut reply = Reply {
        status: status.parse().expect("a number"),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: bytes[end + 4..].to_vec(),
    };
    if reply.header("transfer-encoding") == Some("chunked") {
        reply.body = dechunk(&reply.body);
    } else if let Some(length) = reply
        .header("content-length")
        .filter(|_| !reply.body.is_empty())
    {
        assert_eq!(
            length.parse(),
            Ok(reply.body.len()),
            "the length that was announced"
        );
    }
    if reply.header("content-encoding") == Some("gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&reply.body[..])
            .read_to_end(&mut plain)
            .expect("gzip");
        reply.body = plain;
    }
    reply
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk size");
        let size = std::str::from_utf8(&rest[..end]).expect("ASCII");
        let size = usize::from_str_radix(size, 16).expect("a hex number");
        rest = &rest[end + 2..];
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

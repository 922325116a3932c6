//! One connection: requests in, answers out, in the same order.
//!
//! Always: nothing a client sends ends in a panic or takes more than its bounds; what is not Kafka
//! ends the connection, and nobody else notices.
//! Always: only Produce requests overlap, so that one sync serves several of them; any other waits
//! until all before it are answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseKind};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::apis::{self, Api};
use crate::broker::{Answer, Broker, Client, Crashed, api_versions};
use crate::budget::{Paid, SMALL_BYTES};
use crate::login::Login;
use crate::options::Limits;
use crate::produce::Producing;
use crate::reply::{self, Piece};
use crate::seats::Guest;
use crate::send::{Outlet, flush, send, send_stored};

/// Produce requests of one connection that wait for the disk at a time.
const PIPELINE: u32 = 16;

/// Kind, version and correlation stand before everything else.
const FIXED_BYTES: usize = 8;

/// So much of a large request must come in the time in which a client counts as stalled.
const CHUNK_BYTES: usize = 256 << 10;

/// Where others wait for room, so much must come in this time.
const PRESSED: Duration = Duration::from_secs(2);

/// How often that is looked at.
const PULSE: Duration = Duration::from_millis(250);

/// Why a connection ends before the client closes it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("no request came in time")]
    Idle,
    #[error("a request or a reply stood still")]
    Stalled,
    #[error("{0}")]
    Garbage(&'static str),
    #[error("the client has not said who it is")]
    Unknown,
    #[error(transparent)]
    Crashed(#[from] Crashed),
}

/// What is written next.
struct Reply {
    correlation: i32,
    key: ApiKey,
    version: i16,
    content: Content,
    /// What the request and its turn hold until the reply is written.
    held: (Option<Paid>, OwnedSemaphorePermit),
}

enum Content {
    Ready(Box<Answer>),
    Producing(Producing),
    /// A message that is no reply to a request.
    Token(Bytes),
}

/// A request as it came.
struct Frame {
    bytes: Bytes,
    /// What it takes of the budget of all requests.
    paid: Option<Paid>,
}

/// Serves a client until it leaves.
pub(crate) async fn serve(
    from: impl AsyncRead + Unpin,
    to: impl Outlet,
    client: Client,
    broker: Arc<Broker>,
    guest: Guest,
) {
    let (queue, queued) = mpsc::channel(PIPELINE as usize);
    let stalled = broker.options.limits.stalled;
    let host = client.host.clone();
    let reader = Reader {
        from: BufReader::with_capacity(4096, from),
        login: Login::new(broker.options.users.as_ref()),
        known_until: Instant::now() + broker.options.limits.handshake,
        served: false,
        turns: Arc::new(Semaphore::new(PIPELINE as usize)),
        broker,
        client,
        guest,
        queue,
    };
    if let Err(end) = tokio::try_join!(reader.run(), write(to, queued, stalled)) {
        debug!(client = %host, reason = %end, "a Kafka connection was ended");
    }
}

/// Writes replies as they become ready, in their order.
async fn write(
    mut to: impl Outlet,
    mut queued: mpsc::Receiver<Reply>,
    stalled: Duration,
) -> Result<(), End> {
    while let Some(reply) = queued.recv().await {
        let answer = match reply.content {
            Content::Ready(answer) => *answer,
            Content::Producing(producing) => {
                ResponseKind::Produce(producing.durable(reply.version).await).into()
            }
            Content::Token(token) => {
                let length = u32::try_from(token.len()).unwrap_or(0);
                let bytes = [&length.to_be_bytes(), &token[..]].concat();
                send(&mut to, &bytes[..], stalled).await?;
                flush(&mut to, stalled).await?;
                continue;
            }
        };
        let (key, version, correlation) = (reply.key, reply.version, reply.correlation);
        let pieces = reply::encode(key, version, correlation, &answer.reply, answer.stored)?;
        drop(answer.reply);
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => send(&mut to, bytes, stalled).await?,
                Piece::Stored(stored) => send_stored(&mut to, stored, stalled).await?,
            }
        }
        flush(&mut to, stalled).await?;
        // The room for its records is given back when they are written.
        drop((answer.held, reply.held));
    }
    // The client may have closed already.
    let _ = timeout(stalled, to.shutdown()).await;
    Ok(())
}

struct Reader<R> {
    from: BufReader<R>,
    login: Login,
    /// Until then the client must have said who it is.
    known_until: Instant,
    /// A request was answered.
    served: bool,
    turns: Arc<Semaphore>,
    broker: Arc<Broker>,
    client: Client,
    guest: Guest,
    queue: mpsc::Sender<Reply>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> Result<(), End> {
        while let Some(frame) = self.frame().await? {
            if !self.request(frame).await? {
                break;
            }
            self.served = true;
        }
        Ok(())
    }

    fn limits(&self) -> &Limits {
        &self.broker.options.limits
    }

    /// The next request; `None` where there will be none.
    async fn frame(&mut self) -> Result<Option<Frame>, End> {
        self.guest.idle();
        let until = if self.served && self.login.settled() {
            Instant::now() + self.limits().idle
        } else {
            self.known_until
        };
        let mut length = [0; 4];
        let begun = tokio::select! {
            biased;
            () = self.broker.stop.cancelled() => return Ok(None),
            () = self.guest.leave.cancelled() => return Ok(None),
            begun = timeout_at(until, self.from.read(&mut length[..1])) => begun,
        };
        if begun.map_err(|_| End::Idle)?? == 0 {
            return Ok(None);
        }
        self.guest.busy();
        let read = timeout(
            self.limits().stalled,
            self.from.read_exact(&mut length[1..]),
        )
        .await;
        read.map_err(|_| End::Stalled)??;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
        let length_max = if self.login.settled() {
            self.limits().request_bytes
        } else {
            SMALL_BYTES
        };
        let length_min = if self.login.bare() { 0 } else { FIXED_BYTES };
        if !(length_min..=length_max).contains(&length) {
            return Err(End::Garbage("it sent a length that no request has"));
        }
        self.body(length).await.map(Some)
    }

    /// Pays for a request and reads it.
    async fn body(&mut self, length: usize) -> Result<Frame, End> {
        let paid = match length {
            ..=SMALL_BYTES => None,
            _ => Some(self.broker.requests.pay(length).await),
        };
        let mut bytes = BytesMut::with_capacity(length.min(CHUNK_BYTES));
        while bytes.len() < length {
            if bytes.len() == CHUNK_BYTES {
                // It means it: room for all of it, to be moved once and not again and again.
                bytes.reserve(length - CHUNK_BYTES);
            }
            let chunk = (length - bytes.len()).min(CHUNK_BYTES);
            self.chunk(chunk, &mut bytes).await?;
        }
        Ok(Frame {
            bytes: bytes.freeze(),
            paid,
        })
    }

    /// Reads so many bytes, in time.
    async fn chunk(&mut self, length: usize, into: &mut BytesMut) -> Result<(), End> {
        let begun = Instant::now();
        let stalled = self.limits().stalled;
        let mut from = (&mut self.from).take(length as u64);
        while from.limit() > 0 {
            if let Ok(read) = timeout(PULSE.min(stalled), from.read_buf(into)).await
                && read? == 0
            {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let patience = if self.broker.requests.pressed() {
                stalled.min(PRESSED)
            } else {
                stalled
            };
            if from.limit() > 0 && begun.elapsed() >= patience {
                return Err(End::Stalled);
            }
        }
        Ok(())
    }

    /// Answers a request; whether another may follow.
    async fn request(&mut self, frame: Frame) -> Result<bool, End> {
        if self.login.bare() {
            return self.token(frame).await;
        }
        let mut bytes = frame.bytes;
        let (key, version) = (peek_i16(&bytes, 0), peek_i16(&bytes, 2));
        let api = apis::api(key).ok_or(End::Garbage("it sent a request of an unknown kind"))?;
        if !api.versions.contains(&version) {
            if api.key != ApiKey::ApiVersions {
                return Err(End::Garbage(
                    "it sent a request in a version that is not offered",
                ));
            }
            // It asks what is offered in a way of its own: it is told in the oldest.
            let reply = api_versions().with_error_code(ResponseError::UnsupportedVersion.code());
            let reply = ResponseKind::ApiVersions(reply).into();
            let turn = self.turn(PIPELINE).await?;
            let correlation = peek_i32(&bytes, 4);
            self.reply(
                api,
                0,
                correlation,
                Content::Ready(Box::new(reply)),
                (frame.paid, turn),
            )
            .await?;
            return Ok(true);
        }
        let (header, request) = decode(api, version, &mut bytes)?;
        drop(bytes);
        self.client.name = header.client_id.unwrap_or_default();
        let correlation = header.correlation_id;
        if let RequestKind::Produce(q) = request {
            if !self.login.settled() {
                return Err(End::Unknown);
            }
            let turn = self.turn(1).await?;
            let producing = self.broker.produce(q).await?;
            if producing.answered() {
                let content = Content::Producing(producing);
                self.reply(api, version, correlation, content, (frame.paid, turn))
                    .await?;
            } else if producing.failed() {
                // Nobody waits for an answer: this is the way to say that something is wrong.
                return Err(End::Garbage("it sent records that were refused"));
            }
            return Ok(true);
        }
        let turn = self.turn(PIPELINE).await?;
        let mut goes_on = true;
        let answer = match request {
            RequestKind::SaslHandshake(q) => {
                ResponseKind::SaslHandshake(self.login.handshake(&q, version)).into()
            }
            RequestKind::SaslAuthenticate(q) => {
                let (reply, known) = self.login.authenticate(q).await?;
                goes_on = known;
                ResponseKind::SaslAuthenticate(reply).into()
            }
            RequestKind::ApiVersions(_) => ResponseKind::ApiVersions(api_versions()).into(),
            _ if !self.login.settled() => return Err(End::Unknown),
            request => self.broker.answer(request, version, &self.client).await?,
        };
        let content = Content::Ready(Box::new(answer));
        self.reply(api, version, correlation, content, (frame.paid, turn))
            .await?;
        Ok(goes_on)
    }

    /// Takes a bare message of an exchange.
    async fn token(&mut self, frame: Frame) -> Result<bool, End> {
        let turn = self.turn(PIPELINE).await?;
        let token = self.login.token(frame.bytes).await?.ok_or(End::Unknown)?;
        let reply = Reply {
            correlation: 0,
            key: ApiKey::SaslAuthenticate,
            version: 0,
            content: Content::Token(token),
            held: (frame.paid, turn),
        };
        self.queue(reply).await?;
        Ok(true)
    }

    /// Room among the requests that are being answered; all of it waits for all before.
    async fn turn(&self, turns: u32) -> Result<OwnedSemaphorePermit, End> {
        let turn = Arc::clone(&self.turns).acquire_many_owned(turns).await;
        turn.map_err(|_| End::Crashed(Crashed))
    }

    async fn reply(
        &self,
        api: &Api,
        version: i16,
        correlation: i32,
        content: Content,
        held: (Option<Paid>, OwnedSemaphorePermit),
    ) -> Result<(), End> {
        let reply = Reply {
            correlation,
            key: api.key,
            version,
            content,
            held,
        };
        self.queue(reply).await
    }

    async fn queue(&self, reply: Reply) -> Result<(), End> {
        self.queue
            .send(reply)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe).into())
    }
}

/// Header and request, once they were found to be whole.
fn decode(api: &Api, version: i16, bytes: &mut Bytes) -> Result<(RequestHeader, RequestKind), End> {
    let malformed = || End::Garbage("it sent a malformed request");
    if !api.holds_header(version, &bytes[FIXED_BYTES..]) {
        return Err(malformed());
    }
    let header = RequestHeader::decode(bytes, api.key.request_header_version(version))
        .map_err(|_| malformed())?;
    if !api.holds(version, bytes) {
        return Err(malformed());
    }
    let request = RequestKind::decode(api.key, bytes, version).map_err(|_| malformed())?;
    Ok((header, request))
}

/// A number that the length of a request leaves room for.
fn peek_i16(bytes: &Bytes, at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn peek_i32(bytes: &Bytes, at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

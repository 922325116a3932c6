//! Saying who one is, on one connection: the handshake that names a mechanism, then its exchange.
//!
//! The exchange travels in requests of its own, or, after the first version of the handshake, bare:
//! old clients (the librdkafka of Debian's kcat, for one) want to see that version listed even where
//! they use the other.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::{Crashed, text};
use crate::options::Users;
use crate::sasl::{Denied, Exchange, MECHANISMS, Step};

/// From this version of the handshake on, the exchange travels in requests.
const FRAMED: i16 = 1;

/// A failed exchange is answered after this, as by Kafka.
const DENIAL: Duration = Duration::from_millis(100);

/// Where a client stands.
pub(crate) struct Login {
    users: Option<Users>,
    state: State,
}

enum State {
    /// Known, or nobody asks.
    Settled,
    Unknown,
    Exchanging {
        exchange: Exchange,
        bare: bool,
    },
}

impl Login {
    /// Without users, everybody is let in.
    pub fn new(users: Option<&Users>) -> Self {
        Self {
            users: users.cloned(),
            state: match users {
                None => State::Settled,
                Some(_) => State::Unknown,
            },
        }
    }

    /// Whether the client may ask for anything.
    pub fn settled(&self) -> bool {
        matches!(self.state, State::Settled)
    }

    /// Whether a message of the exchange comes next, and no request.
    pub fn bare(&self) -> bool {
        matches!(self.state, State::Exchanging { bare: true, .. })
    }

    /// The client names a mechanism.
    pub fn handshake(&mut self, q: &SaslHandshakeRequest, version: i16) -> SaslHandshakeResponse {
        let reply = SaslHandshakeResponse::default();
        let (Some(users), State::Unknown) = (&self.users, &self.state) else {
            // Nobody asks, or the client is known already.
            return reply.with_error_code(ResponseError::IllegalSaslState.code());
        };
        let reply = reply.with_mechanisms(MECHANISMS.map(StrBytes::from_static_str).to_vec());
        let Some(exchange) = Exchange::new(&q.mechanism, users) else {
            return reply.with_error_code(ResponseError::UnsupportedSaslMechanism.code());
        };
        self.state = State::Exchanging {
            exchange,
            bare: version < FRAMED,
        };
        reply
    }

    /// A message of the exchange in a request; the answer, and whether the connection goes on.
    pub async fn authenticate(
        &mut self,
        q: SaslAuthenticateRequest,
    ) -> Result<(SaslAuthenticateResponse, bool), Crashed> {
        let reply = SaslAuthenticateResponse::default();
        if !matches!(self.state, State::Exchanging { .. }) {
            let words = "Request is not valid given the current SASL state.";
            let reply = reply
                .with_error_code(ResponseError::IllegalSaslState.code())
                .with_error_message(Some(text(words)));
            return Ok((reply, self.settled()));
        }
        Ok(match self.step(q.auth_bytes).await? {
            Ok(message) => (reply.with_auth_bytes(message), true),
            Err(Denied(words)) => {
                let reply = reply
                    .with_error_code(ResponseError::SaslAuthenticationFailed.code())
                    .with_error_message(Some(text(words)));
                (reply, false)
            }
        })
    }

    /// A bare message of the exchange; nothing where it failed, which ends the connection.
    pub async fn token(&mut self, message: Bytes) -> Result<Option<Bytes>, Crashed> {
        Ok(self.step(message).await?.ok())
    }

    async fn step(&mut self, message: Bytes) -> Result<Result<Bytes, Denied>, Crashed> {
        let State::Exchanging { mut exchange, bare } =
            std::mem::replace(&mut self.state, State::Unknown)
        else {
            return Err(Crashed);
        };
        // Hashing a password takes a while.
        let (exchange, step) = tokio::task::spawn_blocking(move || {
            let step = exchange.step(&message);
            (exchange, step)
        })
        .await
        .map_err(|_| Crashed)?;
        Ok(match step {
            Ok(Step::Challenge(challenge)) => {
                self.state = State::Exchanging { exchange, bare };
                Ok(challenge.into())
            }
            Ok(Step::Done(last)) => {
                self.state = State::Settled;
                Ok(last.into())
            }
            Err(denied) => {
                tokio::time::sleep(DENIAL).await;
                Err(denied)
            }
        })
    }
}

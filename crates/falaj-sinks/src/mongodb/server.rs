//! The connection: one client of the driver, and commands that it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::address::Address;
use super::fault::{About, Fault, Silence, again};
use crate::SinkError;

/// How long the answer to a command may take.
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// How long it may take where nothing is to be done.
const PING_WAIT: Duration = Duration::from_secs(10);
/// How long it may take where every document is looked at: an index, a column that is gone.
const LONG_WAIT: Duration = Duration::from_mins(30);
/// Times that a command is sent. Every command here may be repeated.
const TRIES_MAX: usize = 2;

/// By member: why it did not answer its last heartbeat, where it did not.
type Heartbeats = Arc<Mutex<BTreeMap<String, Option<Silence>>>>;

/// A server, or a replica set, or a sharded cluster.
pub(super) struct Server {
    client: Client,
    database: Database,
    /// As errors name it.
    pub(super) store: String,
    /// Whether others on the network may read along.
    pub(super) exposed: bool,
    /// Whether it is a replica set, or a cluster of such.
    pub(super) replicated: bool,
    login: bool,
    confirm_wait: Duration,
    heartbeats: Heartbeats,
    /// Whether something failed to get through since somebody asked.
    disturbed: Arc<AtomicBool>,
}

impl Server {
    /// A client of it, and the first answer.
    pub(super) async fn connect(address: &Address) -> Result<Self, SinkError> {
        let heartbeats = Heartbeats::default();
        let about = || About {
            store: &address.store,
            what: "connect",
            login: address.login,
            silence: None,
        };
        let options = ClientOptions::parse(address.connection.clone()).await;
        let mut options = options.map_err(|error| about().fault(&error))?;
        let disturbed = Arc::new(AtomicBool::new(false));
        let (seen, failed) = (Arc::clone(&heartbeats), Arc::clone(&disturbed));
        options.sdam_event_handler = Some(EventHandler::callback(move |event| match event {
            SdamEvent::ServerHeartbeatFailed(event) => {
                failed.store(true, Ordering::Relaxed);
                let silence = Silence::of(&event.failure);
                seen.lock()
                    .insert(event.server_address.to_string(), Some(silence));
            }
            SdamEvent::ServerHeartbeatSucceeded(event) => {
                seen.lock().insert(event.server_address.to_string(), None);
            }
            SdamEvent::ServerClosed(event) => {
                seen.lock().remove(&event.address.to_string());
            }
            _ => {}
        }));
        let client = Client::with_options(options).map_err(|error| about().fault(&error))?;
        let mut server = Self {
            database: client.database(&address.database),
            client,
            store: address.store.clone(),
            exposed: address.exposed,
            replicated: false,
            login: address.login,
            confirm_wait: address.confirm_wait,
            heartbeats,
            disturbed,
        };
        match server.greeted().await {
            Ok(replicated) => {
                server.replicated = replicated;
                Ok(server)
            }
            Err(error) => {
                server.shut_down().await;
                Err(error)
            }
        }
    }

    /// Whether it has members, if it is there and takes writes.
    async fn greeted(&self) -> Result<bool, SinkError> {
        let hello = self.hello().await?;
        if hello.get_bool("readOnly").is_ok_and(|read_only| read_only) {
            let store = self.store.clone();
            return Err(SinkError::ReadOnly { store });
        }
        let sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        Ok(sharded || hello.contains_key("setName"))
    }

    /// Whether a command or a heartbeat did not get through since the last call: another server
    /// may answer now, or the same one after a crash.
    pub(super) fn was_disturbed(&self) -> bool {
        self.disturbed.swap(false, Ordering::Relaxed)
    }

    /// Name of the database.
    pub(super) fn name(&self) -> &str {
        self.database.name()
    }

    /// What the server says about itself.
    pub(super) async fn hello(&self) -> Result<Document, Fault> {
        self.run_as_admin(rawdoc! { "hello": 1 }, "connect").await
    }

    /// Asks whether it is there.
    pub(super) async fn ping(&self) -> Result<(), SinkError> {
        let admin = self.client.database("admin");
        let ping = rawdoc! { "ping": 1 };
        self.run_on(&admin, &ping, "connect", PING_WAIT).await?;
        Ok(())
    }

    /// Runs a command on the database `admin`.
    pub(super) async fn run_as_admin(
        &self,
        command: RawDocumentBuf,
        what: &str,
    ) -> Result<Document, Fault> {
        let admin = self.client.database("admin");
        self.run_on(&admin, &command, what, self.answer_wait())
            .await
    }

    /// Runs a command, twice where the first try got no answer. `what` is what it does, as a verb.
    pub(super) async fn run(
        &self,
        command: &RawDocumentBuf,
        what: &str,
    ) -> Result<Document, Fault> {
        let wait = self.answer_wait();
        self.run_on(&self.database, command, what, wait).await
    }

    /// Runs a command that changes a collection as a whole, or many of its documents, and gives the
    /// number of those.
    pub(super) async fn change(&self, mut command: Document, what: &str) -> Result<u64, Fault> {
        command.insert("writeConcern", self.write_concern());
        let command = RawDocumentBuf::try_from(&command).map_err(|_| self.strange())?;
        let reply = self
            .run_on(&self.database, &command, what, LONG_WAIT)
            .await?;
        if let Some(error) = documents(&reply, "writeErrors").next() {
            let name = error.get_str("codeName").unwrap_or_default();
            return Err(self.about(what).coded(int(error, "code"), name));
        }
        Ok(u64::try_from(int(&reply, "n")).unwrap_or(0))
    }

    /// The documents of a query that has few.
    pub(super) async fn find(
        &self,
        mut command: Document,
        what: &str,
    ) -> Result<Vec<Document>, Fault> {
        command.insert("singleBatch", true);
        self.first_batch(command, what).await
    }

    /// What a command that gives a cursor found; it gives little.
    pub(super) async fn first_batch(
        &self,
        command: Document,
        what: &str,
    ) -> Result<Vec<Document>, Fault> {
        let command = RawDocumentBuf::try_from(&command).map_err(|_| self.strange())?;
        let reply = self.run(&command, what).await?;
        let cursor = reply.get_document("cursor").map_err(|_| self.strange())?;
        Ok(documents(cursor, "firstBatch").cloned().collect())
    }

    /// Longer than a majority may take to confirm: what the server says about that counts.
    fn answer_wait(&self) -> Duration {
        ANSWER_WAIT.max(self.confirm_wait.saturating_mul(2))
    }

    async fn run_on(
        &self,
        database: &Database,
        command: &RawDocumentBuf,
        what: &str,
        wait: Duration,
    ) -> Result<Document, Fault> {
        let mut tries = 1;
        loop {
            let answer = timeout(wait, database.run_raw_command(command.clone())).await;
            let Ok(answer) = answer else {
                let cause = format!("it did not answer within {} s", wait.as_secs());
                let error = self.about(what).unreachable(cause);
                return Err(Fault { code: 0, error });
            };
            match answer {
                Ok(reply) => return self.confirmed(reply, what),
                Err(error) if tries < TRIES_MAX && again(&error) => {
                    self.disturbed.store(true, Ordering::Relaxed);
                    tries += 1;
                }
                Err(error) => return Err(self.about(what).fault(&error)),
            }
        }
    }

    /// The answer, where a majority stands behind it.
    fn confirmed(&self, reply: Document, what: &str) -> Result<Document, Fault> {
        match reply.get_document("writeConcernError") {
            Ok(error) => {
                let name = error.get_str("codeName").unwrap_or_default();
                Err(self.about(what).coded(int(error, "code"), name))
            }
            Err(_) => Ok(reply),
        }
    }

    /// What an error of a single write means.
    pub(super) fn coded(&self, code: i32, name: &str, what: &str) -> SinkError {
        self.about(what).coded(code, name).error
    }

    /// An answer that no server gives.
    pub(super) fn strange(&self) -> Fault {
        let error = SinkError::Store {
            store: self.store.clone(),
            cause: "it answered in a form not expected".into(),
        };
        Fault { code: 0, error }
    }

    /// What every write asks for.
    pub(super) fn write_concern(&self) -> Document {
        let wait = i64::try_from(self.confirm_wait.as_millis()).unwrap_or(i64::MAX);
        doc! { "w": "majority", "j": true, "wtimeout": wait }
    }

    /// Ends the driver's own tasks.
    pub(super) async fn shut_down(&self) {
        self.client.clone().shutdown().immediate(true).await;
    }

    /// Why no member answers; none where one does.
    fn silence(&self) -> Option<Silence> {
        let heartbeats = self.heartbeats.lock();
        let all = heartbeats.values().cloned().collect::<Option<Vec<_>>>();
        all?.into_iter().next()
    }

    fn about<'a>(&'a self, what: &'a str) -> About<'a> {
        About {
            store: &self.store,
            what,
            login: self.login,
            silence: self.silence(),
        }
    }
}

/// The documents of a list.
pub(super) fn documents<'a>(holder: &'a Document, key: &str) -> impl Iterator<Item = &'a Document> {
    let list = holder.get_array(key).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Bson::as_document)
}

/// A whole number, whichever type the server sends it as; 0 where there is none.
pub(super) fn int(holder: &Document, key: &str) -> i32 {
    match holder.get(key) {
        Some(Bson::Int32(number)) => *number,
        Some(Bson::Int64(number)) => i32::try_from(*number).unwrap_or(i32::MAX),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "codes and counts are whole"
        )]
        Some(Bson::Double(number)) => *number as i32,
        _ => 0,
    }
}

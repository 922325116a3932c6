//! A local server that speaks the Random User API, so that the demo, the tests and the benchmarks
//! need no network and no real service.
//!
//! It gives what `https://randomuser.me/api/` gives: the record shapes of versions 1.1 to 1.4, every
//! parameter with its odd fallback, seeds and pages, five formats, JSONP and downloads, the limit on
//! users per address, and on request the service's bad days ([`Faults`]).
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use falaj_randomuser::{ServerConfig, serve};
//!
//! let config = ServerConfig {
//!     domains: "gmail.com=30,example.com=20".parse()?,
//!     faults: "503=0.1,cut=every 50".parse()?,
//!     ..ServerConfig::default()
//! };
//! let server = serve(config).await?;
//! println!("ask {}?results=250&inc=gender,dob,email,nat", server.url());
//! server.shutdown().await;
//! # Ok::<(), falaj_randomuser::RandomUserError>(()) }).unwrap();
//! ```
//!
//! Without a server: [`people`] draws persons, [`render`] writes a whole reply, [`write_ndjson`] writes
//! records a line each.
//!
//! Always: the same query with the same seed gives the same people, in this build and the next; only
//! ages move with the clock, which the caller can set. Person `i` of a seed and page depends on nothing
//! but these, so `results=10` is the beginning of `results=50`, and `inc`, `exc` and `format` change
//! what is shown, never who is drawn.
//! Always: page P of seed S is page 1 of the seed S followed by P.
//! Always: the people are invented. Names, places and words were written for this project
//! (`nations/*.txt`); e-mail addresses end in `example.com` unless the caller gives [`Domains`].
//! Absent on purpose: reproducing the service's own people, versions before 1.1, portraits (the links
//! are left as the service writes them), TLS, keys and accounts.
//!
//! A little differs from the service: a request that makes the service hang (a German `id` without a
//! `name`) is answered; `inc` and `exc` do not change the stream; the last two digits of an
//! 18-character seed name no nationality; there are fewer names, so e-mail addresses repeat more often.

mod canary;
mod csv;
mod domains;
mod error;
mod fault;
mod forms;
mod json;
mod limit;
mod nation;
mod people;
mod query;
mod reply;
mod server;
mod stream;
mod time;
mod words;
mod xml;
mod yaml;

pub use canary::{Canary, canaries};
pub use domains::Domains;
pub use error::RandomUserError;
pub use fault::{FaultKind, FaultRule, Faults, Often};
pub use limit::RateLimit;
pub use nation::Nat;
pub use people::{Options, Person, people};
pub use query::{Field, Fields, Format, Gender, PasswordRule, Query, Version};
pub use reply::{NDJSON_DAY, render, write_ndjson, write_records};
pub use server::{Server, ServerConfig, serve};
pub use stream::drawn_seed;
pub use time::Clock;

//! Who may use the listener: users, and the SASL exchanges PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
//!
//! Always: nothing tells an unknown user from a wrong password, neither the answer nor its time
//! (beyond what one hash costs), and no name or password is logged.
//! Absent on purpose: changing users while running, channel binding, tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::BrokerError;

/// What Kafka's own brokers use.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not 0");

const NONCE_BYTES: usize = 18;
const SALT_BYTES: usize = 16;

/// The mechanisms offered, by the names clients know.
pub(crate) const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Who may connect.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    by_name: BTreeMap<String, User>,
    /// Salts of users that do not exist come from here, so that they stay the same.
    nobody: hmac::Key,
}

struct User {
    sha256: Verifier,
    sha512: Verifier,
}

/// What the server keeps of a password (RFC 5802).
#[derive(Clone)]
struct Verifier {
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.by_name.len())
    }
}

impl Users {
    /// Users from names and passwords, of printable ASCII: clients prepare other characters in
    /// different ways.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without the name or the password.
    pub fn new<N, P>(users: impl IntoIterator<Item = (N, P)>) -> Result<Self, String>
    where
        N: AsRef<str>,
        P: AsRef<str>,
    {
        let mut by_name = BTreeMap::new();
        for (index, (name, password)) in users.into_iter().enumerate() {
            let (name, password) = (name.as_ref(), password.as_ref());
            let printable =
                |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            if !printable(name) || !printable(password) {
                return Err(format!(
                    "user {}: a name and a password are printable ASCII without spaces",
                    index + 1
                ));
            }
            let user = User {
                sha256: Verifier::of(Hash::Sha256, password),
                sha512: Verifier::of(Hash::Sha512, password),
            };
            if by_name.insert(name.to_owned(), user).is_some() {
                return Err(format!("user {}: that name stands there twice", index + 1));
            }
        }
        if by_name.is_empty() {
            return Err("it names nobody".into());
        }
        Ok(Self(Arc::new(Inner {
            by_name,
            nobody: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()),
        })))
    }

    /// Users from a file: `name password` a line; blank lines and lines that begin with `#` are
    /// skipped. Only its owner may read it.
    ///
    /// # Errors
    /// [`BrokerError::Users`].
    pub fn from_file(path: &Path) -> Result<Self, BrokerError> {
        let unusable = |reason: String| BrokerError::Users {
            path: path.to_owned(),
            reason,
        };
        let mode = fs::metadata(path)
            .map_err(|e| unusable(e.to_string()))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(unusable(format!(
                "others than its owner may use it (mode {:04o})",
                mode & 0o7777
            )));
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|e| unusable(e.to_string()))?);
        let mut users = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, password) = line
                .split_once(char::is_whitespace)
                .ok_or_else(|| unusable(format!("line {} has no password", index + 1)))?;
            users.push((name, password.trim()));
        }
        Self::new(users).map_err(unusable)
    }

    /// The verifier of `name`, or one that nothing satisfies.
    fn verifier(&self, hash: Hash, name: &str) -> (Verifier, bool) {
        if let Some(user) = self.0.by_name.get(name) {
            let verifier = match hash {
                Hash::Sha256 => &user.sha256,
                Hash::Sha512 => &user.sha512,
            };
            return (verifier.clone(), true);
        }
        let mut salt = hmac::sign(&self.0.nobody, name.as_bytes())
            .as_ref()
            .to_vec();
        salt.truncate(SALT_BYTES);
        let nothing = vec![0; hash.bytes()];
        let verifier = Verifier {
            salt,
            stored_key: nothing.clone(),
            server_key: nothing,
        };
        (verifier, false)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text)
    }

    fn digest(self, bytes: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes)
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => digest::SHA256_OUTPUT_LEN,
            Self::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    fn salted(self, password: &str, salt: &[u8]) -> Zeroizing<Vec<u8>> {
        let algorithm = match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = Zeroizing::new(vec![0; self.bytes()]);
        pbkdf2::derive(
            algorithm,
            ITERATIONS,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        salted
    }
}

impl Verifier {
    fn of(hash: Hash, password: &str) -> Self {
        let salt = random::<SALT_BYTES>().to_vec();
        let salted = hash.salted(password, &salt);
        let client_key = hash.hmac(&salted, b"Client Key");
        Self {
            stored_key: hash.digest(client_key.as_ref()).as_ref().to_vec(),
            server_key: hash.hmac(&salted, b"Server Key").as_ref().to_vec(),
            salt,
        }
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// What a step of an exchange gave.
pub(crate) enum Step {
    /// The client goes on after this.
    Challenge(Vec<u8>),
    /// The client is who it says; it is told this last.
    Done(Vec<u8>),
}

/// The client is not let in. One text for all reasons.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Denied(pub String);

/// One exchange on one connection.
pub(crate) struct Exchange {
    users: Users,
    state: State,
}

enum State {
    Plain,
    First(Hash),
    Final(Box<Final>),
    Over,
}

struct Final {
    hash: Hash,
    verifier: Verifier,
    known: bool,
    /// The part of the authentication message that is known already.
    so_far: String,
    nonce: String,
    header: String,
}

impl Exchange {
    /// An exchange by one of [`MECHANISMS`]; `None` for any other.
    pub fn new(mechanism: &str, users: &Users) -> Option<Self> {
        let state = match mechanism {
            "PLAIN" => State::Plain,
            "SCRAM-SHA-256" => State::First(Hash::Sha256),
            "SCRAM-SHA-512" => State::First(Hash::Sha512),
            _ => return None,
        };
        Some(Self {
            users: users.clone(),
            state,
        })
    }

    /// Takes what the client sent. After [`Step::Done`] or an error the exchange is over.
    pub fn step(&mut self, message: &[u8]) -> Result<Step, Denied> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Plain => self.plain(message).map(|()| Step::Done(Vec::new())),
            State::First(hash) => {
                let (state, challenge) = self.first(hash, message).ok_or_else(|| hash.denied())?;
                self.state = State::Final(Box::new(state));
                Ok(Step::Challenge(challenge))
            }
            State::Final(state) => state
                .verify(message)
                .map(Step::Done)
                .ok_or_else(|| state.hash.denied()),
            State::Over => Err(Denied("Authentication failed: the exchange is over".into())),
        }
    }

    fn plain(&self, message: &[u8]) -> Result<(), Denied> {
        let right = || -> Option<()> {
            let text = std::str::from_utf8(message).ok()?;
            let mut parts = text.split('\0');
            let (acts_as, name, password) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() || !(acts_as.is_empty() || acts_as == name) {
                return None;
            }
            let (verifier, known) = self.users.verifier(Hash::Sha256, name);
            let salted = Hash::Sha256.salted(password, &verifier.salt);
            let client_key = Hash::Sha256.hmac(&salted, b"Client Key");
            let stored_key = Hash::Sha256.digest(client_key.as_ref());
            verify_slices_are_equal(stored_key.as_ref(), &verifier.stored_key).ok()?;
            known.then_some(())
        };
        right().ok_or_else(|| Denied("Authentication failed: Invalid username or password".into()))
    }

    /// `n,,n=<name>,r=<nonce>`, which is answered by `r=<both nonces>,s=<salt>,i=<iterations>`.
    fn first(&self, hash: Hash, message: &[u8]) -> Option<(Final, Vec<u8>)> {
        let text = std::str::from_utf8(message).ok()?;
        let (binding, rest) = text.split_once(',')?;
        let (acts_as, bare) = rest.split_once(',')?;
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let mut attributes = bare.split(',');
        let name = unescaped(attributes.next()?.strip_prefix("n=")?)?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let acts_as = match acts_as.strip_prefix("a=") {
            Some(other) => unescaped(other)?,
            None if acts_as.is_empty() => name.clone(),
            None => return None,
        };
        if acts_as != name || nonce.is_empty() || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let (verifier, known) = self.users.verifier(hash, &name);
        let nonce = format!("{nonce}{}", BASE64.encode(random::<NONCE_BYTES>()));
        let challenge = format!(
            "r={nonce},s={},i={ITERATIONS}",
            BASE64.encode(&verifier.salt)
        );
        let state = Final {
            hash,
            verifier,
            known,
            so_far: format!("{bare},{challenge}"),
            nonce,
            header: BASE64.encode(&text[..text.len() - bare.len()]),
        };
        Some((state, challenge.into_bytes()))
    }
}

impl Hash {
    fn denied(self) -> Denied {
        let name = match self {
            Self::Sha256 => MECHANISMS[1],
            Self::Sha512 => MECHANISMS[2],
        };
        Denied(format!(
            "Authentication failed during authentication due to invalid credentials with SASL mechanism {name}"
        ))
    }
}

impl Final {
    /// `c=<header>,r=<both nonces>,p=<proof>`, which is answered by `v=<signature>`.
    fn verify(&self, message: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(message).ok()?;
        let (unproved, proof) = text.rsplit_once(",p=")?;
        let mut attributes = unproved.split(',');
        let header = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if header != self.header || nonce != self.nonce {
            return None;
        }
        let proof = BASE64.decode(proof).ok()?;
        if proof.len() != self.hash.bytes() {
            return None;
        }
        let signed = format!("{},{unproved}", self.so_far);
        let signature = self.hash.hmac(&self.verifier.stored_key, signed.as_bytes());
        let client_key: Vec<u8> = proof
            .iter()
            .zip(signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        let stored_key = self.hash.digest(&client_key);
        verify_slices_are_equal(stored_key.as_ref(), &self.verifier.stored_key).ok()?;
        if !self.known {
            return None;
        }
        let signature = self.hash.hmac(&self.verifier.server_key, signed.as_bytes());
        Some(format!("v={}", BASE64.encode(signature.as_ref())).into_bytes())
    }
}

/// A name as it was meant: `,` and `=` travel as `=2C` and `=3D`.
fn unescaped(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut parts = name.split('=');
    plain.push_str(parts.next()?);
    for part in parts {
        if let Some(rest) = part.strip_prefix("2C") {
            plain.push(',');
            plain.push_str(rest);
        } else {
            plain.push('=');
            plain.push_str(part.strip_prefix("3D")?);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::new([("alice", "secret"), ("a,b=c", "other")]).unwrap()
    }

    /// The client's half of SCRAM.
    fn scram(mechanism: &str, name: &str, password: &str) -> Result<(), Denied> {
        let hash = if mechanism == MECHANISMS[1] {
            Hash::Sha256
        } else {
            Hash::Sha512
        };
        let mut exchange = Exchange::new(mechanism, &users()).unwrap();
        let name = name.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={name},r=abc");
        let Step::Challenge(challenge) = exchange.step(format!("n,,{bare}").as_bytes())? else {
            panic!("no challenge");
        };
        let challenge = String::from_utf8(challenge).unwrap();
        let part = |prefix| {
            let mut parts = challenge.split(',');
            parts.find_map(|p| p.strip_prefix(prefix)).unwrap()
        };
        assert!(part("r=").starts_with("abc"));
        let salted = hash.salted(password, &BASE64.decode(part("s=")).unwrap());
        let client_key = hash.hmac(&salted, b"Client Key");
        let stored_key = hash.digest(client_key.as_ref());
        let unproved = format!("c=biws,r={}", part("r="));
        let signed = format!("{bare},{challenge},{unproved}");
        let signature = hash.hmac(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = std::iter::zip(client_key.as_ref(), signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        let last = format!("{unproved},p={}", BASE64.encode(proof));
        let Step::Done(told) = exchange.step(last.as_bytes())? else {
            panic!("not over");
        };
        let server_key = hash.hmac(&salted, b"Server Key");
        let expected = hash.hmac(server_key.as_ref(), signed.as_bytes());
        assert_eq!(
            told,
            format!("v={}", BASE64.encode(expected.as_ref())).into_bytes()
        );
        Ok(())
    }

    #[test]
    fn only_the_right_password_of_a_user_gets_in() {
        for (name, password, in_) in [
            ("alice", "secret", true),
            ("alice", "Secret", false),
            ("alice", "", false),
            ("a,b=c", "other", true),
            ("a,b=c", "secret", false),
            ("mallory", "secret", false),
            ("", "", false),
        ] {
            for mechanism in &MECHANISMS[1..] {
                assert_eq!(
                    scram(mechanism, name, password).is_ok(),
                    in_,
                    "{mechanism} {name}"
                );
            }
            let mut plain = Exchange::new("PLAIN", &users()).unwrap();
            let message = format!("\0{name}\0{password}");
            assert_eq!(plain.step(message.as_bytes()).is_ok(), in_, "PLAIN {name}");
        }
    }

    #[test]
    fn malformed_messages_are_denied_and_end_the_exchange() {
        for message in [
            &b""[..],
            b"\0",
            b"\0alice",
            b"mallory\0alice\0secret",
            b"\0alice\0secret\0",
            b"\xff\xfe\xfd",
            b"n,,n=alice",
            b"p=tls,,n=alice,r=abc",
            b"n,,n=al=ice,r=abc",
            b"n,,r=abc",
            b"n,a=mallory,n=alice,r=abc",
            b",,,,,",
        ] {
            for mechanism in MECHANISMS {
                let mut exchange = Exchange::new(mechanism, &users()).unwrap();
                assert!(exchange.step(message).is_err(), "{mechanism} {message:?}");
                assert!(
                    exchange.step(b"\0alice\0secret").is_err(),
                    "{mechanism} goes on"
                );
            }
        }
        assert!(Exchange::new("GSSAPI", &users()).is_none());
    }

    #[test]
    fn the_file_of_users_is_private_and_well_formed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        for (text, mode, right) in [
            (
                "alice secret\n# a comment\n\nbob\tpass#word \n",
                0o600,
                true,
            ),
            ("alice secret\n", 0o640, false),
            ("alice\n", 0o600, false),
            ("alice a b\n", 0o600, false),
            ("alice a\nalice b\n", 0o600, false),
            ("\n", 0o600, false),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let users = Users::from_file(&path);
            assert_eq!(users.is_ok(), right, "{text:?} {mode:o}");
            let shown = format!("{users:?}");
            assert!(
                !shown.contains("secret") && !shown.contains("alice"),
                "{shown}"
            );
        }
    }
}

//! Keys, subjects and their pids.
//!
//! Always: one master key, and from it a key of its own for each use (HKDF-SHA256): a pid tells
//! nothing about a policy's MAC, and a surrogate of one domain nothing about another's.
//! Always: what identifies a person, and every key, lives in a type without `Debug`, `Display` and
//! `Serialize`, and is wiped when it goes.
//! Absent on purpose: where keys come from and are kept; the caller passes their bytes.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

use crate::text::normalise;

/// A master key: 32 secret, random bytes.
///
/// ```compile_fail
/// let key = falaj_privacy::Key::new([7; 32]);
/// println!("{key:?}");
/// ```
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; 32]>);

/// The bytes of a key are not 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 32 bytes, not {0}")]
pub struct KeyLength(pub usize);

impl falaj_record::Hint for KeyLength {
    fn hint(&self) -> Option<String> {
        Some("put the key file back from a copy; without it the same people get other pids".into())
    }
}

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl TryFrom<&[u8]> for Key {
    type Error = KeyLength;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyLength> {
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            return Err(KeyLength(bytes.len()));
        }
        key.copy_from_slice(bytes);
        Ok(Self(key))
    }
}

/// The keys of a pipeline, one for each use, derived from its master key.
#[derive(Clone)]
pub struct Keys {
    root: Prk,
    policy: hmac::Key,
    source: hmac::Key,
}

impl Keys {
    /// Derives them.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        let root = Salt::new(HKDF_SHA256, b"falaj").extract(key.0.as_slice());
        let policy = derive(&root, &["policy"]);
        let source = derive(&root, &["source"]);
        Self {
            root,
            policy,
            source,
        }
    }

    /// A keyed hash that tells whether two things are the same without keeping either of them.
    /// `kind` keeps uses apart.
    #[must_use]
    pub fn digest(&self, kind: &str, bytes: &[u8]) -> [u8; 16] {
        truncated(&hmac::sign(&derive(&self.root, &["digest", kind]), bytes))
    }

    /// MAC of a policy's hash, for the header `falaj.policy`.
    pub(crate) fn policy_mac(&self, hash: &str) -> [u8; 16] {
        truncated(&hmac::sign(&self.policy, hash.as_bytes()))
    }
}

/// The key of one use. The parts are kept apart, so no two lists of parts meet.
fn derive(root: &Prk, parts: &[&str]) -> hmac::Key {
    let info: Vec<&[u8]> = parts
        .iter()
        .flat_map(|part| [part.as_bytes(), b"\0"])
        .collect();
    root.expand(&info, hmac::HMAC_SHA256)
        .expect("HKDF gives up to 8160 bytes, and a key has 32")
        .into()
}

fn truncated(tag: &hmac::Tag) -> [u8; 16] {
    *tag.as_ref()
        .first_chunk()
        .expect("HMAC-SHA256 gives 32 bytes")
}

/// A name for a source that is stable over restarts and tells nothing about it: the kind, and 16
/// hexadecimal digits of a keyed hash of what the source is (a path, an address).
#[must_use]
pub fn source_identity(keys: &Keys, kind: &str, material: &[u8]) -> Arc<str> {
    let mut context = hmac::Context::with_key(&keys.source);
    context.update(kind.as_bytes());
    context.update(b"\0");
    context.update(material);
    let hash = u128::from_be_bytes(truncated(&context.sign())) >> 64;
    format!("{kind}-{hash:016x}").into()
}

/// Who a record is about, in the form in which people are compared: NFKC, lower case, without
/// white space around it. It identifies a person, so nothing prints it.
///
/// ```compile_fail
/// let subject = falaj_privacy::Subject::new("ann@example.com");
/// println!("{subject:?}");
/// ```
///
/// ```compile_fail
/// let subject = falaj_privacy::Subject::new("ann@example.com").unwrap();
/// println!("{subject}");
/// ```
#[derive(Default)]
pub struct Subject(String);

impl Subject {
    /// The subject of a text; nothing where the text is empty or white space.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut subject = Self::default();
        subject.assign(text).then_some(subject)
    }

    /// Becomes the subject of a text; false where the text is empty or white space.
    pub(crate) fn assign(&mut self, text: &str) -> bool {
        self.0.clear();
        normalise(text, &mut self.0);
        !self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &String {
        &self.0
    }

    /// Wipes it, keeping the memory for the next.
    pub(crate) fn wipe(&mut self) {
        self.0.zeroize();
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Letters of a [`Pid`].
const PID_LEN: usize = 26;

/// A surrogate: 26 letters `a` to `z`, 122 bits (as a random UUID has).
///
/// There are no digits in it on purpose: nothing in falaj's own output then looks like a phone,
/// card or social security number to whoever scans it for leaks. `Debug` is redacted; a pid is
/// personal data all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid([u8; PID_LEN]);

impl Pid {
    /// The surrogate of 16 bytes: 61 bits of each half. Different bits give different letters, as
    /// 2^61 is less than 26^13.
    #[must_use]
    pub fn from_bits(bits: [u8; 16]) -> Self {
        const MASK: u64 = (1 << 61) - 1;
        const _: () = assert!(MASK < 26_u64.pow(13));
        let bits = u128::from_be_bytes(bits);
        let mut letters = [0; PID_LEN];
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the halves are taken apart"
        )]
        let mut halves = ((bits >> 64) as u64 & MASK, bits as u64 & MASK);
        // Both at once, so that the divisions of one half wait for none of the other.
        for at in (0..PID_LEN / 2).rev() {
            letters[at] = b'a' + (halves.0 % 26) as u8;
            letters[at + PID_LEN / 2] = b'a' + (halves.1 % 26) as u8;
            halves = (halves.0 / 26, halves.1 / 26);
        }
        Self(letters)
    }

    /// Reads one; nothing where the text is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; PID_LEN] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_lowercase)
            .then_some(Self(letters))
    }

    /// The letters, in ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PID_LEN] {
        &self.0
    }

    /// The letters.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "letters are ASCII")]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters are ASCII")
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pid(redacted)")
    }
}

/// Gives people their pids.
///
/// The same subject has the same pid for as long as the subject is known. A keystore that draws
/// them at random and can forget them stands behind the same trait later.
pub trait Pseudonyms: Send + Sync {
    /// The pid of a subject.
    fn pid(&self, subject: &Subject) -> Pid;

    /// The keyed hash of one domain, for `hmac(domain)`.
    fn domain(&self, name: &str) -> Domain;
}

/// A keyed hash over pids: the same person has another surrogate in each domain, so two leaked
/// stores cannot be joined.
#[derive(Clone)]
pub struct Domain(hmac::Key);

impl Domain {
    /// The surrogate of a pid in this domain.
    #[must_use]
    pub fn surrogate(&self, pid: &Pid) -> Pid {
        Pid::from_bits(truncated(&hmac::sign(&self.0, pid.as_bytes())))
    }
}

/// Pids by keyed hash of the subject (HMAC-SHA256): nothing is stored, and whoever has the key and
/// an address can find the pid again.
pub struct KeyedPseudonyms {
    pid: hmac::Key,
    root: Prk,
}

impl KeyedPseudonyms {
    /// Pids under these keys.
    #[must_use]
    pub fn new(keys: &Keys) -> Self {
        Self {
            pid: derive(&keys.root, &["pid"]),
            root: keys.root.clone(),
        }
    }
}

impl Pseudonyms for KeyedPseudonyms {
    fn pid(&self, subject: &Subject) -> Pid {
        Pid::from_bits(truncated(&hmac::sign(&self.pid, subject.0.as_bytes())))
    }

    fn domain(&self, name: &str) -> Domain {
        Domain(derive(&self.root, &["domain", name]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn keys(byte: u8) -> Keys {
        Keys::new(&Key::new([byte; 32]))
    }

    fn pid(keys: &Keys, text: &str) -> Pid {
        KeyedPseudonyms::new(keys).pid(&Subject::new(text).expect("a subject"))
    }

    #[test]
    fn a_person_has_one_pid_under_a_key_and_another_under_another() {
        let ours = keys(1);
        let ann = pid(&ours, "ann@example.com");
        assert_eq!(ann, pid(&ours, "  ANN@Example.com\n"));
        assert_eq!(ann, pid(&keys(1), "ａnn@example.com"));
        assert_ne!(ann, pid(&ours, "ann@example.org"));
        assert_ne!(ann, pid(&keys(2), "ann@example.com"));
        assert!(Subject::new(" \u{a0}").is_none());
    }

    #[test]
    fn a_pid_stays_what_it_is() {
        // Stores hold these: a change here gives every person a new pid. Computed with Python's
        // hmac and hashlib.
        let ours = keys(1);
        assert_eq!(
            pid(&ours, "ann@example.com").as_str(),
            "lggguxaocwdmgcvxzkwelhcvqo"
        );
        let surrogate = KeyedPseudonyms::new(&ours)
            .domain("cassandra")
            .surrogate(&Pid([b'a'; 26]));
        assert_eq!(surrogate.as_str(), "rktudrbtapxurmyiozunneeahd");
        let source = source_identity(&ours, "file", b"people.ndjson");
        assert_eq!(&*source, "file-00f151298572f7de");
    }

    #[test]
    fn a_pid_is_26_letters_and_reads_back() {
        let ours = keys(3);
        let mut seen = HashSet::new();
        for n in 0..2000 {
            let pid = pid(&ours, &format!("{n}@example.com"));
            assert_eq!(Pid::parse(pid.as_str()), Some(pid));
            assert!(seen.insert(pid));
        }
        for bits in [[0; 16], [0xff; 16]] {
            assert!(Pid::parse(Pid::from_bits(bits).as_str()).is_some());
        }
        for bit in 0..128 {
            let one = Pid::from_bits((1_u128 << bit).to_be_bytes());
            let counts = bit % 64 < 61;
            assert_eq!(one != Pid::from_bits([0; 16]), counts, "bit {bit}");
        }
        for text in [
            "",
            "abc",
            &"A".repeat(26),
            &"a1".repeat(13),
            &"é".repeat(13),
        ] {
            assert_eq!(Pid::parse(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", Pid([b'a'; 26])), "Pid(redacted)");
    }

    #[test]
    fn surrogates_of_two_domains_cannot_be_joined() {
        let pseudonyms = KeyedPseudonyms::new(&keys(1));
        let ann = pid(&keys(1), "ann@example.com");
        let (one, two) = (pseudonyms.domain("one"), pseudonyms.domain("two"));
        assert_ne!(one.surrogate(&ann), two.surrogate(&ann));
        assert_ne!(one.surrogate(&ann), ann);
        assert_eq!(
            one.surrogate(&ann),
            pseudonyms.domain("one").surrogate(&ann)
        );
    }

    #[test]
    fn a_source_has_a_name_that_tells_its_kind_only() {
        let ours = keys(1);
        let name = source_identity(&ours, "file", b"/home/ann/people.ndjson");
        assert_eq!(name.len(), "file-".len() + 16);
        assert!(name.starts_with("file-") && !name.contains("ann"));
        assert_eq!(
            name,
            source_identity(&ours, "file", b"/home/ann/people.ndjson")
        );
        assert_ne!(
            name,
            source_identity(&ours, "file", b"/home/bob/people.ndjson")
        );
        assert_ne!(
            name,
            source_identity(&keys(2), "file", b"/home/ann/people.ndjson")
        );
        assert_ne!(
            name[5..],
            source_identity(&ours, "http", b"/home/ann/people.ndjson")[5..]
        );
    }

    #[test]
    fn a_digest_tells_what_is_the_same_under_one_key_and_for_one_use() {
        let digest = keys(1).digest("use", b"text");
        assert_eq!(digest, keys(1).digest("use", b"text"));
        for other in [
            keys(2).digest("use", b"text"),
            keys(1).digest("other use", b"text"),
            keys(1).digest("use", b"other text"),
            keys(1).digest("use", b""),
        ] {
            assert_ne!(digest, other);
        }
    }

    #[test]
    fn a_key_has_32_bytes() {
        assert!(Key::try_from([1_u8; 32].as_slice()).is_ok());
        for length in [0, 31, 33] {
            let fault = Key::try_from(vec![1_u8; length].as_slice()).err();
            assert_eq!(fault, Some(KeyLength(length)));
        }
    }
}

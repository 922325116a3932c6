//! The data directory of one pipeline: lock, keys, and where everything lies in it.
//!
//! ```text
//! <data-dir>/
//!   lock                 held while a falaj runs this pipeline
//!   keys/master          32 bytes, mode 0600, made at first start
//!   policies.json        what each policy declared that records here were cleared under
//!   clock                ceiling of the version clock
//!   topic/               the embedded log
//!   ingest/              keys of requests of the last day, hashed
//!   checkpoints/         the two newest checkpoints
//!   views.sqlite         the embedded sink
//!   address              where the page of the running falaj is
//! ```
//!
//! Always: one process holds the lock; the key file is readable by its owner only.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use falaj_privacy::Declarations;
use falaj_record::Secret;

use crate::failure::{Failure, Fault};
use crate::state::State;

/// What the policies are kept under.
const POLICIES: &str = "policies.json";
/// Length of the master key in bytes.
const KEY_BYTES: usize = 32;

/// The data directory, not necessarily locked.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

/// The lock on a data directory; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// `--data-dir`, else `$XDG_DATA_HOME/falaj/<name>`, else `~/.local/share/falaj/<name>`.
    ///
    /// # Errors
    /// Where no directory was named and there is no home to put one in.
    pub fn locate(given: Option<&Path>, name: &str) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Ok(Self(path.to_owned()));
        }
        let absolute = |key: &str| {
            std::env::var_os(key)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let base = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .ok_or_else(|| {
                Failure::run(
                    Fault::new("there is no home directory to keep the data in")
                        .hint("name a directory with `--data-dir`"),
                )
            })?;
        Ok(Self(base.join("falaj").join(name)))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn topic(&self) -> PathBuf {
        self.0.join("topic")
    }

    /// What `[source.ingest]` remembers keys in.
    pub fn ingest(&self) -> PathBuf {
        self.0.join("ingest/keys.sqlite")
    }

    pub fn address(&self) -> PathBuf {
        self.0.join("address")
    }

    fn key(&self) -> PathBuf {
        self.0.join("keys/master")
    }

    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Makes the directory (mode 0700) where it is missing, and takes its lock.
    ///
    /// # Errors
    /// Where it cannot be made or written, or another falaj holds the lock.
    pub fn lock(&self) -> Result<Lock, Failure> {
        self.try_lock()?.ok_or_else(|| {
            Failure::run(
                Fault::new(format!(
                    "another falaj is running this pipeline in `{}`",
                    self.0.display()
                ))
                .hint("stop it first, or name another directory with `--data-dir`"),
            )
        })
    }

    /// As [`DataDir::lock`]; nothing where another falaj holds the lock.
    ///
    /// # Errors
    /// Where the directory cannot be made or written.
    pub fn try_lock(&self) -> Result<Option<Lock>, Failure> {
        let unusable = |e: io::Error| {
            Failure::run(
                Fault::new(format!(
                    "cannot use the data directory `{}`",
                    self.0.display()
                ))
                .cause(e)
                .hint("name a directory that you may write to with `--data-dir`"),
            )
        };
        make_private_dir(&self.0).map_err(unusable)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.0.join("lock"))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(unusable(e)),
        }
    }

    /// Whether a falaj holds the lock now.
    pub fn is_locked(&self) -> bool {
        File::open(self.0.join("lock"))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The master key of a pipeline: the one that `secret` names (relative to `base`), else the key file
    /// here, made at the first start: before there are `policies`.
    ///
    /// # Errors
    /// Where it cannot be read or written, is no key, or is gone.
    pub fn master_key(
        &self,
        secret: Option<&Secret>,
        base: &Path,
        policies: &Policies,
    ) -> Result<[u8; KEY_BYTES], Failure> {
        match secret {
            Some(secret) => named_key(secret, base),
            None => self.key_or_new(policies),
        }
    }

    /// As [`DataDir::master_key`], making none.
    ///
    /// # Errors
    /// Where it cannot be read, or is no key.
    pub fn existing_key(
        &self,
        secret: Option<&Secret>,
        base: &Path,
    ) -> Result<Option<[u8; KEY_BYTES]>, Failure> {
        match secret {
            Some(secret) => named_key(secret, base).map(Some),
            None => self.read_key(),
        }
    }

    /// The master key, if there is one already.
    ///
    /// # Errors
    /// Where it cannot be read, is of another length, or may be read by others than its owner.
    fn read_key(&self) -> Result<Option<[u8; KEY_BYTES]>, Failure> {
        let path = self.key();
        let wrong = |what: String, hint: &str| Failure::run(Fault::new(what).hint(hint.to_owned()));
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                return Err(wrong(
                    format!("cannot read the key file `{}`: {e}", path.display()),
                    "run falaj as the user who owns the data directory",
                ));
            }
        };
        let mode = file
            .metadata()
            .map_or(0, |m| m.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            return Err(wrong(
                format!(
                    "the key file `{}` may be read by others (mode {mode:o})",
                    path.display()
                ),
                "run `chmod 600` on it, and consider who could have copied it",
            ));
        }
        let mut key = Vec::new();
        file.read_to_end(&mut key).map_err(|e| {
            Failure::run(Fault::new(format!(
                "cannot read the key file `{}`: {e}",
                path.display()
            )))
        })?;
        let length = key.len();
        key.try_into().map(Some).map_err(|_| {
            wrong(
                format!(
                    "the key file `{}` has {length} bytes, not {KEY_BYTES}",
                    path.display()
                ),
                "restore it from a backup; without it, the pids on the topic cannot be made again",
            )
        })
    }

    /// The master key; made at the first start, and kept with mode 0600.
    ///
    /// # Errors
    /// As [`DataDir::read_key`], and where it cannot be written, or records were cleared with one that
    /// is gone: under a new key they would be somebody else's, one by one.
    fn key_or_new(&self, policies: &Policies) -> Result<[u8; KEY_BYTES], Failure> {
        if let Some(key) = self.read_key()? {
            return Ok(key);
        }
        let path = self.key();
        if !policies.known.is_empty() {
            let what = "the key is gone that records of this pipeline were cleared with";
            return Err(Failure::run(
                Fault::new(format!("{what}: there is no `{}`", path.display())).hint(
                    "restore it from a backup, or name it with `privacy.key`; without it, `falaj reset` starts anew",
                ),
            ));
        }
        let write = || -> io::Result<[u8; KEY_BYTES]> {
            let mut fresh = [0; KEY_BYTES];
            File::open("/dev/urandom")?.read_exact(&mut fresh)?;
            make_private_dir(path.parent().expect("the key lies in a folder"))?;
            write_atomically(&path, &fresh)?;
            Ok(fresh)
        };
        write().map_err(|e| {
            Failure::run(
                Fault::new(format!("cannot write the key file `{}`", path.display())).cause(e),
            )
        })
    }
}

/// The policies that records in this data directory were cleared under, oldest first.
#[derive(Debug, Default)]
pub struct Policies {
    known: Vec<Declarations>,
}

impl Policies {
    /// Reads them.
    ///
    /// # Errors
    /// Where the file is there and cannot be read.
    pub fn open(state: &State) -> Result<Self, Failure> {
        let unreadable = |why: String| {
            let place = state.place();
            Failure::run(Fault::new(format!("cannot read `{POLICIES}` in `{place}`")).cause(why))
        };
        let known = match state
            .read(POLICIES)
            .map_err(|e| unreadable(e.to_string()))?
        {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?,
            None => Vec::new(),
        };
        Ok(Self { known })
    }

    /// The policies before the one of now.
    pub fn earlier(mut self, now: &Declarations) -> Vec<Declarations> {
        self.known.retain(|known| known.hash != now.hash);
        self.known
    }

    /// Adds the policy of now, before anything is cleared under it, and gives the earlier ones.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn with(mut self, now: &Declarations, state: &State) -> Result<Vec<Declarations>, Failure> {
        if self.known.last() != Some(now) {
            self.known.retain(|known| known.hash != now.hash);
            self.known.push(now.clone());
            let bytes = serde_json::to_vec_pretty(&self.known).expect("plain data");
            state.write(POLICIES, bytes).map_err(|e| {
                let place = state.place();
                Failure::run(Fault::new(format!("cannot write `{POLICIES}` in `{place}`")).cause(e))
            })?;
        }
        Ok(self.earlier(now))
    }
}

/// The key in a secret: 64 hexadecimal digits.
fn named_key(secret: &Secret, base: &Path) -> Result<[u8; KEY_BYTES], Failure> {
    let unusable = |cause: String| {
        Failure::run(
            Fault::new("cannot use the key that `privacy.key` names")
                .cause(cause)
                .hint("a key is 64 hexadecimal digits, as `openssl rand -hex 32` gives them"),
        )
    };
    let text = secret.read(base).map_err(unusable)?;
    let mut key = [0; KEY_BYTES];
    let digits = text.trim().as_bytes();
    if digits.len() != 2 * KEY_BYTES {
        return Err(unusable(format!(
            "it has {} characters, not {}",
            digits.len(),
            2 * KEY_BYTES
        )));
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        let value = digit(0).zip(digit(1)).map(|(high, low)| high * 16 + low);
        *byte = value
            .and_then(|value| u8::try_from(value).ok())
            .ok_or_else(|| unusable("it holds something else than hexadecimal digits".into()))?;
    }
    Ok(key)
}

/// Makes a folder, and those above it, for its owner only.
///
/// # Errors
/// As the file system gives them.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Writes `bytes` to `path` so that a reader finds the old content or the new, whatever crashes:
/// a file beside it (mode 0600), fsync, rename, fsync of the folder.
///
/// # Errors
/// As the file system gives them; the old content is still there then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    write_beside(&beside, bytes)?;
    fs::rename(&beside, path)?;
    sync_folder(path)
}

/// As [`write_atomically`], where `path` is not there yet; of two processes that try, one is told.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where it is there; else as the file system gives them.
pub fn create_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    write_beside(&beside, bytes)?;
    let linked = fs::hard_link(&beside, path);
    let removed = fs::remove_file(&beside);
    linked.and(removed)?;
    sync_folder(path)
}

fn write_beside(beside: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = (|| {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    written.inspect_err(|_| {
        let _ = fs::remove_file(beside);
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir(tmp.path().join("p"));
        let _lock = dir.lock().unwrap();
        let none = Policies::default();
        let key = dir.key_or_new(&none).unwrap();
        assert_ne!(key, [0; 32]);
        assert_eq!(
            dir.key_or_new(&none).unwrap(),
            key,
            "a second start made another key"
        );
        let mode = fs::metadata(dir.key()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(dir.key(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            dir.read_key().is_err(),
            "a key that others can read was used"
        );
    }

    #[test]
    fn one_process_holds_the_lock() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir(tmp.path().join("p"));
        let lock = dir.lock().unwrap();
        assert!(dir.is_locked());
        assert!(dir.lock().is_err());
        drop(lock);
        assert!(!dir.is_locked());
        assert!(dir.lock().is_ok());
    }

    #[test]
    fn a_named_key_is_64_hexadecimal_digits() {
        let base = tempfile::tempdir().unwrap();
        let dir = DataDir(base.path().join("data"));
        let read = |text: &str| {
            fs::write(base.path().join("key"), text).unwrap();
            let secret = Secret::File("key".into());
            dir.master_key(Some(&secret), base.path(), &Policies::default())
        };
        assert_eq!(read(&format!("{}\n", "0f".repeat(32))).unwrap(), [15; 32]);
        for wrong in [
            "",
            "00",
            &"0g".repeat(32),
            &"é".repeat(32),
            &"00".repeat(33),
        ] {
            let error = format!("{:?}", read(wrong).unwrap_err());
            assert!(error.contains("privacy.key"), "{error}");
            assert!(wrong.len() < 3 || !error.contains(wrong));
        }
        assert!(!dir.exists(), "no key file is made beside a named key");
    }
}

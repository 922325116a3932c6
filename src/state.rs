//! Where a pipeline's state lies: the data directory, or a place that a standby shares.
//!
//! Always: a reader finds the old content of a name or the new, whatever crashes.
//! Always: [`State::create`] writes a name once; of two who try, one is told. So a falaj that was
//! paused while another took over cannot put an older checkpoint over a newer one.
//! Absent on purpose: the embedded log, the key and the sinks; a folder or bucket is no lock either
//! (the lease of the cluster is).

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use tokio::runtime::Handle;

use crate::data_dir::{DataDir, create_atomically, make_private_dir, write_atomically};
use crate::failure::{Failure, Fault};
use crate::plan::Plan;

/// How an address in an S3-compatible store begins.
const S3: &str = "s3://";

/// A place for named pieces of state: `clock`, `policies.json`, `checkpoints/..`.
#[derive(Debug)]
pub enum State {
    Folder(PathBuf),
    Objects(PrefixStore<Arc<dyn ObjectStore>>),
}

impl State {
    /// Where a pipeline keeps its state: what `pipeline.state` says, else the data directory.
    ///
    /// # Errors
    /// As [`State::open`].
    pub fn of(plan: &Plan, dir: &DataDir) -> Result<Self, Failure> {
        match &plan.config.pipeline.state {
            Some(place) => Self::open(place, &plan.folder),
            None => Ok(Self::Folder(dir.path().to_owned())),
        }
    }

    /// `place` as the pipeline file has it: a folder, relative to `base`, or `s3://bucket/prefix`
    /// with the access that the usual `AWS_` variables give. Nothing is read or written yet.
    ///
    /// # Errors
    /// Where it is no such place, or the folder cannot be made.
    fn open(place: &str, base: &Path) -> Result<Self, Failure> {
        let unusable = |cause: String| {
            Failure::run(
                Fault::new(format!("cannot keep state in `{place}` (`pipeline.state`)"))
                    .cause(cause)
                    .hint("name a folder that both falajs may write to, or `s3://bucket/prefix` with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where it is not AWS, AWS_ENDPOINT set"),
            )
        };
        let Some(address) = place.strip_prefix(S3) else {
            let folder = base.join(place);
            make_private_dir(&folder).map_err(|e| unusable(e.to_string()))?;
            return Ok(Self::Folder(folder));
        };
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        if bucket.is_empty() {
            return Err(unusable("it names no bucket".into()));
        }
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        Ok(Self::Objects(PrefixStore::new(Arc::new(store), prefix)))
    }

    /// What is kept under `name`.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(folder) => match fs::read(folder.join(name)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            },
            Self::Objects(store) => wait(async {
                match store.get(&Key::from(name)).await {
                    Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
                    Err(Error::NotFound { .. }) => Ok(None),
                    Err(e) => Err(e),
                }
            }),
        }
    }

    /// Puts `bytes` under `name`, durably, in place of what was there.
    ///
    /// # Errors
    /// Where that fails; what was there still is then.
    pub fn write(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Folder(folder) => write_atomically(&folder.join(name), &bytes),
            Self::Objects(store) => {
                wait(async { store.put(&Key::from(name), bytes.into()).await }).map(drop)
            }
        }
    }

    /// Puts `bytes` under `name`, durably, where nothing is yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where something is; else as [`State::write`].
    pub fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                make_private_dir(path.parent().unwrap_or(folder))?;
                create_atomically(&path, &bytes)
            }
            Self::Objects(store) => wait(async {
                store
                    .put_opts(&Key::from(name), bytes.into(), PutMode::Create.into())
                    .await
            })
            .map(drop),
        }
    }

    /// Removes `name`, where it is there.
    ///
    /// # Errors
    /// Where it stays.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let removed = match self {
            Self::Folder(folder) => fs::remove_file(folder.join(name)),
            Self::Objects(store) => wait(async { store.delete(&Key::from(name)).await }),
        };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The names directly under `folder`, without it.
    ///
    /// # Errors
    /// Where they cannot be listed.
    pub fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        match self {
            Self::Folder(base) => {
                let entries = match fs::read_dir(base.join(folder)) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(e) => return Err(e),
                };
                let mut names = Vec::new();
                for entry in entries {
                    names.extend(entry?.file_name().into_string());
                }
                Ok(names)
            }
            Self::Objects(store) => wait(async {
                let listed = store.list(Some(&Key::from(folder)));
                let listed = listed.map_ok(|object| object.location.filename().map(str::to_owned));
                Ok(listed
                    .try_collect::<Vec<_>>()
                    .await?
                    .into_iter()
                    .flatten()
                    .collect())
            }),
        }
    }

    /// What to call it in a message.
    pub fn place(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Objects(store) => store.to_string(),
        }
    }
}

/// Waits for an object store on this thread: state is written between two batches, when nothing may
/// change.
fn wait<T>(future: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
    tokio::task::block_in_place(|| Handle::current().block_on(future)).map_err(|e| {
        let kind = match &e {
            Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            Error::NotFound { .. } => io::ErrorKind::NotFound,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                io::ErrorKind::PermissionDenied
            }
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, e)
    })
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// Both kinds keep the same promises.
    fn keeps_its_promises(state: &State) {
        assert!(state.list("checkpoints").unwrap().is_empty());
        assert_eq!(state.read("clock").unwrap(), None);
        state.write("clock", b"1".to_vec()).unwrap();
        state.write("clock", b"2".to_vec()).unwrap();
        assert_eq!(state.read("clock").unwrap(), Some(b"2".to_vec()));
        state.create("checkpoints/a", b"x".to_vec()).unwrap();
        let again = state.create("checkpoints/a", b"y".to_vec()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(state.read("checkpoints/a").unwrap(), Some(b"x".to_vec()));
        assert_eq!(state.list("checkpoints").unwrap(), ["a"]);
        state.remove("checkpoints/a").unwrap();
        state.remove("checkpoints/a").unwrap();
        assert!(state.list("checkpoints").unwrap().is_empty());
    }

    #[test]
    fn a_folder_keeps_its_promises() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open("shared/state", dir.path()).unwrap();
        keeps_its_promises(&state);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_store_keeps_its_promises() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        keeps_its_promises(&State::Objects(PrefixStore::new(store, "a/b")));
    }

    #[test]
    fn an_address_without_a_bucket_is_refused_with_the_key() {
        let error = State::open("s3://", Path::new(".")).unwrap_err();
        assert!(format!("{error:?}").contains("pipeline.state"), "{error:?}");
    }
}

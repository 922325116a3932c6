//! What a start needs to know of a partition without reading it: `partition.snapshot`.
//!
//! Always: it tells only of bytes that were synced before it was written.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::replace;
use crate::marks::Marks;
use crate::producers::Producers;
use crate::segment::Extent;

const NAME: &str = "partition.snapshot";
const FORMAT: u32 = 1;

/// A partition's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub format: u32,
    /// First offset held.
    pub start: i64,
    /// All segments; the last one may have grown since.
    pub segments: Vec<Extent>,
    /// How far each source had got.
    pub marks: Marks,
    /// What is remembered of idempotent producers.
    #[serde(default)]
    pub producers: Producers,
    /// The cleaner has gone through everything before it.
    #[serde(default)]
    pub cleaned: i64,
}

/// What was found where a snapshot may be.
pub(crate) enum Found {
    Whole(Snapshot),
    Nothing,
    Unusable(&'static str),
}

impl Snapshot {
    pub(crate) fn new(start: i64, segments: Vec<Extent>) -> Self {
        Self {
            format: FORMAT,
            start,
            segments,
            marks: Marks::default(),
            producers: Producers::default(),
            cleaned: 0,
        }
    }

    /// A line with the checksum, then JSON.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        let body = serde_json::to_vec(self)?;
        let mut file = format!("{:08x}\n", crc32c::crc32c(&body)).into_bytes();
        file.extend_from_slice(&body);
        replace(&folder.join(NAME), &file)
    }

    pub(crate) fn load(folder: &Path) -> io::Result<Found> {
        let file = match fs::read(folder.join(NAME)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(e) => return Err(e),
        };
        let whole = file
            .split_at_checked(9)
            .filter(|(crc, body)| *crc == format!("{:08x}\n", crc32c::crc32c(body)).as_bytes());
        let Some((_, body)) = whole else {
            return Ok(Found::Unusable("its checksum is wrong"));
        };
        Ok(match serde_json::from_slice::<Self>(body) {
            Ok(snapshot) if snapshot.format == FORMAT && !snapshot.segments.is_empty() => {
                Found::Whole(snapshot)
            }
            _ => Found::Unusable("another version wrote it"),
        })
    }
}

//! A file of records, read once.
//!
//! Always: the position of a record is its line (1 is the first; blank lines count), or in a saved
//! reply its place among the records.
//! Always: a file of lines is read by a thread of its own, at most [`QUEUE_BATCHES`] batches ahead.
//! Absent on purpose: following a file that grows, and unpacking.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::thread;

use async_trait::async_trait;
use bytes::Bytes;
use falaj_record::{ByteSize, Raw};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::format::{Format, Head, detect};
use crate::lines::{Lines, Numbered, PIECE_BYTES, Piece};
use crate::source::{Opening, Portion, Source, records_path};
use crate::{FileConfig, SourceError, SourceState, SourceStatus, reply};

pub(crate) const KIND: &str = "file";

/// Batches read ahead of the pipeline; each holds on to one piece of the file.
const QUEUE_BATCHES: usize = 4;
/// Longest saved reply: it is validated as a whole before its first record is used.
const SAVED_BYTES_MAX: u64 = 1_000_000_000;
/// Bytes of the first record that the source's identity depends on.
const MATERIAL_BYTES_MAX: usize = 64 << 10;

/// [`FileConfig`], opened.
pub(crate) struct FileSource {
    label: String,
    path: PathBuf,
    material: Vec<u8>,
    after: u64,
    stage: Stage,
    status: watch::Sender<SourceStatus>,
    progress: ProgressBar,
    stop: CancellationToken,
}

enum Stage {
    /// Open, with the first bytes read.
    Lines(Box<Lines<Input>>),
    /// A saved reply; all of its records.
    Saved(Backlog),
    /// Lines, being read by the thread.
    Reading(mpsc::Receiver<News>),
    Ended,
}

type Input = Box<dyn Read + Send>;

/// What the reading thread tells.
enum News {
    /// Records, and how many bytes were read so far.
    Batch(Vec<Raw>, u64),
    Failed(io::Error),
    Ended,
}

impl FileSource {
    pub(crate) async fn open(config: &FileConfig, opening: Opening) -> Result<Self, SourceError> {
        let keys = records_path(KIND, config.records.as_deref())?;
        let label = config.path.display().to_string();
        let path = if config.is_stdin() {
            PathBuf::from("standard input")
        } else {
            opening.base.join(&config.path)
        };
        let record_bytes_max = usize::try_from(opening.max_record.0).unwrap_or(usize::MAX);

        let (tell, told) = oneshot::channel();
        let (stdin, at, steps) = (config.is_stdin(), path.clone(), keys.clone());
        // A thread and not the runtime's pool: reading a pipe may block for ever, and the process
        // must be able to end nevertheless.
        spawn(&path, move || {
            let opened = Opened::read(stdin, &at, &steps, record_bytes_max);
            // Nobody waits any more: stopped.
            let _ = tell.send(opened);
        })?;
        let opened = tokio::select! {
            biased;
            () = opening.stop.cancelled() => return Err(SourceError::Stopped),
            opened = told => opened.map_err(|_| vanished(&path))??,
        };

        let mut material = format!("{label}\n{}\n", keys.join(".")).into_bytes();
        material.extend_from_slice(&opened.first[..opened.first.len().min(MATERIAL_BYTES_MAX)]);
        Ok(Self {
            progress: progress(opening.progress, opened.length),
            label,
            path,
            material,
            after: 0,
            stage: opened.stage,
            status: watch::Sender::default(),
            stop: opening.stop,
        })
    }

    fn start(&self, mut lines: Box<Lines<Input>>) -> Result<mpsc::Receiver<News>, SourceError> {
        let (tell, news) = mpsc::channel(QUEUE_BATCHES);
        let mut numbered = Numbered::after(self.after);
        spawn(&self.path, move || {
            let last = loop {
                match lines.piece() {
                    Ok(Some(piece)) => {
                        if !hand_on(&mut numbered, &piece, lines.read(), &tell) {
                            return;
                        }
                    }
                    Ok(None) => break News::Ended,
                    Err(cause) => break News::Failed(cause),
                }
            };
            // Nobody listens any more: stopped.
            let _ = tell.blocking_send(last);
        })?;
        Ok(news)
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.progress.finish_and_clear();
        self.status
            .send_modify(|status| status.well(SourceState::Ended));
    }

    fn count(&mut self, batch: Vec<Raw>, read: u64) -> Portion {
        self.progress.set_position(read);
        self.status.send_modify(|status| {
            status.well(SourceState::Ok);
            status.records += batch.len() as u64;
            status.bytes = read;
        });
        Portion::new(batch)
    }
}

/// Whether somebody still listens.
fn hand_on(numbered: &mut Numbered, piece: &Piece, read: u64, tell: &mpsc::Sender<News>) -> bool {
    numbered.split(piece, |batch| {
        tell.blocking_send(News::Batch(batch, read)).is_ok()
    }) && !tell.is_closed()
}

#[async_trait]
impl Source for FileSource {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn finite(&self) -> bool {
        true
    }

    fn rereads(&self) -> bool {
        true
    }

    fn material(&self) -> &[u8] {
        &self.material
    }

    fn resume_after(&mut self, _part: i32, position: u64) {
        self.after = position;
        if let Stage::Saved(backlog) = &mut self.stage {
            backlog.skip_to(position);
        }
    }

    fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    async fn next(&mut self) -> Result<Option<Portion>, SourceError> {
        loop {
            if self.stop.is_cancelled() {
                self.progress.finish_and_clear();
                return Ok(None);
            }
            match &mut self.stage {
                Stage::Lines(_) => {
                    let Stage::Lines(lines) = std::mem::replace(&mut self.stage, Stage::Ended)
                    else {
                        unreachable!("matched above");
                    };
                    self.stage = Stage::Reading(self.start(lines)?);
                }
                Stage::Saved(backlog) => match backlog.batch() {
                    Some(batch) => {
                        let read = self.progress.length().unwrap_or_default();
                        return Ok(Some(self.count(batch, read)));
                    }
                    None => self.end(),
                },
                Stage::Reading(news) => {
                    let news = tokio::select! {
                        biased;
                        () = self.stop.cancelled() => continue,
                        news = news.recv() => news,
                    };
                    match news {
                        Some(News::Batch(batch, read)) => return Ok(Some(self.count(batch, read))),
                        Some(News::Ended) => self.end(),
                        Some(News::Failed(cause)) => {
                            self.stage = Stage::Ended;
                            return Err(refused(&self.path, cause));
                        }
                        None => {
                            self.stage = Stage::Ended;
                            return Err(vanished(&self.path));
                        }
                    }
                }
                Stage::Ended => return Ok(None),
            }
        }
    }
}

/// A file with its first bytes read.
struct Opened {
    stage: Stage,
    first: Bytes,
    /// Bytes in all, where that is known.
    length: Option<u64>,
}

impl Opened {
    fn read(
        stdin: bool,
        path: &Path,
        keys: &[String],
        record_bytes_max: usize,
    ) -> Result<Self, SourceError> {
        let (input, mut length) = if stdin {
            (Box::new(io::stdin()) as Input, None)
        } else {
            let file = File::open(path).map_err(|cause| refused(path, cause))?;
            let about = file.metadata().map_err(|cause| refused(path, cause))?;
            if about.is_dir() {
                let path = path.to_owned();
                return Err(SourceError::Directory { path });
            }
            let length = about.is_file().then_some(about.len());
            (Box::new(file) as Input, length)
        };
        let mut lines = Box::new(Lines::new(input, PIECE_BYTES, record_bytes_max));
        let format = loop {
            match detect(lines.head(), lines.ended()) {
                Head::Is(format) => break format,
                Head::Packed(what) => {
                    let path = path.to_owned();
                    return Err(SourceError::Packed { path, what });
                }
                Head::Open => lines.fill().map_err(|cause| refused(path, cause))?,
            }
        };
        lines.drop_bom();

        let empty = lines.ended() && lines.head().trim_ascii().is_empty();
        let (stage, first) = if (format == Format::Saved || !keys.is_empty()) && !empty {
            let saved = lines
                .into_rest(SAVED_BYTES_MAX)
                .map_err(|cause| refused(path, cause))?
                .ok_or_else(|| SourceError::ReplyTooLarge {
                    path: path.to_owned(),
                    max: ByteSize(SAVED_BYTES_MAX),
                })?;
            length = Some(saved.len() as u64);
            let records = reply::split_saved(&saved.into(), keys).map_err(|cause| {
                let path = path.to_owned();
                SourceError::Reply { path, cause }
            })?;
            let first = records.first().cloned().unwrap_or_default();
            (Stage::Saved(Backlog::new(records, 0)), first)
        } else {
            let first = lines.first_record().map_err(|cause| refused(path, cause))?;
            (Stage::Lines(lines), first)
        };
        Ok(Self {
            stage,
            first,
            length,
        })
    }
}

fn refused(path: &Path, cause: io::Error) -> SourceError {
    let path = path.to_owned();
    match cause.kind() {
        ErrorKind::NotFound => SourceError::Missing { path },
        ErrorKind::PermissionDenied => SourceError::Denied { path },
        ErrorKind::IsADirectory => SourceError::Directory { path },
        _ => SourceError::Read { path, cause },
    }
}

/// The reading thread is gone without a word.
fn vanished(path: &Path) -> SourceError {
    let path = path.to_owned();
    let cause = io::Error::other("reading ended unexpectedly");
    SourceError::Read { path, cause }
}

fn spawn(path: &Path, work: impl FnOnce() + Send + 'static) -> Result<(), SourceError> {
    thread::Builder::new()
        .name("falaj-source".into())
        .spawn(work)
        .map(drop)
        .map_err(|cause| refused(path, cause))
}

fn progress(wanted: bool, length: Option<u64>) -> ProgressBar {
    if !wanted || !io::stderr().is_terminal() {
        let bar = ProgressBar::hidden();
        bar.set_length(length.unwrap_or_default());
        return bar;
    }
    let template = match length {
        Some(_) => "{bar:32} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr()).with_style(style)
}

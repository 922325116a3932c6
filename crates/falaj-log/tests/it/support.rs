//! Batches from the Kafka codec, folders, and a disk that fails on demand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use falaj_log::{
    Batches, Disk, HEAD_BYTES, Head, LocalDisk, Log, LogOptions, Partition, Records, SegmentFile,
    Settings,
};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// Whether the long runs are asked for; see `CONTRIBUTING.md`.
pub fn long() -> bool {
    std::env::var_os("FALAJ_LONG").is_some_and(|long| long == "1")
}

pub fn record(n: usize, timestamp: i64, key: Option<Bytes>, value: Option<Bytes>) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i64::try_from(n).unwrap(),
        sequence: i32::try_from(n).unwrap() - 1,
        timestamp,
        key,
        value,
        headers: [("falaj.src".into(), Some(format!("file@{timestamp}").into()))].into(),
    }
}

pub fn encode(records: &[Record]) -> BytesMut {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes
}

/// One batch as a client with this compression would send it.
pub fn packed(records: &[Record], compression: Compression) -> BytesMut {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes
}

pub const COMPRESSIONS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Changes an encoded batch and its checksum with it.
pub fn resealed(mut bytes: BytesMut, change: impl FnOnce(&mut BytesMut)) -> BytesMut {
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The batch as the idempotent producer `id` would send it.
pub fn by_producer(bytes: BytesMut, id: i64, epoch: i16, sequence: i32) -> BytesMut {
    resealed(bytes, |b| {
        b[43..51].copy_from_slice(&id.to_be_bytes());
        b[51..53].copy_from_slice(&epoch.to_be_bytes());
        b[53..57].copy_from_slice(&sequence.to_be_bytes());
    })
}

/// One batch with a record for each number: the number is its timestamp, position and value.
pub fn batch(numbers: impl IntoIterator<Item = i64>) -> Batches {
    Batches::checked(encode(&records(numbers, 0))).unwrap()
}

/// The same with values that are longer by `padding` bytes.
pub fn padded(numbers: impl IntoIterator<Item = i64>, padding: usize) -> Batches {
    Batches::checked(encode(&records(numbers, padding))).unwrap()
}

fn records(numbers: impl IntoIterator<Item = i64>, padding: usize) -> Vec<Record> {
    let value = |n: i64| Some(format!("{n}{}", " ".repeat(padding)).into());
    let numbered = numbers.into_iter().enumerate();
    numbered
        .map(|(i, n)| record(i, n, None, value(n)))
        .collect()
}

/// All that can be read from `from` on: offsets and the numbers in the values.
pub fn numbers(partition: &Partition, from: i64, bytes_max: usize) -> Vec<(i64, i64)> {
    let mut at = from;
    let mut found = Vec::new();
    loop {
        let slice = partition.read(at, bytes_max).unwrap();
        if slice.batches.is_empty() {
            assert_eq!(at, slice.end);
            return found;
        }
        let mut rest = &slice.batches[..];
        while let Some(head) = Head::parse(rest) {
            for r in Records::new(&head, &rest[HEAD_BYTES..head.bytes]) {
                let r = r.unwrap();
                if r.offset >= from {
                    let value = std::str::from_utf8(r.value.unwrap()).unwrap();
                    found.push((r.offset, value.trim_end().parse().unwrap()));
                }
            }
            at = head.next();
            rest = &rest[head.bytes..];
        }
        assert!(rest.is_empty());
    }
}

pub fn counted(numbers: std::ops::Range<i64>) -> Vec<(i64, i64)> {
    numbers.map(|n| (n, n)).collect()
}

pub fn options() -> LogOptions {
    LogOptions {
        housekeeping: Duration::from_hours(1),
        cleaning: Duration::from_hours(1),
        ..LogOptions::default()
    }
}

pub fn small_segments(segment_bytes: u64) -> Settings {
    Settings {
        segment_bytes,
        ..Settings::default()
    }
}

/// A log on a disk that fails on demand.
pub fn on(faulty: &Arc<Faulty>, folder: &Path) -> Log {
    let disk = Arc::new(FaultyDisk(Arc::clone(faulty)));
    Log::open(folder, LogOptions { disk, ..options() }).unwrap()
}

pub fn open(folder: &Path) -> Log {
    Log::open(folder, options()).unwrap()
}

/// What a crash leaves: the files as they are now, without a close.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            match fs::copy(&path, &target) {
                // A replacement that got its name meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => {
                    copied.unwrap();
                }
            }
        }
    }
}

/// Segment files of partition 0 of topic `t`, oldest first.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder.join("t/0"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .collect();
    found.sort();
    found
}

/// Called before and after each change of a file, with what is done.
type Hook = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

/// A disk of limited room whose syncs can be made to fail and to wait.
#[derive(Default)]
pub struct Faulty {
    pub hook: std::sync::Mutex<Option<Hook>>,
    pub room: AtomicI64,
    pub no_sync: AtomicBool,
    pub no_cut: AtomicBool,
    pub no_create: AtomicBool,
    pub syncs: AtomicU64,
    pub gate: parking_lot_gate::Gate,
}

impl Faulty {
    fn step(&self, what: &str) -> io::Result<()> {
        match &mut *self.hook.lock().unwrap() {
            Some(hook) => hook(what),
            None => Ok(()),
        }
    }

    pub fn with_room(bytes: i64) -> Arc<Self> {
        let disk = Self::default();
        disk.room.store(bytes, Ordering::SeqCst);
        Arc::new(disk)
    }
}

/// A gate that syncs pass while it is open.
pub mod parking_lot_gate {
    use std::sync::{Condvar, Mutex};

    #[derive(Default)]
    pub struct Gate {
        shut: Mutex<bool>,
        moved: Condvar,
    }

    impl Gate {
        pub fn set(&self, shut: bool) {
            *self.shut.lock().unwrap() = shut;
            self.moved.notify_all();
        }

        pub fn pass(&self) {
            let shut = self.shut.lock().unwrap();
            drop(self.moved.wait_while(shut, |shut| *shut).unwrap());
        }
    }
}

pub struct FaultyDisk(pub Arc<Faulty>);

struct FaultyFile(Arc<Faulty>, Arc<dyn SegmentFile>);

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        let file = LocalDisk.open(path)?;
        Ok(Arc::new(FaultyFile(Arc::clone(&self.0), file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn SegmentFile>> {
        self.0.step("before create")?;
        let file = LocalDisk.create(path)?;
        self.0.step("after create")?;
        if self.0.no_create.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Arc::new(FaultyFile(Arc::clone(&self.0), file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step("before rename")?;
        LocalDisk.rename(from, to)?;
        self.0.step("after rename")
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.step("before remove")?;
        LocalDisk.remove(path)?;
        self.0.step("after remove")
    }
}

impl SegmentFile for FaultyFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.1.read_at(into, at)
    }

    /// Writes what there is room for, then fails, as a full disk does.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.step("before write")?;
        let room = self.0.room.load(Ordering::SeqCst).max(0);
        let fits = usize::try_from(room).unwrap().min(bytes.len());
        self.0
            .room
            .fetch_sub(i64::try_from(fits).unwrap(), Ordering::SeqCst);
        self.1.write_at(&bytes[..fits], at)?;
        if fits < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.step("after write")
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        if self.0.no_cut.load(Ordering::SeqCst) {
            return Err(io::Error::other("no cut"));
        }
        self.1.cut(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.gate.pass();
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        if self.0.no_sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("no sync"));
        }
        self.0.step("before sync")?;
        self.1.sync()?;
        self.0.step("after sync")
    }

    fn length(&self) -> io::Result<u64> {
        self.1.length()
    }
}

/// A small generator of numbers that look random (xorshift), so that a failure can be repeated.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

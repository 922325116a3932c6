//! Lines of a file as slices of large pieces, in constant memory.

use std::io::{self, ErrorKind, Read};

use bytes::Bytes;
use falaj_record::Raw;
use memchr::{memchr, memrchr};

use crate::backlog::BATCH_RECORDS_MAX;
use crate::format::BOM;

/// Bytes read at once.
pub(crate) const PIECE_BYTES: usize = 4 << 20;
/// Bytes looked at to find the first record.
const FIRST_BYTES_MAX: usize = 64 << 10;

/// A piece of a file.
pub(crate) enum Piece {
    /// One or more whole lines; only the last line of a file may lack its newline.
    Lines(Bytes),
    /// The beginning of a line that is longer than a record may be: one byte more than that.
    TooLong(Bytes),
}

/// Reads a file piece by piece.
pub(crate) struct Lines<R> {
    from: R,
    /// Always initialised to its whole length; the first `filled` bytes are read and not given out.
    buffer: Vec<u8>,
    filled: usize,
    /// How many of the filled bytes are known to hold no newline.
    searched: usize,
    piece_bytes: usize,
    record_bytes_max: usize,
    /// The rest of a line that is too long is still to be dropped.
    dropping: bool,
    ended: bool,
    read: u64,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(from: R, piece_bytes: usize, record_bytes_max: usize) -> Self {
        Self {
            from,
            buffer: vec![0; piece_bytes],
            filled: 0,
            searched: 0,
            piece_bytes,
            record_bytes_max,
            dropping: false,
            ended: false,
            read: 0,
        }
    }

    /// How many bytes were read so far.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// What is read and not given out yet.
    pub(crate) fn head(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Whether the end was reached.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Reads once more.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        if self.filled == self.buffer.len() {
            // A line longer than the buffer: room for it, up to what shows that it is too long.
            let room = (2 * self.buffer.len()).min(self.record_bytes_max.saturating_add(2));
            self.buffer.resize(room.max(self.filled + 1), 0);
        }
        let bytes = loop {
            match self.from.read(&mut self.buffer[self.filled..]) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.ended = bytes == 0;
        self.filled += bytes;
        self.read += bytes as u64;
        Ok(())
    }

    /// Drops a byte order mark. Before the first piece, with the file's first bytes read.
    pub(crate) fn drop_bom(&mut self) {
        if self.head().starts_with(BOM) {
            self.drop_front(BOM.len());
        }
    }

    /// The first line that is not blank, or its beginning. Before the first piece.
    pub(crate) fn first_record(&mut self) -> io::Result<Bytes> {
        loop {
            let head = self.head();
            let blank = head.len() - head.trim_ascii_start().len();
            if blank >= FIRST_BYTES_MAX {
                return Ok(Bytes::new());
            }
            let line = &head[blank..head.len().min(blank + FIRST_BYTES_MAX)];
            match memchr(b'\n', line) {
                Some(end) => return Ok(Bytes::copy_from_slice(line[..end].trim_ascii_end())),
                None if self.ended || line.len() == FIRST_BYTES_MAX => {
                    return Ok(Bytes::copy_from_slice(line.trim_ascii_end()));
                }
                None => self.fill()?,
            }
        }
    }

    /// All that is left, up to `max` bytes; `None` where it is more.
    pub(crate) fn into_rest(self, max: u64) -> io::Result<Option<Vec<u8>>> {
        let mut rest = self.buffer;
        rest.truncate(self.filled);
        let room = (max + 1).saturating_sub(rest.len() as u64);
        self.from.take(room).read_to_end(&mut rest)?;
        Ok((rest.len() as u64 <= max).then_some(rest))
    }

    /// The next piece; `None` at the end.
    pub(crate) fn piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if self.dropping {
                let end = memchr(b'\n', self.head());
                self.dropping = end.is_none();
                self.drop_front(end.map_or(self.filled, |end| end + 1));
            }
            if let Some(end) = memrchr(b'\n', &self.buffer[self.searched..self.filled]) {
                let lines = self.take(self.searched + end + 1);
                return Ok(Some(Piece::Lines(lines)));
            }
            self.searched = self.filled;
            // The last of these bytes could be the return before a newline; without it the line is
            // still too long.
            if self.filled > self.record_bytes_max.saturating_add(1) {
                let start = Bytes::copy_from_slice(&self.buffer[..=self.record_bytes_max]);
                self.dropping = true;
                return Ok(Some(Piece::TooLong(start)));
            }
            if self.ended {
                let last = (self.filled > 0).then(|| Piece::Lines(self.take(self.filled)));
                return Ok(last);
            }
            self.fill()?;
        }
    }

    fn drop_front(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        self.searched = 0;
    }

    /// Gives out the first `bytes`; what follows them holds no newline.
    fn take(&mut self, bytes: usize) -> Bytes {
        let taken = if bytes < self.buffer.len() / 4 {
            // Little came (a pipe): a copy is cheaper than a new buffer.
            let taken = Bytes::copy_from_slice(&self.buffer[..bytes]);
            self.drop_front(bytes);
            taken
        } else {
            let rest = self.filled - bytes;
            let mut next = vec![0; self.piece_bytes.max(2 * rest)];
            next[..rest].copy_from_slice(&self.buffer[bytes..self.filled]);
            let mut full = std::mem::replace(&mut self.buffer, next);
            full.truncate(bytes);
            self.filled = rest;
            Bytes::from(full)
        };
        self.searched = self.filled;
        taken
    }
}

/// Numbers the lines of pieces, and leaves out those that were read before.
pub(crate) struct Numbered {
    line: u64,
    after: u64,
}

impl Numbered {
    /// From the first line on; lines up to `after` are counted and left out.
    pub(crate) fn after(after: u64) -> Self {
        Self { line: 0, after }
    }

    /// Gives the records of a piece to `hand_on` in batches, until that says stop; whether it never
    /// did. Blank lines are counted and left out; a return before a newline is not part of a line.
    pub(crate) fn split(
        &mut self,
        piece: &Piece,
        mut hand_on: impl FnMut(Vec<Raw>) -> bool,
    ) -> bool {
        let lines = match piece {
            Piece::Lines(lines) => lines,
            Piece::TooLong(start) => {
                self.line += 1;
                let (bytes, position) = (start.clone(), self.line);
                return self.line <= self.after || hand_on(vec![Raw::new(bytes, position)]);
            }
        };
        let mut start = 0;
        let mut batch = Vec::new();
        while start < lines.len() {
            let end = memchr(b'\n', &lines[start..]).map_or(lines.len(), |end| start + end);
            self.line += 1;
            if self.line > self.after {
                let returned = usize::from(lines[start..end].ends_with(b"\r"));
                let line = start..end - returned;
                if !is_blank(&lines[line.clone()]) {
                    batch.push(Raw::new(lines.slice(line), self.line));
                }
                if batch.len() == BATCH_RECORDS_MAX && !hand_on(std::mem::take(&mut batch)) {
                    return false;
                }
            }
            start = end + 1;
        }
        batch.is_empty() || hand_on(batch)
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in uneven portions, with an interruption now and then.
    struct Dripping {
        bytes: Vec<u8>,
        at: usize,
        turn: usize,
    }

    impl Read for Dripping {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.turn += 1;
            if self.turn.is_multiple_of(7) {
                return Err(ErrorKind::Interrupted.into());
            }
            let portion = [1, 3, 50, 2][self.turn % 4]
                .min(into.len())
                .min(self.bytes.len() - self.at);
            into[..portion].copy_from_slice(&self.bytes[self.at..self.at + portion]);
            self.at += portion;
            Ok(portion)
        }
    }

    fn read(text: &[u8], piece_bytes: usize, max: usize, after: u64) -> Vec<(u64, Vec<u8>)> {
        let from = Dripping {
            bytes: text.to_vec(),
            at: 0,
            turn: 0,
        };
        let mut lines = Lines::new(from, piece_bytes, max);
        let mut numbered = Numbered::after(after);
        let mut records = Vec::new();
        while let Some(piece) = lines.piece().expect("readable") {
            assert!(
                lines.buffer.len() <= 2 * piece_bytes.max(max + 2),
                "bounded"
            );
            assert!(numbered.split(&piece, |batch| {
                records.extend(batch.iter().map(|raw| (raw.position, raw.bytes.to_vec())));
                true
            }));
        }
        assert_eq!(lines.read(), text.len() as u64);
        records
    }

    #[test]
    fn any_portions_and_sizes_give_the_lines_of_the_file() {
        let mut random = fastrand::Rng::with_seed(4);
        for round in 0..300 {
            let text: Vec<u8> = (0..random.usize(0..400))
                .map(|_| *random.choice(b"ab{}\xff \r\n\n").expect("not empty"))
                .collect();
            let after = random.u64(0..4);
            let expected: Vec<(u64, Vec<u8>)> = (1..)
                .zip(text.split(|byte| *byte == b'\n'))
                .map(|(line, text)| (line, text.strip_suffix(b"\r").unwrap_or(text).to_vec()))
                .filter(|(line, text)| *line > after && !is_blank(text))
                .collect();
            for piece_bytes in [1, 5, 64, 4096] {
                let found = read(&text, piece_bytes, 1000, after);
                assert_eq!(found, expected, "round {round}, pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_counted_once() {
        for piece_bytes in [1, 3, 8] {
            for (text, records) in [
                (
                    &b"{1}\n{234567890}\n{2}\n"[..],
                    vec![(1, &b"{1}"[..]), (2, b"{23456"), (3, b"{2}")],
                ),
                (b"{234567890", vec![(1, b"{23456")]),
                (b"{234}\n", vec![(1, b"{234}")]),
                (b"{234}\r\n{}", vec![(1, b"{234}"), (2, b"{}")]),
                (b"        {}\n{}\n", vec![(1, b"      "), (2, b"{}")]),
            ] {
                let found = read(text, piece_bytes, 5, 0);
                let found: Vec<_> = found
                    .iter()
                    .map(|(line, text)| (*line, &text[..]))
                    .collect();
                // A buffer that holds a whole line shows its true length.
                let same = found
                    .iter()
                    .zip(&records)
                    .all(|((line, text), (at, start))| {
                        line == at && (text == start || (text.len() > 5 && text.starts_with(start)))
                    });
                assert!(
                    same && found.len() == records.len(),
                    "{} by {piece_bytes}",
                    text.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn the_first_record_is_the_first_line_that_is_not_blank() {
        let (long, blank) = (vec![b'x'; 200_000], vec![b' '; 100_000]);
        for (text, first) in [
            (&b"\n \r\n {\"a\":1} \r\n{}"[..], &b"{\"a\":1}"[..]),
            (b"{\"a\":1}", b"{\"a\":1}"),
            (b"", b""),
            (b"\n\n", b""),
            (&long, &long[..FIRST_BYTES_MAX]),
            (&blank, b""),
        ] {
            let bytes = text.to_vec();
            let mut lines = Lines::new(
                Dripping {
                    bytes,
                    at: 0,
                    turn: 0,
                },
                PIECE_BYTES,
                1 << 20,
            );
            assert_eq!(lines.first_record().expect("readable"), first);
        }
    }
}

use bytes::Bytes;
use falaj_record::Raw;

/// Most records handed on at once.
pub(crate) const BATCH_RECORDS_MAX: usize = 4096;
/// Bytes after which a batch is full; only a single record may be longer.
pub(crate) const BATCH_BYTES_MAX: usize = 4 << 20;

/// The records of a reply that were not handed on yet, with the position of the one before them.
#[derive(Default)]
pub(crate) struct Backlog {
    records: std::vec::IntoIter<Bytes>,
    position: u64,
}

impl Backlog {
    /// Records whose positions follow `position`.
    pub(crate) fn new(records: Vec<Bytes>, position: u64) -> Self {
        Self {
            records: records.into_iter(),
            position,
        }
    }

    /// Position of the last record handed on.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Leaves out the records up to and with `position`.
    pub(crate) fn skip_to(&mut self, position: u64) {
        while self.position < position && self.records.next().is_some() {
            self.position += 1;
        }
    }

    /// The next batch; `None` where nothing is left.
    pub(crate) fn batch(&mut self) -> Option<Vec<Raw>> {
        let (mut raws, mut bytes) = (Vec::new(), 0);
        while let Some(record) = self.records.as_slice().first() {
            bytes += record.len();
            if !raws.is_empty() && (raws.len() == BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX) {
                break;
            }
            self.position += 1;
            let position = self.position;
            raws.extend(self.records.next().map(|bytes| Raw::new(bytes, position)));
        }
        (!raws.is_empty()).then_some(raws)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(mut backlog: Backlog) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| backlog.batch())
            .map(|batch| (batch.len(), batch.last().expect("not empty").position))
            .collect()
    }

    #[test]
    fn batches_are_bounded_in_records_and_in_bytes() {
        let many = vec![Bytes::from_static(b"{}"); 10_000];
        assert_eq!(
            sizes(Backlog::new(many, 7)),
            [(4096, 4103), (4096, 8199), (1808, 10_007)]
        );
        let big = vec![Bytes::from(vec![b' '; 3 << 20]); 3];
        assert_eq!(sizes(Backlog::new(big, 0)), [(1, 1), (1, 2), (1, 3)]);
        let huge = vec![Bytes::from(vec![b' '; 5 << 20]), Bytes::from_static(b"{}")];
        assert_eq!(sizes(Backlog::new(huge, 0)), [(1, 1), (1, 2)]);
        assert!(Backlog::default().batch().is_none());
    }

    #[test]
    fn skipping_never_goes_beyond_the_end() {
        let mut backlog = Backlog::new(vec![Bytes::from_static(b"{}"); 3], 0);
        backlog.skip_to(2);
        assert_eq!(backlog.batch().expect("one is left")[0].position, 3);
        backlog.skip_to(9);
        assert!(backlog.batch().is_none());
        assert_eq!(backlog.position(), 3);
    }
}

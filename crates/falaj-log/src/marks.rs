//! How far each source has got in a partition: the highest `falaj.src` position, by source.

use std::collections::BTreeMap;

use falaj_record::Src;
use serde::{Deserialize, Serialize};

use crate::{HEAD_BYTES, Head, Records};

/// Header of a record that says where it came from: `<source id>@<position>`.
pub const SRC_HEADER: &str = "falaj.src";

/// Highest position by source id. Outlives the records that told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Marks(BTreeMap<String, u64>);

impl Marks {
    pub(crate) fn get(&self, source: &str) -> Option<u64> {
        self.0.get(source).copied()
    }

    /// Notes the records of one batch. Compressed ones are other clients' (falaj writes its own
    /// batches uncompressed), and these have no source.
    pub(crate) fn add(&mut self, head: &Head, batch: &[u8]) {
        if head.control() || head.compression() != 0 {
            return;
        }
        // Records of one source follow each other, so the last entry mostly serves the next one.
        let mut run: Option<(&str, u64)> = None;
        for record in Records::new(head, &batch[HEAD_BYTES..]).map_while(Result::ok) {
            let src = record
                .headers
                .filter(|(name, _)| *name == SRC_HEADER.as_bytes())
                .last();
            let Some((id, position)) = src.and_then(|(_, value)| Src::parse(value?)) else {
                continue;
            };
            match &mut run {
                Some((of, highest)) if *of == id => *highest = position.max(*highest),
                _ => {
                    self.raise(run.replace((id, position)));
                }
            }
        }
        self.raise(run);
    }

    fn raise(&mut self, mark: Option<(&str, u64)>) {
        let Some((id, position)) = mark else { return };
        match self.0.get_mut(id) {
            Some(highest) => *highest = position.max(*highest),
            None => {
                self.0.insert(id.to_owned(), position);
            }
        }
    }
}

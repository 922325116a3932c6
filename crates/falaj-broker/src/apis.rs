//! Which requests are answered, in which versions, and what each looks like on the wire.
//!
//! Always: a version is offered only if [`crate`]'s tests decode, answer and encode it.
//! Always: a request is walked before it is decoded. The decoder makes room for as many elements
//! as an array announces, so four bytes could ask for more memory than there is; the walk refuses a
//! request whose arrays, texts and tags are not all there, or that holds too many of them.
//! Capped on purpose: fetching by topic identity (Fetch 13 and later), the second group protocol
//! (`OffsetCommit` 9, `OffsetFetch` 9) and all of transactions (`AddPartitionsToTxn`, `AddOffsetsToTxn`,
//! `EndTxn`, `TxnOffsetCommit`, Produce 10 and later). Clients settle on what is here.
//! `ConsumerGroupHeartbeat` is here only to be refused: without it, librdkafka asks for ever.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;

/// The most elements of all arrays and tags of one request together. A decoded element takes up to
/// some 200 bytes, whatever it took on the wire.
const ELEMENTS_MAX: usize = 100_000;

/// One kind of request.
pub(crate) struct Api {
    pub key: ApiKey,
    pub versions: RangeInclusive<i16>,
    /// From this version on lengths are varints and tags follow each structure.
    flexible: i16,
    fields: Vec<Field>,
}

/// A field and the versions that have it.
struct Field {
    versions: RangeInclusive<i16>,
    kind: Kind,
}

enum Kind {
    /// So many bytes.
    Fixed(usize),
    Text,
    Data,
    Array(Box<Kind>),
    /// With tags behind it where the version is flexible.
    Structures(Vec<Field>),
}

/// All that is answered. Fields of a shape are in the order of the wire; `7-:` before one stands
/// for "from version 7 on", `[ ]` is an array, `{ }` an array of structures.
pub(crate) static APIS: LazyLock<Vec<Api>> = LazyLock::new(|| {
    let api = |key, versions, flexible, shape: &str| Api {
        key,
        versions,
        flexible,
        fields: fields(&mut shape.split_ascii_whitespace()),
    };
    vec![
        api(
            ApiKey::Produce,
            3..=9,
            9,
            "text int16 int32 { text { int32 data } }",
        ),
        api(
            ApiKey::Fetch,
            4..=12,
            12,
            "int32 int32 int32 int32 int8 7-:int32 7-:int32 { text { int32 9-:int32 int64 12-:int32 5-:int64 int32 } } 7-:{ 7-:text 7-:[ int32 ] } 11-:text",
        ),
        api(
            ApiKey::ListOffsets,
            1..=7,
            6,
            "int32 2-:int8 { text { int32 4-:int32 int64 } }",
        ),
        api(
            ApiKey::Metadata,
            0..=12,
            9,
            "{ 10-:uuid text } 4-:int8 8-10:int8 8-:int8",
        ),
        api(
            ApiKey::OffsetCommit,
            2..=8,
            8,
            "text int32 text 7-:text -4:int64 { text { int32 int64 6-:int32 text } }",
        ),
        api(
            ApiKey::OffsetFetch,
            1..=8,
            6,
            "-7:text -7:{ -7:text -7:[ int32 ] } 8-:{ 8-:text 8-:{ 8-:text 8-:[ int32 ] } } 7-:int8",
        ),
        api(
            ApiKey::FindCoordinator,
            0..=4,
            3,
            "-3:text 1-:int8 4-:[ text ]",
        ),
        api(
            ApiKey::JoinGroup,
            0..=9,
            6,
            "text int32 1-:int32 text 5-:text text { text data } 8-:text",
        ),
        api(ApiKey::Heartbeat, 0..=4, 4, "text int32 text 3-:text"),
        api(
            ApiKey::LeaveGroup,
            0..=5,
            4,
            "text -2:text 3-:{ 3-:text 3-:text 5-:text }",
        ),
        api(
            ApiKey::SyncGroup,
            0..=5,
            4,
            "text int32 text 3-:text 5-:text 5-:text { text data }",
        ),
        api(ApiKey::DescribeGroups, 0..=5, 5, "[ text ] 3-:int8"),
        api(ApiKey::ListGroups, 0..=5, 3, "4-:[ text ] 5-:[ text ]"),
        api(ApiKey::SaslHandshake, 0..=1, 99, "text"),
        api(ApiKey::ApiVersions, 0..=3, 3, "3-:text 3-:text"),
        api(
            ApiKey::CreateTopics,
            2..=7,
            5,
            "{ text int32 int16 { int32 [ int32 ] } { text text } } int32 int8",
        ),
        api(
            ApiKey::DeleteTopics,
            1..=6,
            4,
            "6-:{ 6-:text 6-:uuid } -5:[ text ] int32",
        ),
        api(
            ApiKey::DeleteRecords,
            0..=2,
            2,
            "{ text { int32 int64 } } int32",
        ),
        api(
            ApiKey::InitProducerId,
            0..=4,
            2,
            "text int32 3-:int64 3-:int16",
        ),
        api(
            ApiKey::OffsetForLeaderEpoch,
            2..=4,
            4,
            "3-:int32 { text { int32 int32 int32 } }",
        ),
        api(
            ApiKey::DescribeConfigs,
            1..=4,
            4,
            "{ int8 text [ text ] } int8 3-:int8",
        ),
        api(
            ApiKey::AlterConfigs,
            0..=2,
            2,
            "{ int8 text { text text } } int8",
        ),
        api(ApiKey::SaslAuthenticate, 0..=2, 2, "data"),
        api(
            ApiKey::CreatePartitions,
            0..=3,
            2,
            "{ text int32 { [ int32 ] } } int32 int8",
        ),
        api(ApiKey::DeleteGroups, 0..=2, 2, "[ text ]"),
        api(
            ApiKey::IncrementalAlterConfigs,
            0..=1,
            1,
            "{ int8 text { text int8 text } } int8",
        ),
        api(ApiKey::OffsetDelete, 0..=0, 99, "text { text { int32 } }"),
        api(ApiKey::DescribeCluster, 0..=1, 0, "int8 1-:int8"),
        api(
            ApiKey::ConsumerGroupHeartbeat,
            0..=1,
            0,
            "text text int32 text text int32 [ text ] 1-:text text { uuid [ int32 ] }",
        ),
    ]
});

/// The entry of a request, by its number on the wire.
pub(crate) fn api(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

/// Reads a shape up to the bracket that closes it.
fn fields<'a>(words: &mut impl Iterator<Item = &'a str>) -> Vec<Field> {
    let mut read = Vec::new();
    while let Some(word) = words.next() {
        if matches!(word, "}" | "]") {
            break;
        }
        let (range, kind) = word.split_once(':').unwrap_or(("-", word));
        let (from, to) = range.split_once('-').expect("a range has a dash");
        let number = |text: &str, without| match text {
            "" => without,
            digits => digits.parse().expect("a version is a number"),
        };
        let kind = match kind {
            "int8" => Kind::Fixed(1),
            "int16" => Kind::Fixed(2),
            "int32" => Kind::Fixed(4),
            "int64" => Kind::Fixed(8),
            "uuid" => Kind::Fixed(16),
            "text" => Kind::Text,
            "data" => Kind::Data,
            "[" => {
                let element = fields(words).pop().expect("an array has elements");
                Kind::Array(Box::new(element.kind))
            }
            "{" => Kind::Structures(fields(words)),
            odd => unreachable!("`{odd}` is no word of a shape"),
        };
        read.push(Field {
            versions: number(from, 0)..=number(to, i16::MAX),
            kind,
        });
    }
    read
}

impl Api {
    /// Whether `body` is a whole request of this kind, and small enough to be decoded.
    pub fn holds(&self, version: i16, body: &Bytes) -> bool {
        let mut walk = Walk {
            rest: body,
            version,
            flexible: version >= self.flexible,
            elements: 0,
        };
        walk.structure(&self.fields).is_some()
    }

    /// Whether `header` starts with a whole header of a request of this kind; the fixed part (kind,
    /// version, correlation) stands before it.
    pub fn holds_header(&self, version: i16, header: &[u8]) -> bool {
        let mut walk = Walk {
            rest: header,
            version,
            flexible: false,
            elements: 0,
        };
        // The client's name has a fixed length before it even where all else has a varint.
        let name = walk.one(&Kind::Text);
        walk.flexible = version >= self.flexible;
        name.and_then(|()| walk.tags()).is_some()
    }
}

/// A walk over a request that reads nothing but lengths; `None` where it leaves the request.
struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, fields: &[Field]) -> Option<()> {
        for field in fields {
            if field.versions.contains(&self.version) {
                self.one(&field.kind)?;
            }
        }
        self.tags()
    }

    fn one(&mut self, kind: &Kind) -> Option<()> {
        match kind {
            Kind::Fixed(length) => self.skip(*length),
            Kind::Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Kind::Data => {
                let length = self.length(4)?;
                self.skip(length)
            }
            Kind::Array(element) => {
                for _ in 0..self.length(4)? {
                    self.count()?;
                    self.one(element)?;
                }
                Some(())
            }
            Kind::Structures(fields) => {
                for _ in 0..self.length(4)? {
                    self.count()?;
                    self.structure(fields)?;
                }
                Some(())
            }
        }
    }

    fn tags(&mut self) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.varint()? {
            self.count()?;
            self.varint()?;
            let length = self.varint()?;
            self.skip(usize::try_from(length).ok()?)?;
        }
        Some(())
    }

    fn count(&mut self) -> Option<()> {
        self.elements += 1;
        (self.elements <= ELEMENTS_MAX).then_some(())
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }

    /// A length of `width` bytes, or a varint that is one more; none at all is 0.
    fn length(&mut self, width: usize) -> Option<usize> {
        if self.flexible {
            let length = self.varint()?.saturating_sub(1);
            return usize::try_from(length).ok();
        }
        let length = match width {
            2 => i64::from(self.rest.try_get_i16().ok()?),
            _ => i64::from(self.rest.try_get_i32().ok()?),
        };
        if length == -1 {
            return Some(0);
        }
        usize::try_from(length).ok()
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for i in 0..5 {
            let byte = self.rest.try_get_u8().ok()?;
            value |= u32::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

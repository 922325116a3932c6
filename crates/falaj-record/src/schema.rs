use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema as ArrowSchema, SchemaRef, TimeUnit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Column of the subject's pseudonym in `records`; null where a record has no subject.
pub const PID: &str = "pid";
/// Column of the event time in `records`.
pub const EVENT_TIME: &str = "event_time";
/// Hidden column: the topic partition a record was read from.
pub const PARTITION: &str = "_partition";
/// Hidden column: the offset of a record in its partition.
pub const OFFSET: &str = "_offset";

/// The type of a declared field, after its treatment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// UTF-8 text.
    String,
    /// 64-bit signed integer; `44.0` is not one.
    Int,
    /// 64-bit float; whole numbers are accepted.
    Float,
    /// `true` or `false`.
    Bool,
}

impl FieldType {
    /// How a column of this type lies in memory.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Bool => DataType::Boolean,
        }
    }

    /// The word of the pipeline file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
        }
    }
}

/// A declared field as it stands on the topic and in `records`: already treated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    /// Name in the pipeline file, on the topic and in SQL.
    pub name: String,
    /// Type after the treatment (`band(10)` of an int is a string).
    pub kind: FieldType,
}

/// The relation `records`: `pid`, the declared fields in file order, `event_time`, and the hidden
/// `_partition` and `_offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    fields: Vec<Field>,
    arrow: SchemaRef,
}

impl Schema {
    /// The relation of these fields. Names are taken to be valid and distinct.
    #[must_use]
    pub fn new(fields: Vec<Field>) -> Self {
        let mut columns = vec![ArrowField::new(PID, DataType::Utf8, true)];
        columns.extend(
            fields
                .iter()
                .map(|f| ArrowField::new(&f.name, f.kind.arrow(), true)),
        );
        columns.push(ArrowField::new(
            EVENT_TIME,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            false,
        ));
        columns.push(ArrowField::new(PARTITION, DataType::Int32, false));
        columns.push(ArrowField::new(OFFSET, DataType::Int64, false));
        Self {
            fields,
            arrow: Arc::new(ArrowSchema::new(columns)),
        }
    }

    /// The declared fields, in the order of the pipeline file.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Arrow schema of a [`crate::Batch`]: `pid: Utf8?`, fields (all nullable),
    /// `event_time: Timestamp(us)` in UTC, `_partition: Int32`, `_offset: Int64`.
    #[must_use]
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }
}

//! Values of the pipeline file that carry a unit, and secrets that stand elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time, written `"250ms"`, `"5s"`, `"10m"`, `"6h"`, `"30d"` or `"2w"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// Units of time with their length in milliseconds, longest first.
const TIME_UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let factor = TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, ms)| *ms);
        factor
            .and_then(|ms| number.parse::<u64>().ok()?.checked_mul(ms))
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| {
                format!("`{text}` is not a length of time; write a whole number and a unit: 250ms, 5s, 10m, 6h, 30d, 2w")
            })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, factor) = TIME_UNITS
            .iter()
            // People write 7d and 30d; weeks are read, not written.
            .filter(|(unit, _)| *unit != "w")
            .find(|(_, factor)| ms > 0 && ms % factor == 0)
            .unwrap_or(&("s", 1000));
        write!(f, "{}{unit}", ms / factor)
    }
}

/// A number of bytes, written `"512B"`, `"64kB"`, `"16MB"`, `"1GB"` (powers of 1000) or `"16MiB"` (of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let factor = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, bytes)| *bytes);
        factor
            .and_then(|bytes| number.parse::<u64>().ok()?.checked_mul(bytes))
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is not a size; write a whole number and a unit: 512B, 64kB, 16MB, 1GB, 16MiB")
            })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..digits], text[digits..].trim_start())
}

macro_rules! text_setting {
    ($name:ident, $example:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

text_setting!(Period, "5s", "^[0-9]+ ?(ms|s|m|h|d|w)$");
text_setting!(ByteSize, "16MB", "^[0-9]+ ?(B|kB|KB|KiB|MB|MiB|GB|GiB|TB)$");

/// A secret that stands outside the pipeline file: `{ env = "NAME" }` or `{ file = "path" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Secret {
    /// Name of an environment variable.
    Env(String),
    /// Path of a file, relative to the pipeline file; white space at its end is cut.
    File(PathBuf),
}

impl Secret {
    /// Reads the secret; `base` is the folder of the pipeline file.
    ///
    /// # Errors
    /// Where the variable is not set or the file cannot be read; the message names it, never its content.
    pub fn read(&self, base: &Path) -> Result<String, String> {
        match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|_| format!("environment variable `{name}` is not set"))
            }
            Self::File(path) => std::fs::read_to_string(base.join(path))
                .map(|text| text.trim_end().to_owned())
                .map_err(|e| format!("cannot read the secret in `{}`: {e}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_and_sizes_need_a_unit_and_print_as_written() {
        for text in ["250ms", "5s", "10m", "6h", "7d", "30d"] {
            assert_eq!(
                text.parse::<Period>().map(|p| p.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in [
            "5",
            "s",
            "",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "5 parsecs",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        for (text, bytes) in [("16MB", 16_000_000), ("1 KiB", 1024), ("7B", 7)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
        assert!("16".parse::<ByteSize>().is_err());
    }
}

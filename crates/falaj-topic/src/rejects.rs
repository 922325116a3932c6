//! Rejects as records of their own topic: JSON values, and a header that tells repeats.

use bytes::Bytes;
use falaj_record::{At, Reason, Reject, Src};

use crate::encode::Part;

/// Ends the name of a topic of rejects.
pub(crate) const SUFFIX: &str = ".rejects";

/// Name of the topic that holds the rejects of `topic`.
#[must_use]
pub fn rejects_topic(topic: &str) -> String {
    format!("{topic}{SUFFIX}")
}

/// Where a reject stands in an order that it is written in: of its source, of its sink, or of its
/// partition and reason (each reason is found by one stage, which reads a partition in order).
pub(crate) fn mark(reject: &Reject) -> Src {
    match &reject.at {
        At::Source { source, position } => Src {
            id: source.clone(),
            position: *position,
        },
        At::Topic { partition, offset } => Src {
            id: format!("topic/{partition}/{}", reason(reject.reason)).into(),
            position: u64::try_from(*offset).unwrap_or(0),
        },
        At::Sink { sink, number, .. } => Src {
            id: format!("sink/{sink}").into(),
            position: u64::try_from(*number).unwrap_or(0),
        },
    }
}

/// The reason's name in JSON, which is stable and has no blanks.
fn reason(reason: Reason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("a reason is a JSON string"),
    }
}

pub(crate) fn part(reject: &Reject, mark: &Src) -> Part {
    let value = serde_json::to_vec(reject).expect("numbers and texts are always JSON");
    Part {
        timestamp_ms: reject.time_ms,
        key: None,
        value: value.into(),
        policy: None,
        src: Some(Bytes::from(mark.header())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_of_a_source_of_a_sink_or_of_a_partition_and_reason() {
        let reject = |at| Reject {
            at,
            reason: Reason::NotCleared,
            path: None,
            length: 3,
            time_ms: 5,
        };
        let source = At::Source {
            source: "file-1".into(),
            position: 9,
        };
        let topic = At::Topic {
            partition: 2,
            offset: 7,
        };
        assert_eq!(mark(&reject(source)).header(), "file-1@9");
        assert_eq!(mark(&reject(topic)).header(), "topic/2/not_cleared@7");
        let sink = At::Sink {
            sink: "local".into(),
            view: "users".into(),
            number: 8,
        };
        assert_eq!(mark(&reject(sink)).header(), "sink/local@8");
    }
}

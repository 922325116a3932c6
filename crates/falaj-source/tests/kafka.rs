//! `[source.kafka]` over a raw log in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use falaj_record::{Fetched, Hint, Message, Positions};
use falaj_source::{
    Backoff, KafkaConfig, Opening, Outcome, RawBroker, RawLog, RawLogError, RawOffsets, Source,
    SourceConfig, SourceError, SourceState, open, reread,
};
use tokio_util::sync::CancellationToken;

/// A topic in memory: for each partition its first offset and its values.
#[derive(Default)]
struct Memory {
    made: bool,
    partitions: BTreeMap<i32, (i64, Vec<Option<Bytes>>)>,
    /// Errors to be told first.
    faults: Vec<RawLogError>,
    committed: Positions,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Memory>>);

impl Log {
    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.0.lock().expect("no test panics inside"))
    }

    fn write(&self, partition: i32, values: impl IntoIterator<Item = Option<&'static str>>) {
        self.with(|memory| {
            let (_, held) = memory.partitions.entry(partition).or_default();
            held.extend(
                values
                    .into_iter()
                    .map(|v| v.map(|v| Bytes::from_static(v.as_bytes()))),
            );
        });
    }

    fn fault(&self) -> Result<(), RawLogError> {
        self.with(|memory| memory.faults.pop().map_or(Ok(()), Err))
    }
}

#[async_trait]
impl RawBroker for Log {
    async fn open(&self, topic: &str) -> Result<Option<Arc<dyn RawLog>>, RawLogError> {
        assert_eq!(topic, "messages");
        self.fault()?;
        let made = self.with(|memory| memory.made);
        Ok(made.then(|| Arc::new(self.clone()) as Arc<dyn RawLog>))
    }
}

#[async_trait]
impl RawLog for Log {
    fn identity(&self) -> String {
        "identity".into()
    }

    async fn fetch(
        &self,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Fetched>, RawLogError> {
        self.fault()?;
        let mut fetched = Vec::new();
        self.with(|memory| {
            for (&partition, (start, values)) in &memory.partitions {
                let (wanted, end) = (
                    from.next(partition),
                    start + i64::try_from(values.len()).expect("few"),
                );
                if wanted < *start {
                    return Err(RawLogError::Overtaken {
                        partition,
                        wanted,
                        start: *start,
                    });
                }
                if wanted > end {
                    return Err(RawLogError::BeyondEnd {
                        partition,
                        wanted,
                        end,
                    });
                }
                let skipped = usize::try_from(wanted - start).expect("not negative");
                let mut bytes = 0;
                let messages: Vec<Message> = values[skipped..]
                    .iter()
                    .zip(wanted..)
                    .take_while(|(value, _)| {
                        bytes += value.as_ref().map_or(1, |v| v.len() + 1);
                        bytes <= bytes_max
                    })
                    .map(|(value, offset)| Message {
                        offset,
                        timestamp_ms: 0,
                        key: Some(Bytes::from_static(b"never read")),
                        value: value.clone(),
                        policy: None,
                        src: None,
                    })
                    .collect();
                let next = messages.last().map_or(wanted, |m| m.offset + 1);
                if !messages.is_empty() {
                    fetched.push(Fetched {
                        partition,
                        messages,
                        next,
                        end,
                        ..Fetched::default()
                    });
                }
            }
            Ok(())
        })?;
        if fetched.is_empty() {
            tokio::time::sleep(wait.min(Duration::from_millis(5))).await;
        }
        Ok(fetched)
    }

    async fn offsets(&self) -> Result<Vec<RawOffsets>, RawLogError> {
        Ok(self.with(|memory| {
            let of = memory.partitions.iter();
            of.map(|(&partition, (start, values))| RawOffsets {
                partition,
                start: *start,
                end: start + i64::try_from(values.len()).expect("few"),
            })
            .collect()
        }))
    }

    async fn commit(&self, positions: &Positions) -> Result<(), RawLogError> {
        self.with(|memory| memory.committed = positions.clone());
        Ok(())
    }
}

async fn opened(log: &Log, stop: &CancellationToken) -> Box<dyn Source> {
    let config = SourceConfig::Kafka(KafkaConfig {
        topic: "messages".into(),
        brokers: None,
        group: None,
    });
    let opening = Opening {
        broker: Some(Arc::new(log.clone())),
        backoff: Backoff {
            shortest: Duration::from_millis(1),
            longest: Duration::from_millis(2),
        },
        ..Opening::new(".", stop.clone())
    };
    open(&config, opening).await.expect("opens")
}

/// What the source gives next, by part.
async fn next(source: &mut dyn Source) -> (i32, Vec<(u64, String)>) {
    let portion = source.next().await.expect("no error").expect("not stopped");
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("a text");
    let raws = portion
        .raws
        .iter()
        .map(|raw| (raw.position, text(&raw.bytes)));
    (portion.part, raws.collect())
}

fn records<const N: usize>(records: [(u64, &str); N]) -> Vec<(u64, String)> {
    records
        .map(|(position, text)| (position, text.to_owned()))
        .into()
}

#[tokio::test]
async fn each_partition_is_a_part_and_a_position_is_the_offset_and_one() {
    let log = Log::default();
    log.with(|memory| memory.made = true);
    log.write(0, [Some("{}"), None, Some("no json")]);
    log.write(2, [Some("")]);
    // Retention took the first seven before anything was read: that is where it begins.
    log.with(|memory| memory.partitions.get_mut(&2).expect("written").0 = 7);
    let stop = CancellationToken::new();
    let mut source = opened(&log, &stop).await;
    assert_eq!((source.kind(), source.finite()), ("kafka", false));
    assert!(source.rereads() && source.parted());
    assert!(source.ready().await.expect("ready"));
    assert_eq!(source.material(), b"identity");

    let first = next(&mut *source).await;
    assert_eq!(first, (0, records([(1, "{}"), (2, ""), (3, "no json")])));
    assert_eq!(source.status().borrow().lag, Some(1));
    assert_eq!(next(&mut *source).await, (2, records([(8, "")])));
    let status = source.status().borrow().clone();
    assert_eq!(
        (status.state, status.records, status.lag),
        (SourceState::Ok, 4, Some(0))
    );

    // A partition that is added later is read from its start.
    log.write(1, [Some("late")]);
    assert_eq!(next(&mut *source).await, (1, records([(1, "late")])));

    // The group is shown what is durable, at the latest at the end.
    for (part, position) in [(0, 3), (1, 1)] {
        let outcome = Outcome {
            part,
            position,
            published: 0,
            rejects: &[],
            withheld: 0,
        };
        source.done(outcome).await;
    }
    stop.cancel();
    assert!(source.next().await.expect("no error").is_none());
    assert_eq!(
        log.with(|memory| memory.committed.0.clone()),
        [(0, 3), (1, 1)].into()
    );
}

#[tokio::test]
async fn it_goes_on_after_the_positions_it_is_told() {
    let log = Log::default();
    log.with(|memory| memory.made = true);
    log.write(0, [Some("a"), Some("b"), Some("c")]);
    log.write(1, [Some("d")]);
    let stop = CancellationToken::new();
    let mut source = opened(&log, &stop).await;
    assert!(source.ready().await.expect("ready"));
    source.resume_after(0, 2);
    source.resume_after(1, 1);
    assert_eq!(next(&mut *source).await, (0, records([(3, "c")])));
    log.write(1, [Some("e")]);
    assert_eq!(next(&mut *source).await, (1, records([(2, "e")])));
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_waited_for_and_reported() {
    let log = Log::default();
    let stop = CancellationToken::new();
    let mut source = opened(&log, &stop).await;
    let mut status = source.status();
    let making = async {
        let waiting = status.wait_for(|status| status.detail.is_some()).await;
        let waiting = waiting.expect("the source lives").clone();
        log.write(0, [Some("{}")]);
        log.with(|memory| memory.made = true);
        waiting
    };
    let (ready, waiting) = tokio::join!(source.ready(), making);
    assert!(ready.expect("ready"));
    assert_eq!(waiting.state, SourceState::Waiting);
    assert_eq!(
        waiting.detail.as_deref(),
        Some("topic `messages` is not there yet")
    );
    assert_eq!(source.status().borrow().detail, None);
    assert_eq!(next(&mut *source).await.0, 0);

    // While it waits it can be stopped.
    let stop = CancellationToken::new();
    let mut source = opened(&Log::default(), &stop).await;
    let mut status = source.status();
    let (ready, ()) = tokio::join!(source.ready(), async {
        let waiting = status.wait_for(|status| status.detail.is_some()).await;
        drop(waiting.expect("the source lives"));
        stop.cancel();
    });
    assert!(!ready.expect("no error"));
    assert!(source.next().await.expect("no error").is_none());
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for_and_what_is_gone_is_an_error_that_says_so() {
    let away = || RawLogError::Passing {
        cause: "the broker is away".into(),
        hint: Some("start it".into()),
    };
    let log = Log::default();
    log.with(|memory| {
        memory.made = true;
        memory.faults = vec![away(), away(), away()];
    });
    log.write(0, [Some("a")]);
    let stop = CancellationToken::new();
    let mut source = opened(&log, &stop).await;
    let mut status = source.status();
    let told = tokio::spawn(async move {
        let told = status
            .wait_for(|status| status.state == SourceState::Retrying)
            .await;
        told.expect("the source lives").clone()
    });
    assert_eq!(next(&mut *source).await.0, 0);
    let told = told.await.expect("it was told");
    assert_eq!(told.detail.as_deref(), Some("the broker is away"));
    assert_eq!(
        (told.hint.as_deref(), told.retry_at_ms.is_some()),
        (Some("start it"), true)
    );
    assert_eq!(source.status().borrow().state, SourceState::Ok);

    log.with(|memory| *memory.partitions.get_mut(&0).expect("written") = (5, vec![None]));
    let error = source.next().await.expect_err("overtaken");
    assert_eq!(
        error.to_string(),
        "retention took records of topic `messages` before they were read: partition 0 was read up to offset 1 and starts at 5 now"
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("falaj reset"))
    );

    log.with(|memory| *memory.partitions.get_mut(&0).expect("written") = (0, vec![]));
    let lost = source.next().await;
    assert!(matches!(
        lost,
        Err(SourceError::LostEnd {
            wanted: 1,
            end: 0,
            ..
        })
    ));
    for (fault, text) in [
        (RawLogError::Deleted, "was deleted"),
        (
            RawLogError::Failed {
                cause: "it may not be read".into(),
                hint: None,
            },
            "cannot read raw records from topic `messages`: it may not be read",
        ),
    ] {
        log.with(|memory| memory.faults = vec![fault]);
        let error = source.next().await.expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// Opens it to read records once more.
async fn again(log: &Log) -> Result<Box<dyn falaj_source::Reread>, SourceError> {
    let config = SourceConfig::Kafka(KafkaConfig {
        topic: "messages".into(),
        brokers: None,
        group: None,
    });
    let opening = Opening {
        broker: Some(Arc::new(log.clone())),
        ..Opening::new(".", CancellationToken::new())
    };
    reread(&config, opening).await
}

/// The positions of a part that are still there, of those wanted.
async fn there(source: &mut dyn falaj_source::Reread, part: i32, wanted: &[u64]) -> Vec<u64> {
    let found = source.read(part, wanted).await.expect("readable");
    let found = found.expect("not stopped");
    assert_eq!(found.looked_at, wanted.len());
    found.raws.iter().map(|raw| raw.position).collect()
}

#[tokio::test]
async fn chosen_records_are_read_again_where_they_are_still_there() {
    let log = Log::default();
    log.with(|memory| memory.made = true);
    log.write(0, (0..70_000).map(|_| Some("{\"n\":1}")));
    log.write(1, [Some("a"), None, Some("c")]);
    log.write(2, [Some("x")]);
    log.with(|memory| memory.partitions.get_mut(&1).expect("written").0 = 7);
    let mut source = again(&log).await.expect("opens");
    assert_eq!((source.kind(), source.parted()), ("kafka", true));
    assert_eq!(source.material(), b"identity");
    // Near each other, far from each other, and beyond the end.
    let wanted = [1, 2, 5000, 29_000, 69_999, 70_000, 70_001];
    let found = there(&mut *source, 0, &wanted).await;
    assert_eq!(found, wanted[..6]);
    // Retention took the first seven; position 0 stands nowhere.
    let found = there(&mut *source, 1, &[0, 1, 7, 8, 9, 10, 11]).await;
    assert_eq!(found, [8, 9, 10]);
    assert!(there(&mut *source, 5, &[1, 2]).await.is_empty());
    let found = source.read(2, &[1]).await.expect("readable");
    let raws = found.expect("not stopped").raws;
    assert_eq!(raws[0].bytes, Bytes::from_static(b"x"));
}

#[tokio::test]
async fn retention_that_is_faster_takes_records_and_a_broker_that_is_away_is_an_error() {
    let log = Log::default();
    assert!(
        matches!(again(&log).await.err(), Some(SourceError::NoTopic { topic }) if topic == "messages")
    );
    log.with(|memory| memory.made = true);
    log.write(0, (0..9).map(|_| Some("{}")));
    let mut source = again(&log).await.expect("opens");
    log.with(|memory| {
        let (start, values) = memory.partitions.get_mut(&0).expect("written");
        *start = 5;
        values.drain(..5);
    });
    // It opened before, and goes to the part only now: it must not wait for what is gone.
    let mut early = again(&log).await.expect("opens");
    assert_eq!(there(&mut *early, 0, &[6]).await, [6]);
    log.with(|memory| {
        let (start, values) = memory.partitions.get_mut(&0).expect("written");
        *start = 7;
        values.drain(..2);
    });
    assert_eq!(
        there(&mut *early, 0, &[7, 8, 9]).await,
        [7, 8, 9],
        "read before"
    );
    assert_eq!(there(&mut *source, 0, &[2, 7, 8]).await, [8]);

    let passing = RawLogError::Passing {
        cause: "away".into(),
        hint: Some("start it".into()),
    };
    log.with(|memory| memory.faults.push(passing));
    let error = again(&log).await.err().expect("away");
    assert_eq!(error.hint().as_deref(), Some("start it"));
    let overtaken = RawLogError::Overtaken {
        partition: 0,
        wanted: 7,
        start: 8,
    };
    let mut source = again(&log).await.expect("opens");
    assert!(there(&mut *source, 0, &[1]).await.is_empty());
    log.with(|memory| memory.faults.push(overtaken));
    assert_eq!(there(&mut *source, 0, &[8, 9]).await, [9]);
}

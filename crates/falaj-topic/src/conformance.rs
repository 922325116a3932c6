//! The contract of [`Topic`] and [`Broker`] as checks that every implementation runs:
//! `conformance::run(&mut stand).await`.
//!
//! Always: the records come from a real gate, as in a pipeline; nothing else can make them.
//! A check that fails panics with what was expected. Each works on topics of its own, so that they
//! may run against a broker that others use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use falaj_privacy::{
    Class, Cleared, FieldConfig, Gate, Key, KeyedPseudonyms, Keys, LegalBasis, Policy, PolicyParts,
    PrivacyConfig, PurposeConfig,
};
use falaj_record::{
    At, ByteSize, FieldType, Message, Outbound, Period, Positions, Raw, Reason, Reject,
};
use indexmap::IndexMap;

use crate::{Broker, Topic, TopicConfig, TopicError, rejects_topic};

/// How a broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is told to, and closes what it has.
    Clean,
    /// As by kill -9: what was acknowledged must be there afterwards.
    Crash,
}

/// Something to run the checks against.
#[async_trait]
pub trait Stand: Send + Sync {
    /// The broker as it runs now.
    fn broker(&self) -> Arc<dyn Broker>;

    /// Ends the broker and starts it again over the same data. Nobody holds the old one any more.
    async fn restart(&mut self, end: End);
}

/// Long enough for anything that should happen; what should not is waited for much shorter.
const LONG: Duration = Duration::from_secs(30);
const NO_WAIT: Duration = Duration::ZERO;
const READ_AHEAD: Duration = Duration::from_millis(300);
const PARTITIONS: i32 = 3;
const NOW_MS: i64 = 1_767_225_600_000;

/// Runs all checks.
///
/// # Panics
/// Where the implementation does not keep the contract.
pub async fn run(stand: &mut dyn Stand) {
    let broker = stand.broker();
    topics_are_made_described_listed_and_deleted(&*broker).await;
    every_part_of_a_record_comes_back_in_order(&*broker).await;
    publishing_nothing_changes_nothing(&*broker).await;
    large_records_and_large_calls_come_back_whole(&*broker).await;
    small_fetches_give_every_partition_its_turn(&*broker).await;
    positions_outside_what_is_held_are_errors_with_numbers(&*broker).await;
    a_fetch_waits_for_records_and_no_longer_than_told(&*broker).await;
    overlapping_calls_agree_on_one_order(&*broker).await;
    another_number_of_partitions_is_refused(&*broker).await;
    drop(broker);
    for end in [End::Clean, End::Crash] {
        what_was_acknowledged_outlives_the_broker(stand, end).await;
        rejects_are_kept_once(stand, end).await;
    }
}

fn config(name: &str) -> TopicConfig {
    TopicConfig {
        name: name.to_owned(),
        partitions: PARTITIONS.unsigned_abs(),
        ..TopicConfig::default()
    }
}

async fn topic(broker: &dyn Broker, name: &str) -> Arc<dyn Topic> {
    broker.topic(&config(name)).await.expect("a topic is made")
}

/// A gate of one text field and no subject: a record goes to partition position % partitions.
fn gate(source: &str) -> Gate {
    let fields = IndexMap::from([(
        "text".to_owned(),
        FieldConfig {
            from: "text".into(),
            kind: FieldType::String,
            class: Class::NonPersonal,
            purpose: Some("tests".into()),
            treat: None,
        },
    )]);
    let purposes = IndexMap::from([(
        "tests".to_owned(),
        PurposeConfig {
            legal_basis: Some(LegalBasis::LegitimateInterests),
            retention: Some(Period(Duration::from_hours(24))),
            data_subjects: Some("nobody".into()),
            consent: None,
        },
    )]);
    let policy = Policy::compile(&PolicyParts {
        privacy: &PrivacyConfig::default(),
        purposes: &purposes,
        fields: &fields,
        event_time: None,
        max_record: ByteSize(64 << 20),
    });
    let keys = Keys::new(&Key::new([7; 32]));
    Gate::new(
        Arc::new(policy.expect("a small policy is right")),
        Arc::new(KeyedPseudonyms::new(&keys)),
        &keys,
        source.into(),
        PARTITIONS.unsigned_abs(),
    )
}

/// Cleared records of `source`, one for each position, each with its position and `padding`
/// letters as text, at `NOW_MS` + position.
fn cleared(
    source: &str,
    positions: impl IntoIterator<Item = u64>,
    padding: usize,
) -> Vec<Cleared<Outbound>> {
    let mut gate = gate(source);
    let raws = positions.into_iter().map(|position| {
        Raw::new(
            format!(r#"{{"text":"{position}{}"}}"#, "x".repeat(padding)).into(),
            position,
        )
    });
    raws.map(|raw| {
        let now_ms = NOW_MS + i64::try_from(raw.position).unwrap_or(0);
        let passage = gate.clear(&[raw], now_ms);
        assert!(passage.rejects.is_empty());
        passage.cleared
    })
    .collect()
}

/// Cleared records of `source` in one call, one for each position, each with its position and
/// `padding` letters as text. A record goes to partition position % 3.
///
/// # Panics
/// Never: the gate of these checks takes what they make.
#[must_use]
pub fn together(
    source: &str,
    positions: std::ops::Range<u64>,
    padding: usize,
) -> Cleared<Outbound> {
    let raws: Vec<_> = positions
        .map(|position| {
            Raw::new(
                format!(r#"{{"text":"{position}{}"}}"#, "x".repeat(padding)).into(),
                position,
            )
        })
        .collect();
    gate(source).clear(&raws, NOW_MS).cleared
}

/// Everything from `positions` to the ends as they are now; moves `positions` on.
async fn read(
    topic: &dyn Topic,
    positions: &mut Positions,
    bytes_max: usize,
) -> BTreeMap<i32, Vec<Message>> {
    let mut all: BTreeMap<i32, Vec<Message>> = BTreeMap::new();
    loop {
        let fetched = topic.fetch(positions, bytes_max, NO_WAIT).await;
        let fetched = fetched.expect("a fetch of what is there");
        if fetched.is_empty() {
            return all;
        }
        for f in fetched {
            assert!(f.next > positions.next(f.partition), "a fetch moves on");
            assert!(f.next <= f.end, "nobody reads past the end");
            positions.advance(f.partition, f.next);
            all.entry(f.partition).or_default().extend(f.messages);
        }
    }
}

fn text(value: Option<&Bytes>) -> String {
    let value = value.expect("a record has a value");
    std::str::from_utf8(value).expect("UTF-8").to_owned()
}

/// Positions in the source of all messages, by partition.
fn sources(messages: &BTreeMap<i32, Vec<Message>>, source: &str) -> BTreeMap<i32, Vec<u64>> {
    let of = |m: &Message| {
        let src = m.src.clone().expect("a record says where it came from");
        let (id, position) = falaj_record::Src::parse(&src).map(|(id, p)| (id.to_owned(), p))?;
        (id == source).then_some(position)
    };
    let positions = |m: &Vec<Message>| m.iter().filter_map(of).collect::<Vec<_>>();
    messages.iter().map(|(p, m)| (*p, positions(m))).collect()
}

/// What [`sources`] must give for these positions.
fn split(positions: impl IntoIterator<Item = u64>) -> BTreeMap<i32, Vec<u64>> {
    let mut split: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for position in positions {
        let partition = i32::try_from(position % u64::from(PARTITIONS.unsigned_abs()));
        split
            .entry(partition.expect("small"))
            .or_default()
            .push(position);
    }
    split
}

async fn topics_are_made_described_listed_and_deleted(broker: &dyn Broker) {
    let name = "conformance.admin";
    let missing = broker.describe(name).await;
    assert!(
        matches!(missing, Err(TopicError::Missing { .. })),
        "{missing:?}"
    );
    assert!(matches!(
        broker.delete(name).await,
        Err(TopicError::Missing { .. })
    ));
    assert!(matches!(
        broker.existing(name).await.err(),
        Some(TopicError::Missing { .. })
    ));
    let made = broker.create(&config(name)).await.expect("created");
    let again = broker.create(&config(name)).await;
    assert!(matches!(again, Err(TopicError::Exists { .. })), "{again:?}");
    assert_eq!((&*made.name, made.partitions.len()), (name, 3));
    assert_eq!(made.retention, Some(config(name).retention.0));
    assert_eq!(broker.describe(name).await.expect("described").id, made.id);
    assert!(
        broker
            .list()
            .await
            .expect("listed")
            .contains(&name.to_owned())
    );

    let old = topic(broker, name).await;
    assert_eq!(old.identity(), made.id);
    let existing = broker.existing(name).await.expect("it is there");
    assert_eq!(existing.identity(), made.id);
    old.publish(together("file-1", 0..9, 0))
        .await
        .expect("published");
    old.reject(&[at_source("file-1", 9)])
        .await
        .expect("rejected");
    broker.delete(name).await.expect("deleted");
    for gone in [name, &rejects_topic(name)] {
        assert!(
            !broker
                .list()
                .await
                .expect("listed")
                .contains(&gone.to_owned())
        );
    }
    let published = old.publish(together("file-1", 9..12, 0)).await;
    assert!(
        matches!(published, Err(TopicError::Deleted { .. })),
        "{published:?}"
    );
    let fetched = old.fetch(&Positions::default(), 1000, NO_WAIT).await;
    assert!(
        matches!(fetched, Err(TopicError::Deleted { .. })),
        "{fetched:?}"
    );

    let new = topic(broker, name).await;
    assert_ne!(new.identity(), made.id, "a topic made again is another one");
    assert!(
        new.offsets()
            .await
            .expect("offsets")
            .iter()
            .all(|o| o.end == 0)
    );
    assert!(new.highest("file-1").await.expect("highest").is_empty());
    assert_eq!(
        new.reject(&[at_source("file-1", 9)])
            .await
            .expect("rejected"),
        1
    );
}

async fn every_part_of_a_record_comes_back_in_order(broker: &dyn Broker) {
    let topic = topic(broker, "conformance.order").await;
    let sent = cleared("file-1", 0..20, 0);
    let outbounds: Vec<_> = sent.iter().map(|c| c.get().clone()).collect();
    for records in sent {
        topic.publish(records).await.expect("published");
    }
    topic
        .publish(together("file-1", 20..50, 10))
        .await
        .expect("published");
    let all = read(&*topic, &mut Positions::default(), 1 << 20).await;
    assert_eq!(sources(&all, "file-1"), split(0..50));
    for (partition, messages) in &all {
        let counted = messages.iter().map(|m| m.offset);
        assert!(
            counted.eq(0..i64::try_from(messages.len()).expect("few")),
            "partition {partition}"
        );
    }
    for outbound in outbounds {
        let sent = &outbound.messages[0];
        let found = all[&sent.partition]
            .iter()
            .find(|m| m.src.as_ref() == Some(&sent.src));
        let found = found.expect("every record is there");
        assert_eq!(found.timestamp_ms, sent.timestamp_ms);
        assert_eq!(found.key.as_ref(), Some(&sent.key));
        assert_eq!(text(found.value.as_ref()), text(Some(&sent.value)));
        assert_eq!(found.policy.as_ref(), Some(&outbound.policy));
    }
    let ends = topic.offsets().await.expect("offsets");
    let ends: Vec<_> = ends.iter().map(|o| (o.partition, o.start, o.end)).collect();
    assert_eq!(ends, [(0, 0, 17), (1, 0, 17), (2, 0, 16)]);
    // From the middle of a batch.
    let mut positions = Positions(BTreeMap::from([(0, 16), (1, 17), (2, 7)]));
    let rest = read(&*topic, &mut positions, 1 << 20).await;
    assert_eq!(rest[&0].len(), 1);
    assert_eq!((rest[&2].len(), rest[&2][0].offset), (9, 7));
    assert_eq!(positions.0, BTreeMap::from([(0, 17), (1, 17), (2, 16)]));
}

async fn publishing_nothing_changes_nothing(broker: &dyn Broker) {
    let topic = topic(broker, "conformance.nothing").await;
    topic
        .publish(together("file-1", 0..0, 0))
        .await
        .expect("published");
    assert_eq!(topic.reject(&[]).await.expect("rejected"), 0);
    assert!(
        topic
            .offsets()
            .await
            .expect("offsets")
            .iter()
            .all(|o| o.end == 0)
    );
    assert!(topic.rejects(0, 10).await.expect("listed").is_empty());
    let fetched = topic.fetch(&Positions::default(), 1000, NO_WAIT).await;
    assert!(fetched.expect("fetched").is_empty());
}

async fn large_records_and_large_calls_come_back_whole(broker: &dyn Broker) {
    let topic = topic(broker, "conformance.large").await;
    let large = 3_000_000;
    topic
        .publish(together("file-1", 0..6, large))
        .await
        .expect("published");
    topic
        .publish(together("file-1", 6..40_000, 60))
        .await
        .expect("published");
    for bytes_max in [1, 100_000, 50_000_000] {
        let all = read(&*topic, &mut Positions::default(), bytes_max).await;
        assert_eq!(
            sources(&all, "file-1"),
            split(0..40_000),
            "{bytes_max} bytes a fetch"
        );
        assert!(text(all[&2][1].value.as_ref()).len() > large);
    }
}

async fn small_fetches_give_every_partition_its_turn(broker: &dyn Broker) {
    let topic = topic(broker, "conformance.turns").await;
    for records in cleared("file-1", 0..60, 2000) {
        topic.publish(records).await.expect("published");
    }
    let mut positions = Positions::default();
    for round in 0..12 {
        let fetched = topic.fetch(&positions, 1, NO_WAIT).await.expect("fetched");
        for f in fetched {
            positions.advance(f.partition, f.next);
        }
        if round == 0 {
            // Over a wire, what is read ahead comes one partition after the other.
            tokio::time::sleep(READ_AHEAD).await;
        }
    }
    for partition in 0..PARTITIONS {
        assert!(
            positions.next(partition) > 0,
            "partition {partition} had no turn in 12"
        );
    }
}

async fn positions_outside_what_is_held_are_errors_with_numbers(broker: &dyn Broker) {
    let topic = topic(broker, "conformance.outside").await;
    topic
        .publish(together("file-1", 0..9, 0))
        .await
        .expect("published");
    let at = |partition, offset| Positions(BTreeMap::from([(partition, offset)]));
    let fetch = async |positions| topic.fetch(&positions, 1000, LONG).await;
    match fetch(at(1, 4)).await {
        Err(TopicError::BeyondEnd {
            partition: 1,
            wanted: 4,
            end: 3,
            ..
        }) => {}
        other => panic!("beyond the end: {other:?}"),
    }
    match fetch(at(PARTITIONS, 0)).await {
        Err(TopicError::NoPartition { partition, .. }) => assert_eq!(partition, PARTITIONS),
        other => panic!("a partition that is not: {other:?}"),
    }
}

async fn a_fetch_waits_for_records_and_no_longer_than_told(broker: &dyn Broker) {
    let topic = topic(broker, "conformance.waits").await;
    let waited = Duration::from_millis(50);
    let start = tokio::time::Instant::now();
    let fetched = topic.fetch(&Positions::default(), 1000, waited).await;
    assert!(fetched.expect("fetched").is_empty());
    assert!(start.elapsed() >= waited, "it waits as long as told");

    let mut positions = Positions::default();
    for round in 0..20 {
        let waiting = tokio::spawn({
            let (topic, positions) = (Arc::clone(&topic), positions.clone());
            async move { topic.fetch(&positions, 1000, LONG).await }
        });
        if round % 2 == 0 {
            // Half of the rounds publish while the fetch surely waits.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        topic
            .publish(together("file-1", round..round + 1, 0))
            .await
            .expect("published");
        let fetched = waiting.await.expect("no panic").expect("fetched");
        let messages: usize = fetched.iter().map(|f| f.messages.len()).sum();
        assert_eq!(messages, 1, "the fetch wakes with the record");
        for f in fetched {
            positions.advance(f.partition, f.next);
        }
    }
}

async fn overlapping_calls_agree_on_one_order(broker: &dyn Broker) {
    const EACH: u64 = 90;
    let topic = topic(broker, "conformance.overlap").await;
    let sources_of = ["file-1", "file-2", "file-3"];
    let mut tasks = Vec::new();
    for source in sources_of {
        let topic = Arc::clone(&topic);
        tasks.push(tokio::spawn(async move {
            // All calls of a source overlap, and are first polled in order.
            let calls = cleared(source, 0..EACH, 0).into_iter();
            let mut calls: Vec<_> = calls.map(|records| topic.publish(records)).collect();
            let all = std::future::poll_fn(|context| {
                calls.retain_mut(|call| match call.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => {
                        done.expect("published");
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                if calls.is_empty() {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            });
            all.await;
        }));
    }
    let mut readers = Vec::new();
    for bytes_max in [300, 100_000] {
        let topic = Arc::clone(&topic);
        readers.push(tokio::spawn(async move {
            let mut positions = Positions::default();
            let mut all: BTreeMap<i32, Vec<Message>> = BTreeMap::new();
            while all.values().map(Vec::len).sum::<usize>() < 270 {
                let fetched = topic
                    .fetch(&positions, bytes_max, LONG)
                    .await
                    .expect("fetched");
                assert!(!fetched.is_empty(), "all records come in time");
                for f in fetched {
                    positions.advance(f.partition, f.next);
                    all.entry(f.partition).or_default().extend(f.messages);
                }
            }
            all
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let mut seen = Vec::new();
    for reader in readers {
        let all = reader.await.expect("no panic");
        for source in sources_of {
            assert_eq!(sources(&all, source), split(0..EACH), "{source}");
        }
        let order = all.values().flatten().map(|m| m.src.clone());
        seen.push(order.collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1], "all readers see one order");
}

async fn another_number_of_partitions_is_refused(broker: &dyn Broker) {
    let name = "conformance.partitions";
    topic(broker, name).await;
    let more = TopicConfig {
        partitions: 5,
        ..config(name)
    };
    match broker.topic(&more).await.err() {
        Some(TopicError::Partitions {
            has: PARTITIONS,
            wants: 5,
            ..
        }) => {}
        other => panic!("5 partitions instead of 3: {other:?}"),
    }
}

async fn what_was_acknowledged_outlives_the_broker(stand: &mut dyn Stand, end: End) {
    let name = format!("conformance.outlives.{end:?}");
    let held = topic(&*stand.broker(), &name).await;
    let identity = held.identity();
    held.publish(together("file-1", 10..40, 0))
        .await
        .expect("published");
    for records in cleared("file-2", [3, 7, 8], 0) {
        held.publish(records).await.expect("published");
    }
    let before = read(&*held, &mut Positions::default(), 1 << 20).await;
    drop(held);
    stand.restart(end).await;

    let held = topic(&*stand.broker(), &name).await;
    assert_eq!(held.identity(), identity);
    let mut positions = Positions::default();
    let after = read(&*held, &mut positions, 1 << 20).await;
    for source in ["file-1", "file-2"] {
        assert_eq!(sources(&after, source), sources(&before, source), "{end:?}");
    }
    let highest = async |source| held.highest(source).await.expect("highest");
    let count = async |from| held.count(&from).await.expect("counted");
    assert_eq!(count(Positions::default()).await, 33);
    assert_eq!(count(Positions([(0, 3), (1, 12)].into())).await, 19);
    assert_eq!(
        highest("file-1").await,
        BTreeMap::from([(0, 39), (1, 37), (2, 38)])
    );
    assert_eq!(
        highest("file-2").await,
        BTreeMap::from([(0, 3), (1, 7), (2, 8)])
    );
    assert!(highest("file").await.is_empty());
    // Offsets go on where they were.
    held.publish(together("file-1", 40..43, 0))
        .await
        .expect("published");
    let new = read(&*held, &mut positions, 1 << 20).await;
    assert_eq!(sources(&new, "file-1"), split(40..43));
    assert_eq!(
        highest("file-1").await,
        BTreeMap::from([(0, 42), (1, 40), (2, 41)])
    );
}

fn at_source(source: &str, position: u64) -> Reject {
    Reject {
        at: At::Source {
            source: source.into(),
            position,
        },
        reason: Reason::WrongType,
        path: Some("dob.age".into()),
        length: 100 + position,
        time_ms: NOW_MS,
    }
}

fn at_topic(partition: i32, offset: i64, reason: Reason) -> Reject {
    Reject {
        at: At::Topic { partition, offset },
        reason,
        path: None,
        length: 9,
        time_ms: NOW_MS,
    }
}

async fn rejects_are_kept_once(stand: &mut dyn Stand, end: End) {
    let name = format!("conformance.rejects.{end:?}");
    let held = topic(&*stand.broker(), &name).await;
    let first = [
        at_source("file-1", 3),
        at_source("file-1", 5),
        at_source("file-2", 4),
        at_topic(0, 7, Reason::NotCleared),
        at_topic(1, 2, Reason::NotCleared),
    ];
    assert_eq!(held.reject(&first).await.expect("rejected"), 5);
    let second = [
        at_source("file-1", 5),
        at_source("file-1", 6),
        at_source("file-1", 6),
        at_topic(0, 7, Reason::NotCleared),
        // Another stage finds these, at its own pace.
        at_topic(0, 6, Reason::Late),
    ];
    assert_eq!(
        held.reject(&second).await.expect("rejected"),
        2,
        "repeats are skipped"
    );
    let kept: Vec<_> = first
        .into_iter()
        .chain([second[1].clone(), second[4].clone()])
        .collect();
    drop(held);
    stand.restart(end).await;

    let held = topic(&*stand.broker(), &name).await;
    assert_eq!(
        held.reject(&second).await.expect("rejected"),
        0,
        "after a restart too"
    );
    let listed = held.rejects(0, 100).await.expect("listed");
    let numbered: Vec<_> = (0..).zip(kept.iter().cloned()).collect();
    assert_eq!(listed, numbered);
    assert_eq!(held.rejects(5, 1).await.expect("listed"), numbered[5..6]);
    assert_eq!(held.rejects(-9, 2).await.expect("listed"), numbered[..2]);
    assert!(held.rejects(7, 100).await.expect("listed").is_empty());
    // The records themselves are not touched.
    assert!(
        held.offsets()
            .await
            .expect("offsets")
            .iter()
            .all(|o| o.end == 0)
    );
}

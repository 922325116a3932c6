use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::conformance::{counts, counts_view, people, people_view};
use crate::{Inspection, Prepared, Written};

/// A store in memory whose faults can be switched.
#[derive(Default)]
struct Shelf {
    /// Version and count by view and key.
    rows: Mutex<BTreeMap<(String, String), (i64, i64)>>,
    fault: Mutex<Option<SinkError>>,
    /// Rows of each write.
    writes: Mutex<Vec<usize>>,
    erased: Mutex<Vec<String>>,
    /// While it is set, a write needs a permit to go on.
    gate: Mutex<Option<Arc<Semaphore>>>,
}

struct ShelfSink(Arc<Shelf>);

impl Shelf {
    fn sink(self: &Arc<Self>) -> Box<dyn Sink> {
        Box::new(ShelfSink(Arc::clone(self)))
    }

    fn fail(&self, fault: Option<SinkError>) {
        *self.fault.lock() = fault;
    }

    fn check(&self) -> Result<(), SinkError> {
        self.fault.lock().clone().map_or(Ok(()), Err)
    }

    fn counts(&self) -> BTreeMap<String, i64> {
        let rows = self.rows.lock();
        rows.iter()
            .map(|((_, key), (_, users))| (key.clone(), *users))
            .collect()
    }
}

#[async_trait]
impl Sink for ShelfSink {
    fn kind(&self) -> &'static str {
        "shelf"
    }

    async fn prepare(&mut self, _: &[Arc<ViewInfo>]) -> Result<Prepared, SinkError> {
        self.0.check().map(|()| Prepared::default())
    }

    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        let gate = self.0.gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("the gate stays").forget();
        }
        self.0.check()?;
        self.0.writes.lock().push(rows(updates));
        for update in updates {
            let users = update.rows.column(1).as_primitive_opt::<Int64Type>();
            for row in 0..update.keys.len() {
                let key = (update.view.name.clone(), update.keys.value(row).to_owned());
                let new = (update.version, users.map_or(0, |users| users.value(row)));
                let mut rows = self.0.rows.lock();
                let old = rows.entry(key).or_insert(new);
                *old = if new.0 > old.0 { new } else { *old };
            }
        }
        Ok(Written::default())
    }

    async fn drop_view(&mut self, view: &str) -> Result<(), SinkError> {
        self.0.rows.lock().retain(|(of, _), _| of != view);
        Ok(())
    }

    async fn erase(&mut self, pid: &str) -> Result<u64, SinkError> {
        self.0.check()?;
        self.0.erased.lock().push(pid.to_owned());
        let mut rows = self.0.rows.lock();
        let before = rows.len();
        rows.retain(|(_, key), _| key != pid);
        Ok((before - rows.len()) as u64)
    }

    async fn inspect(&mut self, _: &[Arc<ViewInfo>]) -> Result<Inspection, SinkError> {
        self.0.check().map(|()| Inspection::default())
    }

    async fn close(self: Box<Self>) -> Result<(), SinkError> {
        Ok(())
    }
}

fn full() -> SinkError {
    SinkError::Full {
        store: "shelf".into(),
    }
}

fn outlet(shelf: &Arc<Shelf>) -> Outlet {
    let limits = Limits {
        person_rows_max: 4,
        write_rows_max: 1000,
        ..Limits::default()
    };
    Outlet::new(
        "local",
        shelf.sink(),
        vec![counts_view(), people_view()],
        limits,
    )
}

/// Lets every task run until all of them wait.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_offered_arrives_and_is_acknowledged() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    let outlet = outlet(&shelf);
    assert_eq!(outlet.status().state, OutletState::Starting);
    outlet
        .offer(vec![counts(&view, 1, [(Some("a"), 1), (Some("b"), 2)])])
        .await
        .expect("open");
    outlet.drained().await.expect("open");
    assert_eq!(
        shelf.counts(),
        BTreeMap::from([("[\"a\"]".into(), 1), ("[\"b\"]".into(), 2)])
    );
    let status = outlet.status();
    assert_eq!((status.state, status.pending_rows), (OutletState::Ok, 0));
    assert_eq!(
        (status.written_rows, status.writes, status.failures),
        (2, 1, 0)
    );
    assert!(outlet.pending().updates().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failing_sink_keeps_the_newest_of_each_group_and_says_why() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    let outlet = outlet(&shelf);
    settle().await;
    shelf.fail(Some(full()));
    for version in 1..=500 {
        let rows = [(Some("a"), version), (Some("b"), -version)];
        outlet
            .offer(vec![counts(&view, version, rows)])
            .await
            .expect("it never waits");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = outlet.status();
    assert_eq!(status.state, OutletState::Failing);
    assert_eq!(
        status.error,
        Some("no space is left for the store `shelf`".into())
    );
    assert!(status.hint.is_some() && status.retry_at_ms.is_some());
    assert!(status.attempts > 3 && u64::from(status.attempts) == status.failures);
    assert_eq!(outlet.pending().rows(), 2);
    shelf.fail(None);
    outlet.drained().await.expect("open");
    assert_eq!(*shelf.writes.lock(), [2], "one row a group, in one write");
    assert_eq!(
        shelf.counts(),
        BTreeMap::from([("[\"a\"]".into(), 500), ("[\"b\"]".into(), -500)])
    );
    let status = outlet.status();
    assert_eq!(
        (status.state, status.attempts, status.error),
        (OutletState::Ok, 0, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_may_come_up_after_the_pipeline() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    shelf.fail(Some(full()));
    let outlet = outlet(&shelf);
    outlet
        .offer(vec![counts(&view, 1, [(Some("a"), 1)])])
        .await
        .expect("open");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(outlet.status().state, OutletState::Failing);
    shelf.fail(None);
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn rows_of_people_push_back_and_groups_do_not() {
    let (shelf, view, groups) = (Arc::<Shelf>::default(), people_view(), counts_view());
    let outlet = outlet(&shelf);
    settle().await;
    shelf.fail(Some(full()));
    outlet
        .offer(vec![people(&view, 1, &["p1", "p2", "p3"])])
        .await
        .expect("open");
    outlet
        .offer(vec![people(&view, 2, &["p4", "p5"])])
        .await
        .expect("below the bound");
    let both = vec![
        counts(&groups, 3, [(Some("a"), 1)]),
        people(&view, 3, &["p6"]),
    ];
    let wait = Duration::from_mins(1);
    let offered = tokio::time::timeout(wait, outlet.offer(both.clone())).await;
    assert!(offered.is_err(), "beyond the bound it waits");
    assert_eq!(
        outlet.pending().rows(),
        5,
        "dropped while it waits, it added nothing"
    );
    outlet
        .offer(both[..1].to_vec())
        .await
        .expect("groups never wait");
    shelf.fail(None);
    outlet.offer(both[1..].to_vec()).await.expect("room again");
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_large_backlog_goes_out_in_bounded_writes() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    let outlet = outlet(&shelf);
    let groups: Vec<_> = (0..2500).map(|n| n.to_string()).collect();
    let rows = groups.iter().map(|group| (Some(group.as_str()), 1));
    outlet
        .offer(vec![counts(&view, 1, rows)])
        .await
        .expect("open");
    outlet.drained().await.expect("open");
    assert_eq!(*shelf.writes.lock(), [1000, 1000, 500]);
    assert_eq!(shelf.counts().len(), 2500);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_written_is_still_pending() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    let gate = Arc::new(Semaphore::new(0));
    *shelf.gate.lock() = Some(Arc::clone(&gate));
    let outlet = outlet(&shelf);
    outlet
        .offer(vec![counts(&view, 1, [(Some("a"), 1)])])
        .await
        .expect("open");
    settle().await;
    outlet
        .offer(vec![counts(&view, 2, [(Some("a"), 2), (Some("b"), 2)])])
        .await
        .expect("open");
    let pending = outlet.pending();
    let versions: Vec<_> = pending
        .updates()
        .iter()
        .map(|u| (u.version, u.keys.len()))
        .collect();
    assert_eq!(versions, [(1, 1), (2, 2)]);
    assert_eq!(outlet.status().pending_rows, 3);
    gate.add_permits(1);
    settle().await;
    assert_eq!(outlet.pending().rows(), 2, "the second write hangs");
    outlet.close().await;
    assert_eq!(outlet.pending().rows(), 2, "closing does not lose it");
    assert_eq!(
        outlet.drained().await,
        Err(SinkError::Closed {
            sink: "local".into()
        })
    );
    *shelf.gate.lock() = None;
    let next = self::outlet(&shelf);
    next.restore(outlet.pending());
    next.drained().await.expect("open");
    assert_eq!(
        shelf.counts(),
        BTreeMap::from([("[\"a\"]".into(), 2), ("[\"b\"]".into(), 2)])
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_outlet_takes_nothing_and_an_old_version_is_refused() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    let outlet = outlet(&shelf);
    let at = |version| vec![counts(&view, version, [(Some("a"), version)])];
    outlet.offer(at(5)).await.expect("open");
    assert_eq!(
        outlet.offer(at(4)).await,
        Err(SinkError::Order {
            view: "counts".into()
        })
    );
    outlet
        .offer(at(5))
        .await
        .expect("parts of one version may follow each other");
    outlet.drained().await.expect("open");
    outlet.close().await;
    outlet.close().await;
    let closed = || SinkError::Closed {
        sink: "local".into(),
    };
    assert_eq!(outlet.status().state, OutletState::Closed);
    assert_eq!(outlet.offer(at(6)).await, Err(closed()));
    assert_eq!(outlet.room().await, Err(closed()));
    assert_eq!(outlet.erase("p1").await, Err(closed()));
    assert_eq!(outlet.drained().await, Ok(()), "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn views_that_the_sink_does_not_take_are_dropped() {
    let shelf = Arc::<Shelf>::default();
    let outlet = Outlet::new(
        "local",
        shelf.sink(),
        vec![counts_view()],
        Limits::default(),
    );
    outlet
        .offer(vec![people(&people_view(), 1, &["p1"])])
        .await
        .expect("open");
    outlet.drained().await.expect("open");
    assert_eq!(shelf.writes.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_erased_person_is_in_neither_queue_nor_store() {
    let (shelf, view) = (Arc::<Shelf>::default(), people_view());
    let outlet = outlet(&shelf);
    outlet
        .offer(vec![people(&view, 1, &["p1", "p2"])])
        .await
        .expect("open");
    outlet.drained().await.expect("open");
    shelf.fail(Some(full()));
    outlet
        .offer(vec![people(&view, 2, &["p1", "p3"])])
        .await
        .expect("open");
    settle().await;
    assert_eq!(outlet.erase("p1").await, Err(full()));
    shelf.fail(None);
    assert_eq!(outlet.erase("p1").await, Ok(1));
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().into_keys().collect::<Vec<_>>(), ["p2", "p3"]);
    assert_eq!(*shelf.erased.lock(), ["p1"]);
}

/// A checkpoint holds the input's position and what is pending; after a kill the input is read
/// again from there, under new versions. The store must end as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn kills_and_faults_at_any_moment_lose_nothing() {
    let views = [counts_view(), people_view()];
    let (groups, persons) = (&views[0], &views[1]);
    for seed in 1..=20_u64 {
        let mut state = seed;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let shelf = Arc::<Shelf>::default();
        let mut outlet = self::outlet(&shelf);
        let mut expected = BTreeMap::new();
        let (mut at, mut version) = (0_i64, 0);
        let mut checkpoint = (at, Pending::default().to_bytes().expect("nothing in it"));
        while at < 300 {
            match random(12) {
                0 => shelf.fail(Some(full())),
                1 | 2 => shelf.fail(None),
                3 => tokio::time::sleep(Duration::from_millis(random(40_000))).await,
                4 => {
                    checkpoint = (at, outlet.pending().to_bytes().expect("columns fit"));
                }
                5 if random(4) == 0 => {
                    outlet = self::outlet(&shelf);
                    let pending = Pending::from_bytes(&checkpoint.1, &views);
                    outlet.restore(pending.expect("what was saved can be read"));
                    at = checkpoint.0;
                }
                _ => {
                    at += 1;
                    version += 1;
                    let (group, pid) = (format!("g{}", at % 17), format!("p{at}"));
                    let update = counts(groups, version, [(Some(group.as_str()), at)]);
                    expected.insert(format!("[\"{group}\"]"), at);
                    outlet.push(vec![update]).expect("open");
                    if at % 10 == 0 {
                        expected.insert(pid.clone(), 0);
                        outlet
                            .push(vec![people(persons, version, &[&pid])])
                            .expect("open");
                    }
                }
            }
            settle().await;
        }
        shelf.fail(None);
        outlet.drained().await.expect("open");
        assert_eq!(shelf.counts(), expected, "seed {seed}");
    }
}

#[test]
fn back_off_doubles_and_stays_within_its_bounds() {
    let limits = Limits::default();
    for (attempts, whole_ms) in [
        (0, 250),
        (1, 500),
        (3, 2000),
        (7, 30_000),
        (u32::MAX, 30_000),
    ] {
        let wait = limits.backoff(attempts);
        let whole = Duration::from_millis(whole_ms);
        assert!(whole / 2 <= wait && wait <= whole, "{attempts}: {wait:?}");
    }
}

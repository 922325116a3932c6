use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use falaj_record::Reason;
use tokio::sync::Semaphore;

use super::*;
use crate::conformance::{counts, counts_view, people, people_view};
use crate::{Inspection, Prepared, Refused};

/// A store in memory whose faults can be switched.
#[derive(Default)]
struct Shelf {
    /// Version and count by view and key.
    rows: Mutex<BTreeMap<(String, String), (i64, i64)>>,
    fault: Mutex<Option<SinkError>>,
    /// Rows of each write.
    writes: Mutex<Vec<usize>>,
    erased: Mutex<Vec<String>>,
    /// Keys of rows that it refuses.
    refuse: Mutex<Vec<String>>,
    /// Views that it says are empty when it is prepared.
    empty: Mutex<Vec<String>>,
    /// Names of its tables' fillings, by view.
    fillings: Mutex<BTreeMap<String, String>>,
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
        let prepared = Prepared {
            empty: self.0.empty.lock().clone(),
            fillings: self.0.fillings.lock().clone(),
        };
        self.0.check().map(|()| prepared)
    }

    async fn write(&mut self, updates: &[ViewUpdate]) -> Result<Written, SinkError> {
        let gate = self.0.gate.lock().clone();
        if let Some(gate) = gate {
            gate.acquire().await.expect("the gate stays").forget();
        }
        self.0.check()?;
        self.0.writes.lock().push(rows(updates));
        let mut written = Written::default();
        for update in updates {
            let users = update.rows.column(1).as_primitive_opt::<Int64Type>();
            for row in 0..update.keys.len() {
                if self
                    .0
                    .refuse
                    .lock()
                    .iter()
                    .any(|key| key == update.keys.value(row))
                {
                    let reason = Reason::RefusedByStore;
                    written.refused.push(Refused::of(update, row, reason, None));
                    continue;
                }
                let key = (update.view.name.clone(), update.keys.value(row).to_owned());
                let new = (update.version, users.map_or(0, |users| users.value(row)));
                let mut rows = self.0.rows.lock();
                let old = rows.entry(key).or_insert(new);
                *old = if new.0 > old.0 { new } else { *old };
            }
        }
        Ok(written)
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

    async fn ping(&mut self) -> Result<(), SinkError> {
        self.0.check()
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
    outlet_at(shelf, Place::default())
}

/// What an earlier run left that had everything acknowledged.
fn nothing() -> Pending {
    let complete = [counts_view(), people_view()].map(|view| (view.name.clone(), String::new()));
    Pending::new(Vec::new(), None, complete.into())
}

fn outlet_at(shelf: &Arc<Shelf>, offered: Place) -> Outlet {
    outlet_after(shelf, offered, nothing())
}

fn outlet_after(shelf: &Arc<Shelf>, offered: Place, pending: Pending) -> Outlet {
    let limits = Limits {
        person_rows_max: 4,
        person_bytes_max: 1 << 10,
        write_rows_max: 1000,
        ..Limits::default()
    };
    Outlet::new(
        "local",
        shelf.sink(),
        vec![counts_view(), people_view()],
        None,
        offered,
        pending,
        limits,
    )
}

/// A place before the record `next` of a topic with one partition.
fn place(next: i64) -> Place {
    Place {
        positions: Positions([(0, next)].into()),
        seen: next.to_le_bytes().as_slice().into(),
    }
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
        .offer(
            vec![counts(&view, 1, [(Some("a"), 1), (Some("b"), 2)])],
            place(1),
        )
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
            .offer(vec![counts(&view, version, rows)], place(1))
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
        .offer(vec![counts(&view, 1, [(Some("a"), 1)])], place(1))
        .expect("open");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(outlet.status().state, OutletState::Failing);
    shelf.fail(None);
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_while_there_is_nothing_to_write_is_missed_all_the_same() {
    let shelf = Arc::<Shelf>::default();
    let outlet = outlet(&shelf);
    settle().await;
    assert_eq!(outlet.status().state, OutletState::Ok);
    shelf.fail(Some(full()));
    tokio::time::sleep(PING_AFTER).await;
    settle().await;
    let status = outlet.status();
    assert_eq!(status.state, OutletState::Failing);
    assert!(status.error.is_some() && status.retry_at_ms.is_some());
    shelf.fail(None);
    tokio::time::sleep(Limits::default().retry_longest).await;
    settle().await;
    let status = outlet.status();
    assert_eq!((status.state, status.error), (OutletState::Ok, None));
}

#[tokio::test(start_paused = true)]
async fn rows_of_people_beyond_the_bound_are_read_again_and_groups_are_kept() {
    let (shelf, view, groups) = (Arc::<Shelf>::default(), people_view(), counts_view());
    let outlet = outlet(&shelf);
    settle().await;
    shelf.fail(Some(full()));
    let offer = |updates, to| outlet.offer(updates, place(to)).expect("it never waits");
    offer(vec![people(&view, 1, &["p1", "p2", "p3"])], 3);
    assert_eq!(outlet.behind(), None);
    offer(
        vec![
            counts(&groups, 2, [(Some("a"), 1)]),
            people(&view, 2, &["p4", "p5"]),
        ],
        5,
    );
    let to = place(5).positions;
    let from = place(3);
    assert_eq!(outlet.behind(), Some(Behind { from, to }));
    offer(vec![people(&view, 3, &["p6"])], 6);
    offer(vec![counts(&groups, 4, [(Some("a"), 2)])], 7);
    assert_eq!(outlet.pending().rows(), 4, "three people and one group");
    let no_room = tokio::time::timeout(Duration::from_mins(1), outlet.wants_more()).await;
    assert!(no_room.is_err(), "while there is no room nothing is read");
    assert!(outlet.status().behind);

    shelf.fail(None);
    let behind = outlet.wants_more().await.expect("open");
    assert_eq!((behind.from, behind.to), (place(3), place(7).positions));
    // Meanwhile one more comes, with a version from before what is read again.
    offer(vec![people(&view, 5, &["p7"])], 8);
    outlet
        .refill(
            &place(3),
            vec![people(&view, 6, &["p4", "p5", "p6"])],
            place(7),
        )
        .expect("open");
    let behind = outlet.wants_more().await.expect("open");
    assert_eq!((behind.from, behind.to), (place(7), place(8).positions));
    outlet
        .refill(&place(7), vec![people(&view, 6, &["p7"])], place(8))
        .expect("open");
    assert_eq!(outlet.behind(), None);
    // Taken from the clock before the refill above, and behind it in the topic.
    offer(vec![people(&view, 5, &["p7", "p8"])], 10);
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().len(), 9);
    let version = |key: &str| shelf.rows.lock()[&("people".to_owned(), key.to_owned())].0;
    assert!(version("p7") > 7, "the newer record has the newer version");
    assert_eq!(version("p8"), version("p7"));
}

/// Few rows may be large.
#[tokio::test(start_paused = true)]
async fn large_rows_of_people_are_bounded_in_bytes() {
    let (shelf, view) = (Arc::<Shelf>::default(), people_view());
    shelf.fail(Some(full()));
    let outlet = outlet(&shelf);
    settle().await;
    let long = "p".repeat(300);
    let offer = |pid: &str, to| {
        let updates = vec![people(&view, to, &[pid])];
        outlet.offer(updates, place(to)).expect("it never waits");
    };
    offer(&long, 1);
    assert_eq!(outlet.behind(), None);
    offer(&long.replace('p', "q"), 2);
    let behind = outlet.behind().expect("two are too large together");
    assert_eq!(behind.from, place(1));
    shelf.fail(None);
    let behind = outlet.wants_more().await.expect("open");
    let rows = vec![people(&view, 3, &[&long.replace('p', "q")])];
    outlet.refill(&behind.from, rows, place(2)).expect("open");
    outlet.drained().await.expect("open");
    // Room again, as none of them is held any more.
    offer("p3", 3);
    assert_eq!(outlet.behind(), None);
    outlet.drained().await.expect("open");
}

/// The topic is read from far on while a table turns out to be empty: that is what must be done next,
/// not what the reader was about.
#[tokio::test(start_paused = true)]
async fn what_is_to_be_read_from_the_start_stays_so_whatever_is_being_read() {
    let (shelf, view) = (Arc::<Shelf>::default(), people_view());
    let outlet = outlet_at(&shelf, place(12));
    settle().await;
    outlet.read_again(place(9));
    let Behind { from, .. } = outlet.wants_more().await.expect("open");
    outlet.read_again(place(0));
    outlet
        .refill(&from, vec![people(&view, 1, &["p10"])], place(12))
        .expect("open");
    let behind = outlet.behind().expect("nothing of it was read");
    assert_eq!(behind.from, place(0));
    outlet
        .refill(
            &behind.from,
            vec![people(&view, 2, &["p1", "p10"])],
            place(12),
        )
        .expect("open");
    outlet.drained().await.expect("open");
    assert_eq!(
        shelf.counts().into_keys().collect::<Vec<_>>(),
        ["p1", "p10"]
    );
}

/// A slow store gets fewer rows at once, so that its progress shows; a fast one as many as it may.
#[tokio::test(start_paused = true)]
async fn a_write_has_as_many_rows_as_the_store_takes_in_good_time() {
    let shelf = Arc::<Shelf>::default();
    let limits = Limits::default();
    let outlet = outlet(&shelf);
    let mut state = outlet.shared.state.lock();
    state.write_rows = WRITE_ROWS_FIRST;
    for _ in 0..5 {
        let rows = state.write_rows;
        state.pace(rows, Duration::from_millis(10), &limits);
    }
    assert_eq!(state.write_rows, limits.write_rows_max);
    state.pace(7, Duration::from_millis(10), &limits);
    assert_eq!(
        state.write_rows, limits.write_rows_max,
        "a small one tells nothing"
    );
    for _ in 0..20 {
        let rows = state.write_rows;
        state.pace(rows, Duration::from_mins(1), &limits);
    }
    assert_eq!(state.write_rows, WRITE_ROWS_LEAST);
}

#[tokio::test(start_paused = true)]
async fn a_sink_without_row_views_is_never_behind() {
    let shelf = Arc::<Shelf>::default();
    let views = vec![counts_view()];
    let limits = Limits::default();
    let (offered, pending) = (Place::default(), nothing());
    let outlet = Outlet::new("local", shelf.sink(), views, None, offered, pending, limits);
    outlet.read_again(place(0));
    outlet
        .offer(vec![people(&people_view(), 1, &["p1"])], place(9))
        .expect("open");
    assert_eq!(outlet.behind(), None);
    outlet.drained().await.expect("open");
}

#[tokio::test(start_paused = true)]
async fn refused_rows_are_told_once_each_with_a_growing_number() {
    let (shelf, view) = (Arc::<Shelf>::default(), people_view());
    shelf.refuse.lock().push("p2".into());
    let outlet = outlet(&shelf);
    for version in 7..=8 {
        outlet
            .offer(vec![people(&view, version, &["p1", "p2"])], place(version))
            .expect("open");
        outlet.drained().await.expect("open");
    }
    let refused = outlet.take_refused();
    let at = |number| At::Sink {
        sink: "local".into(),
        view: "people".into(),
        number,
    };
    let places: Vec<_> = refused.iter().map(|reject| reject.at.clone()).collect();
    assert_eq!(places, [at(7), at(8)]);
    assert!(outlet.take_refused().is_empty());
    let status = outlet.status();
    assert_eq!((status.written_rows, status.refused_rows), (2, 2));
    assert_eq!(status.state, OutletState::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_its_tables_is_owed_their_rows() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    shelf.empty.lock().push("counts".into());
    let outlet = outlet(&shelf);
    let offer = |version| {
        let update = counts(&view, version, [(Some("a"), version)]);
        outlet.offer(vec![update], place(version)).expect("open");
    };
    offer(1);
    settle().await;
    assert_eq!(outlet.status().pending_rows, 0);
    let owing = tokio::time::timeout(Duration::from_mins(1), outlet.drained()).await;
    assert!(owing.is_err(), "it owes rows");
    assert_eq!(outlet.take_owed(), BTreeSet::from(["counts".to_owned()]));
    assert_eq!(outlet.take_owed(), BTreeSet::new());
    outlet.drained().await.expect("open");
    shelf.fail(Some(full()));
    offer(2);
    tokio::time::sleep(Duration::from_secs(3)).await;
    shelf.fail(None);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(outlet.take_owed(), BTreeSet::from(["counts".to_owned()]));
    outlet
        .repay(vec![counts(&view, 3, [(Some("a"), 2), (Some("b"), 1)])])
        .expect("open");
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().len(), 2);
}

/// A filling that was interrupted by a kill, a store that was another one for a while, a sink that
/// was left out: the checkpoint says which filling has everything.
#[tokio::test(start_paused = true)]
async fn a_table_with_another_filling_than_the_complete_one_is_owed_everything() {
    let shelf = Arc::<Shelf>::default();
    let fill = |view: &str, filling: &str| {
        shelf.fillings.lock().insert(view.into(), filling.into());
    };
    let both = || BTreeSet::from(["counts".to_owned(), "people".to_owned()]);
    fill("counts", "c1");
    fill("people", "p1");
    let first = outlet_after(&shelf, Place::default(), Pending::default());
    settle().await;
    let killed_before = first.pending();
    assert_eq!(first.take_owed(), both(), "nobody said what it was given");
    let killed_later = first.pending();
    let next = outlet_after(&shelf, Place::default(), killed_before);
    settle().await;
    assert_eq!(next.take_owed(), both(), "nothing of it was repaid");
    let next = outlet_after(&shelf, Place::default(), killed_later);
    settle().await;
    assert_eq!(next.take_owed(), BTreeSet::new());
    let complete = next.pending();
    fill("counts", "c2");
    let next = outlet_after(&shelf, Place::default(), complete);
    assert_eq!(
        next.take_owed(),
        BTreeSet::new(),
        "the store was not seen yet"
    );
    settle().await;
    let owed = next.take_owed();
    assert_eq!(owed, BTreeSet::from(["counts".to_owned()]));
    next.owe(owed);
    let next = outlet_after(&shelf, Place::default(), next.pending());
    settle().await;
    assert_eq!(next.take_owed(), BTreeSet::from(["counts".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_large_backlog_goes_out_in_bounded_writes() {
    let (shelf, view) = (Arc::<Shelf>::default(), counts_view());
    let outlet = outlet(&shelf);
    let groups: Vec<_> = (0..2500).map(|n| n.to_string()).collect();
    let rows = groups.iter().map(|group| (Some(group.as_str()), 1));
    outlet
        .offer(vec![counts(&view, 1, rows)], place(1))
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
        .offer(vec![counts(&view, 1, [(Some("a"), 1)])], place(1))
        .expect("open");
    settle().await;
    outlet
        .offer(
            vec![counts(&view, 2, [(Some("a"), 2), (Some("b"), 2)])],
            place(1),
        )
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
    let next = outlet_after(&shelf, Place::default(), outlet.pending());
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
    outlet.offer(at(5), place(1)).expect("open");
    assert_eq!(
        outlet.offer(at(4), place(2)),
        Err(SinkError::Order {
            view: "counts".into()
        })
    );
    outlet
        .offer(at(5), place(2))
        .expect("parts of one version may follow each other");
    outlet.drained().await.expect("open");
    outlet.close().await;
    outlet.close().await;
    let closed = || SinkError::Closed {
        sink: "local".into(),
    };
    assert_eq!(outlet.status().state, OutletState::Closed);
    assert_eq!(outlet.offer(at(6), place(3)), Err(closed()));
    assert_eq!(outlet.wants_more().await, Err(closed()));
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
        None,
        Place::default(),
        nothing(),
        Limits::default(),
    );
    outlet
        .offer(vec![people(&people_view(), 1, &["p1"])], place(1))
        .expect("open");
    outlet.drained().await.expect("open");
    assert_eq!(shelf.writes.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_erased_person_is_in_neither_queue_nor_store() {
    let (shelf, view) = (Arc::<Shelf>::default(), people_view());
    let outlet = outlet(&shelf);
    outlet
        .offer(vec![people(&view, 1, &["p1", "p2"])], place(1))
        .expect("open");
    outlet.drained().await.expect("open");
    shelf.fail(Some(full()));
    outlet
        .offer(vec![people(&view, 2, &["p1", "p3"])], place(1))
        .expect("open");
    settle().await;
    assert_eq!(outlet.erase("p1").await, Err(full()));
    shelf.fail(None);
    assert_eq!(outlet.erase("p1").await, Ok(1));
    outlet.drained().await.expect("open");
    assert_eq!(shelf.counts().into_keys().collect::<Vec<_>>(), ["p2", "p3"]);
    assert_eq!(*shelf.erased.lock(), ["p1"]);
}

/// The person of the record before the place `at`: every fourth has one.
fn person(at: i64) -> Option<String> {
    (at % 4 == 0).then(|| format!("p{at}"))
}

/// What reads a topic again does for an outlet that has room, a few records further.
async fn read_on(outlet: &Outlet, persons: &Arc<ViewInfo>, version: &mut i64, records: i64) {
    let wanted = tokio::time::timeout(Duration::from_millis(1), outlet.wants_more()).await;
    let Ok(Ok(Behind { from, to })) = wanted else {
        return;
    };
    let first = from.positions.next(0);
    let last = to.next(0).min(first + records);
    let pids: Vec<_> = (first + 1..=last).filter_map(person).collect();
    let pids: Vec<_> = pids.iter().map(String::as_str).collect();
    *version += 1;
    outlet
        .refill(&from, vec![people(persons, *version, &pids)], place(last))
        .expect("open");
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
        let mut checkpoint = (at, nothing().to_bytes().expect("nothing in it"));
        while at < 300 {
            match random(14) {
                0 => shelf.fail(Some(full())),
                1 | 2 => shelf.fail(None),
                3 => tokio::time::sleep(Duration::from_millis(random(40_000))).await,
                4 => {
                    checkpoint = (at, outlet.pending().to_bytes().expect("columns fit"));
                }
                5 if random(4) == 0 => {
                    let pending = Pending::from_bytes(&checkpoint.1, &views);
                    let pending = pending.expect("what was saved can be read");
                    outlet = outlet_after(&shelf, place(checkpoint.0), pending);
                    at = checkpoint.0;
                }
                6 | 7 => read_on(&outlet, persons, &mut version, 20).await,
                _ => {
                    at += 1;
                    version += 1;
                    let group = format!("g{}", at % 17);
                    let update = counts(groups, version, [(Some(group.as_str()), at)]);
                    expected.insert(format!("[\"{group}\"]"), at);
                    let mut updates = vec![update];
                    if let Some(pid) = person(at) {
                        expected.insert(pid.clone(), 0);
                        updates.push(people(persons, version, &[&pid]));
                    }
                    outlet.offer(updates, place(at)).expect("open");
                }
            }
            settle().await;
        }
        shelf.fail(None);
        while outlet.behind().is_some() {
            read_on(&outlet, persons, &mut version, 20).await;
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
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

//! Which numbers are shown, and when they change.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, ListBuilder, StringArray, TimestampMicrosecondArray, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use common::people::Dice;
use falaj_privacy::{Publisher, PublisherState};
use falaj_record::{
    Column, People, Publication, PublishedRow, Value, ViewInfo, ViewKind, ViewUpdate, Window,
};

fn view(windowed: bool) -> Arc<ViewInfo> {
    let key_type = if windowed {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    } else {
        DataType::Utf8
    };
    let column = |name: &str, data_type, key| Column {
        name: name.into(),
        data_type,
        key,
        nullable: true,
    };
    Arc::new(ViewInfo {
        name: "users".into(),
        kind: ViewKind::Aggregate,
        columns: vec![
            column("group", key_type, true),
            column("users", DataType::Int64, false),
        ],
        window: windowed.then_some(Window {
            size_us: 60_000_000,
            slide_us: 60_000_000,
            start: Some(0),
            end: None,
        }),
        fields: Vec::new(),
        sql: String::new(),
    })
}

/// Groups of people as the views hold them: records counted exactly, people as sets.
struct World {
    view: Arc<ViewInfo>,
    groups: BTreeMap<String, Vec<u64>>,
    changed: BTreeMap<String, Vec<u64>>,
    saturation: usize,
}

impl World {
    fn new(windowed: bool) -> Self {
        Self {
            view: view(windowed),
            groups: BTreeMap::new(),
            changed: BTreeMap::new(),
            saturation: 5,
        }
    }

    fn join(&mut self, group: &str, people: impl IntoIterator<Item = u64>) {
        for person in people {
            self.groups.entry(group.into()).or_default().push(person);
            self.changed.entry(group.into()).or_default().push(person);
        }
    }

    fn people(&self, group: &str) -> BTreeSet<u64> {
        self.groups
            .get(group)
            .into_iter()
            .flatten()
            .copied()
            .collect()
    }

    /// What the views hand on: changed groups, with saturating sets.
    fn update(&mut self) -> ViewUpdate {
        let changed = std::mem::take(&mut self.changed);
        let names: Vec<&str> = changed.keys().map(String::as_str).collect();
        let counts = names
            .iter()
            .map(|name| i64::try_from(self.groups[*name].len()).expect("few"));
        let counts = Int64Array::from_iter_values(counts);
        let groups: ArrayRef = if self.view.window.is_some() {
            let starts = names
                .iter()
                .map(|name| name.parse::<i64>().expect("a window"));
            Arc::new(TimestampMicrosecondArray::from_iter_values(starts))
        } else {
            Arc::new(StringArray::from(names.clone()))
        };
        let fields: Vec<Field> = self
            .view
            .columns
            .iter()
            .map(|column| Field::new(&column.name, column.data_type.clone(), true))
            .collect();
        let rows = RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![groups, Arc::new(counts)],
        )
        .expect("a batch");
        let mut recent = ListBuilder::new(UInt64Builder::new());
        for people in changed.values() {
            let distinct: BTreeSet<u64> = people.iter().copied().collect();
            recent.append_value(distinct.into_iter().take(self.saturation).map(Some));
        }
        ViewUpdate {
            view: Arc::clone(&self.view),
            rows,
            keys: StringArray::from(names.clone()),
            version: 1,
            watermark: Some(7),
            people: Some(People {
                count: names
                    .iter()
                    .map(|name| {
                        u32::try_from(self.people(name).len().min(self.saturation)).expect("few")
                    })
                    .collect(),
                recent: recent.finish(),
            }),
        }
    }

    fn tick(
        &mut self,
        publisher: &mut Publisher,
        version: i64,
    ) -> (Vec<Publication>, Vec<Vec<String>>) {
        publisher.apply(&self.update());
        let mut asked = Vec::new();
        let publications = publisher.tick(version, &mut |_, keys| {
            asked.push(keys.to_vec());
            let count: usize = keys.iter().map(|key| self.groups[key].len()).sum();
            Some(vec![
                Value::Null,
                Value::Int(i64::try_from(count).expect("few")),
            ])
        });
        (publications, asked)
    }
}

/// What is shown: key and count.
fn shown(publisher: &Publisher) -> Vec<(String, i64)> {
    let view = publisher.rows("users").expect("a view");
    view.rows
        .iter()
        .map(|row| {
            let Value::Int(count) = row.values[1] else {
                panic!("a count is an int");
            };
            (row.key.clone(), count)
        })
        .collect()
}

fn rows<'a>(pairs: &'a [(&'a str, i64)]) -> Vec<(String, i64)> {
    pairs
        .iter()
        .map(|(key, count)| ((*key).into(), *count))
        .collect()
}

#[test]
fn a_group_is_shown_from_k_people_on_and_changes_by_delta_k() {
    let (mut world, mut guard) = (World::new(false), Publisher::new(5, 5));
    world.join("a", 0..4);
    world.join("a", 0..4);
    let (publications, _) = world.tick(&mut guard, 10);
    assert_eq!(shown(&guard), []);
    assert_eq!(
        publications[0].suppressed, 1,
        "eight records of four people"
    );
    world.join("a", 4..5);
    let (publications, _) = world.tick(&mut guard, 11);
    assert_eq!(shown(&guard), rows(&[("a", 9)]));
    assert_eq!(
        (publications[0].version, publications[0].suppressed),
        (11, 0)
    );
    assert_eq!(publications[0].watermark, Some(7));
    assert_eq!(publications[0].upserts.len(), 1);
    // Four people came, however often: nothing changes. The fifth lets it.
    for _ in 0..3 {
        world.join("a", 5..9);
        assert!(world.tick(&mut guard, 12).0.is_empty());
        assert_eq!(shown(&guard), rows(&[("a", 9)]));
    }
    world.join("a", 9..10);
    let (publications, _) = world.tick(&mut guard, 3);
    assert_eq!(shown(&guard), rows(&[("a", 22)]));
    assert!(publications[0].version > 11, "versions grow");
    assert!(
        world.tick(&mut guard, 20).0.is_empty(),
        "a tick without news is silent"
    );
}

#[test]
fn small_groups_fold_once_they_are_k_different_people() {
    let (mut world, mut guard) = (World::new(false), Publisher::new(5, 5));
    world.join("a", 0..50);
    world.join("b", 100..103);
    world.join("c", 100..102);
    let (publications, asked) = world.tick(&mut guard, 1);
    // b and c are three people, so the smallest group goes in with them: it is the only one.
    assert_eq!(asked, [["b", "c", "a"]]);
    assert_eq!(shown(&guard), rows(&[(PublishedRow::OTHER, 55)]));
    assert_eq!(publications[0].suppressed, 3);
    world.join("d", 0..60);
    world.tick(&mut guard, 2);
    assert_eq!(shown(&guard), rows(&[("d", 60), (PublishedRow::OTHER, 55)]));
    // Two more people: b and c are five now, but two joiners would show in `other`.
    world.join("c", 103..105);
    world.tick(&mut guard, 3);
    assert_eq!(shown(&guard), rows(&[("d", 60), (PublishedRow::OTHER, 55)]));
    world.join("e", 200..203);
    let (publications, asked) = world.tick(&mut guard, 4);
    assert_eq!(asked, [["b", "c", "e"]]);
    assert_eq!(
        shown(&guard),
        rows(&[("a", 50), ("d", 60), (PublishedRow::OTHER, 10)])
    );
    assert_eq!(publications[0].suppressed, 3);
    let other = &guard.rows("users").expect("a view").rows[2];
    assert!(
        other.values[0] == Value::Text("other".into()),
        "its key column says so"
    );
}

#[test]
fn the_smallest_shown_group_goes_in_when_enough_people_joined_it() {
    let (mut world, mut guard) = (World::new(false), Publisher::new(5, 5));
    for (group, size) in [("a", 30), ("b", 20), ("c", 40)] {
        world.join(group, 0..size);
    }
    world.tick(&mut guard, 1);
    assert_eq!(shown(&guard), rows(&[("a", 30), ("b", 20), ("c", 40)]));
    world.join("z", 500..501);
    world.tick(&mut guard, 2);
    assert_eq!(
        shown(&guard),
        rows(&[("a", 30), ("b", 20), ("c", 40)]),
        "z waits"
    );
    world.join("b", 600..604);
    let (publications, _) = world.tick(&mut guard, 3);
    assert_eq!(
        shown(&guard),
        rows(&[("a", 30), ("c", 40), (PublishedRow::OTHER, 25)])
    );
    assert_eq!(publications[0].deletes, ["b"]);
    // z grows on its own: b comes out again, and `other` goes.
    world.join("z", 501..510);
    let (publications, _) = world.tick(&mut guard, 4);
    assert_eq!(
        shown(&guard),
        rows(&[("a", 30), ("b", 24), ("c", 40), ("z", 10)])
    );
    assert_eq!(publications[0].deletes, [PublishedRow::OTHER]);
}

#[test]
fn k_of_one_shows_everything_people_or_not() {
    let (mut world, mut guard) = (World::new(false), Publisher::new(1, 1));
    world.join("a", 0..1);
    let mut update = world.update();
    update.people = None;
    guard.apply(&update);
    guard.tick(1, &mut |_, _| panic!("nothing is folded"));
    assert_eq!(shown(&guard), rows(&[("a", 1)]));
    world.join("a", 0..1);
    world.tick(&mut guard, 2);
    assert_eq!(shown(&guard), rows(&[("a", 2)]));
}

#[test]
fn closed_windows_stay_as_they_are_shown_and_old_ones_go() {
    let (mut world, mut guard) = (World::new(true), Publisher::new(5, 5));
    let start = |at: i64| format!("{:020}", at * 60_000_000);
    world.join(&start(0), 0..7);
    world.join(&start(3), 0..9);
    world.tick(&mut guard, 1);
    world.join(&start(1), 0..3);
    world.tick(&mut guard, 2);
    guard.retire("users", &[start(0), start(1)]);
    world.tick(&mut guard, 3);
    assert_eq!(shown(&guard), [(start(0), 7), (start(3), 9)]);
    assert_eq!(guard.rows("users").expect("a view").suppressed, 0);
    for at in 4..1600 {
        world.join(&start(at), 0..9);
    }
    let (publications, _) = world.tick(&mut guard, 4);
    let keys: Vec<String> = shown(&guard).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, (160..1600).map(start).collect::<Vec<_>>());
    assert_eq!(publications[0].deletes, [start(0), start(3)]);
    assert_eq!(publications[0].upserts.len(), 1440);
    world.join(&start(0), 20..40);
    assert!(
        world.tick(&mut guard, 5).0.is_empty(),
        "an old window does not come back"
    );
}

#[test]
fn a_fold_that_cannot_be_told_is_asked_for_again() {
    let (mut world, mut guard) = (World::new(false), Publisher::new(5, 5));
    world.join("a", 0..3);
    world.join("b", 3..6);
    guard.apply(&world.update());
    assert_eq!(guard.tick(1, &mut |_, _| None).len(), 1);
    assert_eq!(shown(&guard), []);
    let publications = guard.tick(2, &mut |info, keys| {
        assert_eq!((info.name.as_str(), keys.len()), ("users", 2));
        Some(vec![Value::Null, Value::Int(6)])
    });
    assert_eq!(publications[0].upserts[0].key, PublishedRow::OTHER);
}

#[test]
fn a_guard_goes_on_where_it_was() {
    let (mut world, mut guard) = (World::new(false), Publisher::new(5, 5));
    world.join("a", 0..9);
    world.join("b", 0..3);
    world.join("c", 5..9);
    world.tick(&mut guard, 1);
    world.join("a", 20..24);
    world.tick(&mut guard, 2);
    let saved = serde_json::to_string(&guard.state()).expect("JSON");
    let load = || serde_json::from_str::<PublisherState>(&saved).expect("JSON");
    let views = [view(false)];
    let mut resumed = Publisher::resume(5, 5, load(), &views);
    assert_eq!(shown(&resumed), shown(&guard));
    world.join("a", 24..25);
    world.join("b", 30..31);
    let update = world.update();
    for guard in [&mut guard, &mut resumed] {
        guard.apply(&update);
        guard.tick(3, &mut |_, keys| {
            Some(vec![
                Value::Null,
                Value::Int(i64::try_from(keys.len()).expect("few")),
            ])
        });
    }
    assert_eq!(shown(&resumed), shown(&guard));
    assert_eq!(shown(&resumed)[0], ("a".into(), 14));
    assert_eq!(
        shown(&Publisher::resume(6, 5, load(), &views)),
        [],
        "another k starts anew"
    );
    assert!(Publisher::resume(5, 5, load(), &[]).rows("users").is_none());
}

#[test]
fn row_views_are_never_shown() {
    let mut world = World::new(false);
    let mut rows = ViewInfo::clone(&world.view);
    rows.kind = ViewKind::Row;
    world.view = Arc::new(rows);
    world.join("a", 0..9);
    let mut guard = Publisher::new(1, 1);
    assert!(world.tick(&mut guard, 1).0.is_empty());
    assert!(guard.rows("users").is_none());
}

/// Random people join random groups; an observer with perfect memory watches every tick.
#[test]
fn whoever_watches_never_sees_fewer_than_k_people_or_a_change_by_fewer_than_delta_k() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (mut world, mut guard) = (World::new(false), Publisher::new(5, 5));
        let names: Vec<String> = (0..12).map(|at| format!("g{at:02}")).collect();
        // The rows shown, and for each group its people when it was last published in any row.
        let mut open = BTreeSet::new();
        let mut known: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let mut changes = 0;
        for version in 1..300 {
            for _ in 0..dice.below(8) {
                // A few large groups, many rare ones; nobody comes twice.
                let group = &names[dice.at(12).min(dice.at(12)).min(dice.at(12))];
                let person = dice.below(500);
                if !world.people(group).contains(&person) {
                    world.join(group, [person]);
                }
            }
            let (publications, asked) = world.tick(&mut guard, version);
            for publication in publications {
                for key in &publication.deletes {
                    assert!(open.remove(key), "what is taken away was shown");
                }
                for row in &publication.upserts {
                    let members = if row.key == PublishedRow::OTHER {
                        asked[0].clone()
                    } else {
                        vec![row.key.clone()]
                    };
                    let (mut people, mut came) = (BTreeSet::new(), BTreeSet::new());
                    for member in members {
                        let now = world.people(&member);
                        let then = known.insert(member, now.clone()).unwrap_or_default();
                        came.extend(now.difference(&then).copied());
                        people.extend(now);
                    }
                    assert!(
                        people.len() >= 5,
                        "seed {seed}, version {version}: {people:?}"
                    );
                    if !open.insert(row.key.clone()) {
                        changes += 1;
                        assert!(came.len() >= 5, "seed {seed}, version {version}: {came:?}");
                    }
                }
            }
            let rows: BTreeSet<String> = shown(&guard).into_iter().map(|(key, _)| key).collect();
            assert_eq!(rows, open, "who follows the changes has what is shown");
        }
        assert!(changes > 5, "seed {seed}: {changes} changes");
    }
}

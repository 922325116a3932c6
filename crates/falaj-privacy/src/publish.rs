//! Which numbers about groups of people may be shown, and when they may change.
//!
//! Always: a published row stands for at least k people, and it changes only when at least
//! `delta_k` people joined since it last did. So a newcomer hides among `delta_k`, whoever reloads
//! the page and however often.
//! Always: every viewer is shown the same rows: they change in [`Publisher::tick`] and nowhere else.
//! Always: memory for a group is bounded by k + `delta_k` hashes and its values.
//! Absent on purpose: row views, which are never published; the exact values of stores, which the
//! guard does not touch.
//!
//! **The folded row.** Groups below k become one row, `other`, once they have k people together
//! (distinct ones: hashes are compared, counts are never added up). If they have not, the smallest
//! group that could be shown goes in with them, so that a known total less the rows shown does not
//! give the hidden ones away; smallest by the view's first numeric column, then by key. `other`
//! changes by the same rule as any row, counting the people who joined the groups that stay in it.
//! A group that grew out of `other` waits for `delta_k` joiners of its own, or for the next
//! publication of `other`.
//!
//! **No guard.** With k = 1 every group is shown, one without people too (records without a pid
//! have none), and with `delta_k` = 1 every change.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use falaj_record::{Publication, PublishedRow, Value, ViewInfo, ViewKind, ViewUpdate};
use serde::{Deserialize, Serialize};

/// Windows of a view that stay shown: a day of minutes.
const WINDOWS_MAX: usize = 1440;

/// Asked for the values that some groups of a view, given by their keys, have together. In SELECT
/// order; what it gives for key columns is replaced. Nothing where it cannot be told.
pub type Fold<'a> = dyn FnMut(&ViewInfo, &[String]) -> Option<Vec<Value>> + 'a;

/// The guard of published numbers.
pub struct Publisher {
    guard: Guard,
    views: BTreeMap<String, (Arc<ViewInfo>, Shown)>,
}

/// What is shown, and what waits, for the checkpoint.
///
/// Floats are kept as they are, NaN too: a format that has no NaN (JSON) will not read them back.
#[derive(Clone, Serialize, Deserialize)]
pub struct PublisherState {
    guard: Guard,
    views: BTreeMap<String, Shown>,
}

/// The published rows of one view.
#[derive(Debug, Clone)]
pub struct PublishedView {
    /// The view.
    pub view: Arc<ViewInfo>,
    /// Rows in the order of their keys; the folded one last.
    pub rows: Vec<PublishedRow>,
    /// Version of the newest publication; 0 before the first.
    pub version: i64,
    /// Lowest watermark, in microseconds since 1970.
    pub watermark: Option<i64>,
    /// How many groups are folded or held back.
    pub suppressed: u64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Guard {
    k: usize,
    delta_k: usize,
}

/// One view, as shown and as waiting to be.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Shown {
    groups: BTreeMap<String, Group>,
    /// Values of the folded row.
    other: Option<Vec<Value>>,
    /// The group that went into `other` though it is large enough.
    pulled: Option<String>,
    version: i64,
    watermark: Option<i64>,
    suppressed: u64,
    /// Windows that start before are shown no more.
    floor: Option<i64>,
    /// Whether anything came since the last tick.
    stale: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Group {
    /// The exact values; none once the group is retired.
    values: Vec<Value>,
    /// Distinct people, saturating.
    count: u32,
    /// Hashes of its people while they are fewer than k; sorted.
    people: Vec<u64>,
    /// Hashes of people who came since it was last published, itself or in `other`; at most
    /// `delta_k`; sorted.
    recent: Vec<u64>,
    /// The values as shown.
    shown: Option<Vec<Value>>,
    /// Whether the published `other` holds it.
    folded: bool,
    /// Whether the views dropped its state: it stays as it is shown.
    retired: bool,
    /// Start (or end) of its window.
    window: Option<i64>,
}

/// How the rows of one view change.
#[derive(Default)]
struct Change {
    upserts: Vec<PublishedRow>,
    deletes: Vec<String>,
}

impl Publisher {
    /// A guard with these numbers; 0 counts as 1.
    #[must_use]
    pub fn new(k: u32, delta_k: u32) -> Self {
        Self {
            guard: Guard {
                k: k.max(1) as usize,
                delta_k: delta_k.max(1) as usize,
            },
            views: BTreeMap::new(),
        }
    }

    /// A guard that goes on from a checkpoint, for these views. What was shown under other numbers
    /// (k, `delta_k`), or of a view that is no more, is forgotten: the caller then applies each
    /// view as a whole once more.
    #[must_use]
    pub fn resume(k: u32, delta_k: u32, state: PublisherState, views: &[Arc<ViewInfo>]) -> Self {
        let mut publisher = Self::new(k, delta_k);
        let mut shown = state.views;
        for view in views {
            publisher.add(view);
            if state.guard == publisher.guard
                && let Some(mut shown) = shown.remove(&view.name)
                && let Some(place) = publisher.views.get_mut(&view.name)
            {
                shown.stale = true;
                place.1 = shown;
            }
        }
        publisher
    }

    /// For the checkpoint.
    #[must_use]
    pub fn state(&self) -> PublisherState {
        PublisherState {
            guard: self.guard,
            views: self
                .views
                .iter()
                .map(|(name, (_, shown))| (name.clone(), shown.clone()))
                .collect(),
        }
    }

    /// Makes a view known, so that [`Publisher::rows`] has it before its first record. A row view
    /// is not taken.
    pub fn add(&mut self, view: &Arc<ViewInfo>) {
        if view.kind == ViewKind::Aggregate && !self.views.contains_key(&view.name) {
            let entry = (Arc::clone(view), Shown::default());
            self.views.insert(view.name.clone(), entry);
        }
    }

    /// Takes exact rows in. Nothing is shown before the next tick. Row views are passed over.
    pub fn apply(&mut self, update: &ViewUpdate) {
        self.add(&update.view);
        let guard = self.guard;
        if let Some((info, shown)) = self.views.get_mut(&update.view.name) {
            shown.apply(guard, info, update);
        }
    }

    /// Takes note of groups whose state the views dropped, as their windows are closed for good.
    /// Shown ones stay as they are; the others are forgotten.
    pub fn retire(&mut self, view: &str, keys: &[String]) {
        if let Some((_, shown)) = self.views.get_mut(view) {
            for key in keys {
                shown.retire(key);
            }
        }
    }

    /// Publishes what may be published, all views at once. `version` is the clock's next version.
    pub fn tick(&mut self, version: i64, fold: &mut Fold<'_>) -> Vec<Publication> {
        let guard = self.guard;
        self.views
            .values_mut()
            .filter_map(|(info, shown)| shown.publish(guard, info, version, fold))
            .collect()
    }

    /// What is shown of a view now; nothing where it is unknown or a row view.
    #[must_use]
    pub fn rows(&self, view: &str) -> Option<PublishedView> {
        let (info, shown) = self.views.get(view)?;
        let mut rows: Vec<PublishedRow> = shown
            .groups
            .iter()
            .filter_map(|(key, group)| Some(row(key, group.shown.as_ref()?)))
            .collect();
        rows.extend(
            shown
                .other
                .iter()
                .map(|values| row(PublishedRow::OTHER, values)),
        );
        Some(PublishedView {
            view: Arc::clone(info),
            rows,
            version: shown.version,
            watermark: shown.watermark,
            suppressed: shown.suppressed,
        })
    }
}

fn row(key: &str, values: &[Value]) -> PublishedRow {
    PublishedRow {
        key: key.to_owned(),
        values: values.to_vec(),
    }
}

impl Guard {
    /// Whether a group has too few people to be shown.
    fn holds_back(self, group: &Group) -> bool {
        self.k > 1 && (group.count as usize) < self.k && group.people.len() < self.k
    }

    /// Whether at least so many different people are in the sets.
    fn reached<'a>(limit: usize, sets: impl IntoIterator<Item = &'a Vec<u64>>) -> bool {
        let mut people = HashSet::new();
        sets.into_iter().flatten().any(|person| {
            people.insert(*person);
            people.len() >= limit
        })
    }

    /// Whether enough people joined for a row to change.
    fn lets_change<'a>(self, recent: impl IntoIterator<Item = &'a Vec<u64>>) -> bool {
        self.delta_k == 1 || Self::reached(self.delta_k, recent)
    }
}

/// Adds people to a sorted set of bounded size.
fn add_people(set: &mut Vec<u64>, people: &[u64], max: usize) {
    for person in people {
        if set.len() >= max {
            return;
        }
        if let Err(at) = set.binary_search(person) {
            set.insert(at, *person);
        }
    }
}

impl Shown {
    fn apply(&mut self, guard: Guard, info: &ViewInfo, update: &ViewUpdate) {
        let window_column = info.window.and_then(|window| window.start.or(window.end));
        let people = update.people.as_ref();
        let hashes = people.map(|people| {
            let offsets = people.recent.value_offsets();
            (
                offsets,
                people.recent.values().as_primitive::<UInt64Type>().values(),
            )
        });
        self.watermark = update.watermark;
        self.stale = true;
        for at in 0..update.rows.num_rows() {
            let values: Vec<Value> = update
                .rows
                .columns()
                .iter()
                .map(|column| Value::at(column, at))
                .collect();
            let window = window_column.and_then(|column| match values.get(column) {
                Some(Value::Timestamp(us)) => Some(*us),
                _ => None,
            });
            if window.is_some_and(|window| self.floor.is_some_and(|floor| window < floor)) {
                continue;
            }
            let key = update.keys.value(at);
            if !self.groups.contains_key(key) {
                self.groups.insert(key.to_owned(), Group::new(window));
            }
            let group = self.groups.get_mut(key).expect("it is there now");
            group.values = values;
            group.retired = false;
            group.count = people.map_or(0, |people| people.count[at]);
            if let Some((offsets, hashes)) = &hashes {
                let bound = |at: usize| usize::try_from(offsets[at]).unwrap_or(0);
                let came = &hashes[bound(at)..bound(at + 1)];
                add_people(&mut group.recent, came, guard.delta_k);
                if guard.holds_back(group) {
                    add_people(&mut group.people, came, guard.k);
                }
            }
            if !guard.holds_back(group) {
                group.people = Vec::new();
                group.count = group.count.max(u32::try_from(guard.k).unwrap_or(u32::MAX));
            }
        }
    }

    fn retire(&mut self, key: &str) {
        self.stale = true;
        match self.groups.get_mut(key) {
            Some(group) if group.shown.is_some() => {
                group.retired = true;
                group.values = Vec::new();
                group.people = Vec::new();
                group.recent = Vec::new();
            }
            _ => {
                self.groups.remove(key);
            }
        }
    }

    fn publish(
        &mut self,
        guard: Guard,
        info: &Arc<ViewInfo>,
        version: i64,
        fold: &mut Fold<'_>,
    ) -> Option<Publication> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        let mut change = Change::default();
        self.cut_windows(&mut change);
        self.fold(guard, info, fold, &mut change);
        self.show(guard, &mut change);
        let held_back = self
            .groups
            .values()
            .filter(|group| group.shown.is_none())
            .count() as u64;
        if change.upserts.is_empty() && change.deletes.is_empty() && held_back == self.suppressed {
            return None;
        }
        self.suppressed = held_back;
        self.version = version.max(self.version + 1);
        Some(Publication {
            view: Arc::clone(info),
            version: self.version,
            watermark: self.watermark,
            suppressed: self.suppressed,
            upserts: change.upserts,
            deletes: change.deletes,
        })
    }

    /// Keeps the newest windows.
    fn cut_windows(&mut self, change: &mut Change) {
        let windows: BTreeSet<i64> = self
            .groups
            .values()
            .filter_map(|group| group.window)
            .collect();
        let Some(floor) = windows
            .len()
            .checked_sub(WINDOWS_MAX)
            .filter(|beyond| *beyond > 0)
            .and_then(|beyond| windows.iter().nth(beyond).copied())
        else {
            return;
        };
        self.floor = Some(floor);
        self.groups.retain(|key, group| {
            let keep = group.window.is_none_or(|window| window >= floor);
            if !keep && group.shown.is_some() {
                change.deletes.push(key.clone());
            }
            keep
        });
    }

    /// Publishes `other` again, if it may change.
    fn fold(&mut self, guard: Guard, info: &ViewInfo, fold: &mut Fold<'_>, change: &mut Change) {
        let small: Vec<&String> = self
            .groups
            .iter()
            .filter(|(_, group)| !group.retired && guard.holds_back(group))
            .map(|(key, _)| key)
            .collect();
        if small.is_empty() {
            return self.unfold(guard, change);
        }
        let people = small.iter().map(|key| &self.groups[*key].people);
        let pulled = if Guard::reached(guard.k, people.clone()) {
            None
        } else {
            match self.smallest(guard, info) {
                Some(key) => Some(key.clone()),
                None => return,
            }
        };
        let members: Vec<String> = small.into_iter().chain(&pulled).cloned().collect();
        let allowed = if self.other.is_some() {
            guard.lets_change(members.iter().map(|key| &self.groups[key].recent))
        } else {
            // A row that was shown by itself tells the rest of `other` by subtraction.
            pulled.as_ref().is_none_or(|key| {
                let group = &self.groups[key];
                group.shown.is_none()
                    || guard.lets_change(members.iter().map(|key| &self.groups[key].recent))
            })
        };
        if !allowed {
            return;
        }
        let Some(mut values) = fold(info, &members) else {
            // The views could not tell: ask again at the next tick.
            self.stale = true;
            return;
        };
        for (value, column) in values.iter_mut().zip(&info.columns) {
            if column.key {
                *value = Value::Text(PublishedRow::OTHER.to_owned());
            }
        }
        for group in self.groups.values_mut() {
            group.folded = false;
        }
        for key in &members {
            if let Some(group) = self.groups.get_mut(key) {
                group.folded = true;
                group.recent.clear();
                if group.shown.take().is_some() {
                    change.deletes.push(key.clone());
                }
            }
        }
        self.pulled = pulled;
        if self.other.as_ref() != Some(&values) {
            change.upserts.push(row(PublishedRow::OTHER, &values));
            self.other = Some(values);
        }
    }

    /// Takes `other` away, as no group is small any more.
    fn unfold(&mut self, guard: Guard, change: &mut Change) {
        if self.other.is_none() {
            return;
        }
        let mut folded = self.groups.values().filter(|group| group.folded).peekable();
        if folded.peek().is_none() || guard.lets_change(folded.map(|group| &group.recent)) {
            self.other = None;
            self.pulled = None;
            for group in self.groups.values_mut() {
                group.folded = false;
            }
            change.deletes.push(PublishedRow::OTHER.to_owned());
        }
    }

    /// The smallest group that could be shown: the one in `other` already, if it still could.
    fn smallest(&self, guard: Guard, info: &ViewInfo) -> Option<&String> {
        let large = |group: &Group| !group.retired && !guard.holds_back(group);
        if let Some(key) = &self.pulled
            && self.groups.get(key).is_some_and(large)
        {
            return Some(key);
        }
        let size = |group: &Group| {
            info.columns
                .iter()
                .zip(&group.values)
                .find_map(|(column, value)| match value {
                    #[expect(clippy::cast_precision_loss, reason = "sizes are only compared")]
                    Value::Int(size) if !column.key => Some(*size as f64),
                    Value::Float(size) if !column.key => Some(*size),
                    _ => None,
                })
                .unwrap_or(0.0)
        };
        self.groups
            .iter()
            .filter(|(_, group)| large(group))
            .min_by(|(_, a), (_, b)| size(a).total_cmp(&size(b)))
            .map(|(key, _)| key)
    }

    /// Publishes groups by themselves.
    fn show(&mut self, guard: Guard, change: &mut Change) {
        for (key, group) in &mut self.groups {
            let pulled = group.folded && self.pulled.as_ref() == Some(key);
            if group.retired || pulled || guard.holds_back(group) {
                continue;
            }
            let due = match &group.shown {
                Some(shown) => *shown != group.values && guard.lets_change([&group.recent]),
                None => !group.folded || guard.lets_change([&group.recent]),
            };
            if due {
                group.shown = Some(group.values.clone());
                group.recent.clear();
                group.folded = false;
                change.upserts.push(row(key, &group.values));
            }
        }
    }
}

impl Group {
    fn new(window: Option<i64>) -> Self {
        Self {
            values: Vec::new(),
            count: 0,
            people: Vec::new(),
            recent: Vec::new(),
            shown: None,
            folded: false,
            retired: false,
            window,
        }
    }
}

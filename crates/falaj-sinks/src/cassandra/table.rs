//! What a view's table looks like: its columns, its primary key, and the statements about it.
//!
//! Always: two rows with different `_key` have different primary keys, so none overwrites another.
//! Always: what a primary key is made of is never NULL, unless the view promised otherwise.

use std::fmt::Write as _;
use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use falaj_record::{Column as ViewColumn, PID, ViewInfo, ViewKind};

use super::NAME;
use crate::SinkError;

/// The column with the injective text of a row's key.
pub(super) const KEY: &str = "_key";
/// The column with the version of a row's last write.
pub(super) const VERSION: &str = "_version";
/// The bucket of windows that follow each other within a day.
const DAY: &str = "_day";
/// The bucket of windows that are a day or more apart.
const YEAR: &str = "_year";

/// Longest name of a table: what stands on the disk beside it still fits into a file's name.
const TABLE_NAME_MAX: usize = 222;
/// Partitions of time that the files of a windowed view are kept in: each is dropped as a whole.
const TIME_PARTS: u64 = 30;
const DAY_US: i64 = 86_400_000_000;
const HOUR_S: u64 = 3600;

/// A view as a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub columns: Vec<Column>,
    /// Indexes of the partition key's columns.
    pub partition: Vec<usize>,
    /// Indexes of the clustering columns.
    pub clustering: Vec<(usize, Order)>,
    /// Whether its rows are about single people.
    people: bool,
    windowed: bool,
}

/// A column of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    /// Type in CQL.
    pub cql: &'static str,
    pub source: Source,
}

/// Where the values of a column come from; numbers are indexes into the view's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Value(usize),
    /// Microseconds that a time has beyond its milliseconds.
    Micros(usize),
    /// The date of a time.
    Day(usize),
    /// The year of a time.
    Year(usize),
    Key,
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// A column as `system_schema.columns` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub name: String,
    /// Type in CQL.
    pub cql: String,
    pub part: Part,
}

/// What a stored column is to the primary key; numbers are positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Partition(i32),
    Clustering(i32, Order),
    None,
}

impl Layout {
    /// The table of a view.
    pub(super) fn of(view: &ViewInfo) -> Result<Self, SinkError> {
        check_names(view)?;
        let mut layout = Self {
            columns: Vec::new(),
            partition: Vec::new(),
            clustering: Vec::new(),
            people: view.kind == ViewKind::Row || view.columns.iter().any(|c| c.name == PID),
            windowed: view.window.is_some(),
        };
        for (at, column) in view.columns.iter().enumerate() {
            let cql = declared(&column.data_type).ok_or_else(|| {
                let name = &column.name;
                unfit(
                    view,
                    format!("the column `{name}` has a type that views do not have"),
                )
            })?;
            layout.add(column.name.clone(), cql, Source::Value(at));
            if has_micros(view, at) {
                layout.add(micros_of(&column.name), "smallint", Source::Micros(at));
            }
        }
        let window = view.window.and_then(|window| window.start.or(window.end));
        match window {
            Some(window) if view.kind == ViewKind::Aggregate => layout.key_windows(view, window),
            _ => layout.key_groups(view),
        }
        if layout.find(KEY).is_none() {
            layout.add(KEY.into(), "text", Source::Key);
        }
        layout.add(VERSION.into(), "bigint", Source::Version);
        Ok(layout)
    }

    /// By the group columns, or by `_key` where nobody could ask for a row by them.
    fn key_groups(&mut self, view: &ViewInfo) {
        let groups = groups(view);
        let by_groups = match view.kind {
            ViewKind::Row => groups.iter().any(|&at| view.columns[at].name == PID),
            ViewKind::Aggregate => !groups.is_empty(),
        };
        if by_groups && groups.iter().all(|&at| can_be_asked_for(&view.columns[at])) {
            self.partition_by(view, &groups);
        } else {
            let key = self.add(KEY.into(), "text", Source::Key);
            self.partition.push(key);
        }
    }

    /// By the other group columns, or by a bucket of time; the newest window first.
    fn key_windows(&mut self, view: &ViewInfo, window: usize) {
        let groups = groups(view);
        let mut newest_first = vec![self.position(window)];
        newest_first.extend(self.micros(view, window));
        let newest_first = newest_first.into_iter().map(|at| (at, Order::Descending));
        self.clustering.extend(newest_first);
        if !groups.is_empty() && groups.iter().all(|&at| can_be_asked_for(&view.columns[at])) {
            self.partition_by(view, &groups);
            return;
        }
        let apart = view.window.map_or(0, |window| window.slide_us);
        let bucket = if apart < DAY_US {
            self.add(DAY.into(), "date", Source::Day(window))
        } else {
            self.add(YEAR.into(), "int", Source::Year(window))
        };
        self.partition.push(bucket);
        if !groups.is_empty() {
            let key = self.add(KEY.into(), "text", Source::Key);
            self.clustering.push((key, Order::Ascending));
        }
    }

    /// Microseconds of a time in the key do not belong to what is asked for, so they cluster.
    fn partition_by(&mut self, view: &ViewInfo, groups: &[usize]) {
        for &group in groups {
            self.partition.push(self.position(group));
            let micros = self.micros(view, group);
            self.clustering
                .extend(micros.map(|at| (at, Order::Ascending)));
        }
    }

    fn add(&mut self, name: String, cql: &'static str, source: Source) -> usize {
        self.columns.push(Column { name, cql, source });
        self.columns.len() - 1
    }

    pub(super) fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Where the view's column `at` stands in the table.
    fn position(&self, at: usize) -> usize {
        let is = |column: &Column| column.source == Source::Value(at);
        let found = self.columns.iter().position(is);
        found.expect("every column of the view is in the table")
    }

    fn micros(&self, view: &ViewInfo, at: usize) -> Option<usize> {
        has_micros(view, at).then(|| self.position(at) + 1)
    }

    /// Whether people are found in it by an index on `pid` alone.
    pub(super) fn needs_pid_index(&self) -> bool {
        let alone = matches!(self.partition[..], [at] if self.columns[at].name == PID);
        self.find(PID).is_some() && !alone
    }

    /// Columns of the primary key, the partition's first.
    pub(super) fn key_columns(&self) -> impl Iterator<Item = usize> {
        let clustering = self.clustering.iter().map(|(at, _)| *at);
        self.partition.iter().copied().chain(clustering)
    }

    /// The primary key as an error shows it.
    pub(super) fn key_text(&self) -> String {
        let name = |at: usize| self.columns[at].name.as_str();
        let partition = self.partition.iter().map(|&at| name(at));
        let clustering = self.clustering.iter().map(|&(at, order)| (name(at), order));
        key_text(partition, clustering)
    }

    /// Makes the table. `retention` is how long its rows are kept.
    pub(super) fn create(
        &self,
        keyspace: &str,
        view: &ViewInfo,
        retention: Option<Duration>,
    ) -> String {
        let mut cql = format!(
            "CREATE TABLE IF NOT EXISTS {} (",
            table(keyspace, &view.name)
        );
        for Column {
            name, cql: kind, ..
        } in &self.columns
        {
            let _ = write!(cql, "{} {kind}, ", quoted(name));
        }
        let names = |ats: &[usize]| {
            let names = ats.iter().map(|&at| quoted(&self.columns[at].name));
            names.collect::<Vec<_>>().join(", ")
        };
        let clustering: Vec<usize> = self.clustering.iter().map(|(at, _)| *at).collect();
        let _ = write!(cql, "PRIMARY KEY (({})", names(&self.partition));
        if !clustering.is_empty() {
            let _ = write!(cql, ", {}", names(&clustering));
        }
        let _ = write!(cql, ")) WITH comment = '{}'", comment(&view.name));
        if !self.clustering.is_empty() {
            let order = |&(at, order): &(usize, Order)| {
                format!("{} {}", quoted(&self.columns[at].name), order.cql())
            };
            let orders: Vec<_> = self.clustering.iter().map(order).collect();
            let _ = write!(cql, " AND CLUSTERING ORDER BY ({})", orders.join(", "));
        }
        if let Some(compaction) = self.compaction(retention) {
            let _ = write!(cql, " AND compaction = {compaction}");
        }
        cql
    }

    /// How its files are merged, where Cassandra's default is not the best.
    ///
    /// Rows of people: at most about a tenth of what lies on the disk is overwritten or erased.
    /// Windows that expire: a file holds one span of time, and goes as a whole.
    fn compaction(&self, retention: Option<Duration>) -> Option<String> {
        if self.people {
            return Some("{'class': 'LeveledCompactionStrategy'}".into());
        }
        let retention = retention.filter(|_| self.windowed)?;
        let hours = retention
            .as_secs()
            .div_ceil(HOUR_S)
            .div_ceil(TIME_PARTS)
            .max(1);
        let (unit, size) = match hours {
            0..24 => ("HOURS", hours),
            _ => ("DAYS", hours.div_ceil(24)),
        };
        Some(format!(
            "{{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': '{unit}', \
             'compaction_window_size': {size}}}"
        ))
    }

    /// Writes a row: its columns, its version, and (where `expires`) its time to live.
    pub(super) fn insert(&self, keyspace: &str, view: &str, expires: bool) -> String {
        let names: Vec<_> = self.columns.iter().map(|c| quoted(&c.name)).collect();
        format!(
            "INSERT INTO {} ({}) VALUES ({}) USING TIMESTAMP ?{}",
            table(keyspace, view),
            names.join(", "),
            vec!["?"; names.len()].join(", "),
            if expires { " AND TTL ?" } else { "" },
        )
    }
}

impl Order {
    fn cql(self) -> &'static str {
        match self {
            Self::Ascending => "ASC",
            Self::Descending => "DESC",
        }
    }
}

/// Group columns beside the window's.
fn groups(view: &ViewInfo) -> Vec<usize> {
    let window = view.window.map_or([None; 2], |w| [w.start, w.end]);
    let other = |at: &usize| view.columns[*at].key && !window.contains(&Some(*at));
    (0..view.columns.len()).filter(other).collect()
}

/// Whether a row can be asked for by a value of it: NULL equals nothing, nor does NaN, and a
/// number with a fraction seldom what somebody types.
fn can_be_asked_for(column: &ViewColumn) -> bool {
    !column.nullable && column.data_type != DataType::Float64
}

/// Whether a time can have microseconds, which Cassandra's own type has no room for. A window
/// has none where windows begin and end at whole milliseconds.
fn has_micros(view: &ViewInfo, at: usize) -> bool {
    let whole = view.window.is_some_and(|window| {
        [window.start, window.end].contains(&Some(at))
            && window.size_us % 1000 == 0
            && window.slide_us % 1000 == 0
    });
    matches!(view.columns[at].data_type, DataType::Timestamp(..)) && !whole
}

/// The column beside a time.
pub(super) fn micros_of(column: &str) -> String {
    format!("_{column}_us")
}

/// The type of a column in CQL; `None` for a type that no view can have.
pub(super) fn declared(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Boolean => Some("boolean"),
        DataType::Int64 => Some("bigint"),
        DataType::Float64 => Some("double"),
        DataType::Utf8 | DataType::Utf8View => Some("text"),
        DataType::Date32 => Some("date"),
        DataType::Decimal128(..) => Some("decimal"),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some("timestamp"),
        _ => None,
    }
}

fn check_names(view: &ViewInfo) -> Result<(), SinkError> {
    let name = &view.name;
    if name.is_empty() || name.len() > TABLE_NAME_MAX || !name.bytes().all(is_word) {
        return Err(unfit(
            view,
            format!("a table's name has 1 to {TABLE_NAME_MAX} letters, digits and `_`"),
        ));
    }
    for (at, column) in view.columns.iter().enumerate() {
        let name = &column.name;
        if name.starts_with('_') {
            let cause = format!("the column `{name}` begins with `_`, as falaj's own do");
            return Err(unfit(view, cause));
        }
        if view.columns[..at].iter().any(|other| other.name == *name) {
            return Err(unfit(view, format!("it has two columns named `{name}`")));
        }
    }
    Ok(())
}

/// What names of keyspaces and tables are made of.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn unfit(view: &ViewInfo, cause: String) -> SinkError {
    SinkError::Unfit {
        view: view.name.clone(),
        kind: NAME,
        cause,
    }
}

/// A table that is there, against the one its view asks for.
pub(super) struct Fit {
    /// Columns that are to be added.
    pub add: Vec<(String, &'static str)>,
    /// Columns that the view no longer has.
    pub drop: Vec<String>,
}

impl Fit {
    /// What has to change.
    ///
    /// # Errors
    /// Where somebody else made the table, or its key or a column's type is another.
    pub(super) fn of(
        store: &str,
        view: &ViewInfo,
        layout: &Layout,
        stored: &[Stored],
    ) -> Result<Self, SinkError> {
        made_by_falaj(store, &view.name, stored)?;
        let mut add = Vec::new();
        for Column { name, cql, source } in &layout.columns {
            match stored.iter().find(|column| column.name == *name) {
                None => add.push((name.clone(), *cql)),
                Some(found) if found.cql != *cql => {
                    let given = match source {
                        Source::Value(at) => view.columns[*at].type_name(),
                        _ => "that".into(),
                    };
                    return Err(column_type(&view.name, name, &found.cql, &given, cql));
                }
                Some(_) => {}
            }
        }
        let (stored_key, key) = (stored_key_text(stored), layout.key_text());
        if stored_key != key {
            return Err(SinkError::PrimaryKey {
                table: view.name.clone(),
                stored: stored_key,
                given: key,
            });
        }
        let gone = stored
            .iter()
            .filter(|column| layout.find(&column.name).is_none());
        let drop = gone.map(|column| column.name.clone()).collect();
        Ok(Self { add, drop })
    }
}

/// The error of a column that holds another type.
pub(super) fn column_type(
    table: &str,
    column: &str,
    stored: &str,
    given: &str,
    cql: &str,
) -> SinkError {
    SinkError::ColumnType {
        table: table.to_owned(),
        column: column.to_owned(),
        stored: stored.to_owned(),
        given: format!("{given} ({cql})"),
    }
}

/// What stands with a view's table.
pub(super) fn comment(view: &str) -> String {
    format!("view {view} of falaj")
}

/// Says so where a table was not made by falaj.
pub(super) fn made_by_falaj(store: &str, table: &str, stored: &[Stored]) -> Result<(), SinkError> {
    let has = |name: &str, cql: &str| stored.iter().any(|c| c.name == name && c.cql == cql);
    let lack = if !has(KEY, "text") {
        "it has no column `_key` of texts"
    } else if !has(VERSION, "bigint") {
        "it has no column `_version` of numbers"
    } else {
        return Ok(());
    };
    Err(SinkError::ForeignTable {
        table: table.to_owned(),
        store: store.to_owned(),
        lack,
    })
}

/// Names of the partition key's columns, in their order.
pub(super) fn stored_partition(stored: &[Stored]) -> Vec<&str> {
    let mut key: Vec<_> = stored
        .iter()
        .filter_map(|column| match column.part {
            Part::Partition(at) => Some((at, column.name.as_str())),
            _ => None,
        })
        .collect();
    key.sort_unstable();
    key.into_iter().map(|(_, name)| name).collect()
}

/// Names of the clustering columns, in their order.
pub(super) fn stored_clustering(stored: &[Stored]) -> Vec<(&str, Order)> {
    let mut key: Vec<_> = stored
        .iter()
        .filter_map(|column| match column.part {
            Part::Clustering(at, order) => Some((at, column.name.as_str(), order)),
            _ => None,
        })
        .collect();
    key.sort_unstable_by_key(|(at, ..)| *at);
    key.into_iter()
        .map(|(_, name, order)| (name, order))
        .collect()
}

fn stored_key_text(stored: &[Stored]) -> String {
    key_text(
        stored_partition(stored).into_iter(),
        stored_clustering(stored).into_iter(),
    )
}

fn key_text<'a>(
    partition: impl Iterator<Item = &'a str>,
    clustering: impl Iterator<Item = (&'a str, Order)>,
) -> String {
    let partition: Vec<_> = partition.collect();
    let mut parts = vec![format!("({})", partition.join(", "))];
    parts.extend(clustering.map(|(name, order)| match order {
        Order::Ascending => name.to_owned(),
        Order::Descending => format!("{name} DESC"),
    }));
    format!("({})", parts.join(", "))
}

/// `"keyspace"."table"`.
pub(super) fn table(keyspace: &str, table: &str) -> String {
    format!("{}.{}", quoted(keyspace), quoted(table))
}

/// A name as CQL takes it, whatever it is.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use falaj_record::Window;

    use super::*;

    const MINUTE: i64 = 60_000_000;
    const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    /// A column: name, type, whether it is a group, whether it may be NULL.
    type Given = (&'static str, DataType, bool, bool);

    fn view(kind: ViewKind, columns: &[Given], window: Option<(i64, i64)>) -> ViewInfo {
        let column = |(name, data_type, key, nullable): &Given| ViewColumn {
            name: (*name).to_owned(),
            data_type: data_type.clone(),
            key: *key,
            nullable: *nullable,
        };
        ViewInfo {
            name: "v".into(),
            kind,
            columns: columns.iter().map(column).collect(),
            window: window.map(|(size_us, slide_us)| Window {
                size_us,
                slide_us,
                start: columns.iter().position(|c| c.0 == "start"),
                end: columns.iter().position(|c| c.0 == "end"),
            }),
            fields: Vec::new(),
            sql: String::new(),
        }
    }

    fn key(kind: ViewKind, columns: &[Given], window: Option<(i64, i64)>) -> String {
        let layout = Layout::of(&view(kind, columns, window)).expect("it fits");
        layout.key_text()
    }

    const NAT: Given = ("nat", DataType::Utf8, true, false);
    const NAT_OR_NULL: Given = ("nat", DataType::Utf8, true, true);
    const USERS: Given = ("users", DataType::Int64, false, true);
    const START: Given = ("start", TIME, true, false);
    const END: Given = ("end", TIME, true, false);

    #[test]
    fn a_row_is_found_by_its_groups_where_nobody_has_to_ask_for_null() {
        let key = |columns: &[Given]| key(ViewKind::Aggregate, columns, None);
        assert_eq!(key(&[NAT, USERS]), "((nat))");
        assert_eq!(
            key(&[NAT, USERS, ("band", DataType::Int64, true, false)]),
            "((nat, band))"
        );
        assert_eq!(key(&[NAT_OR_NULL, USERS]), "((_key))");
        assert_eq!(
            key(&[NAT, ("band", DataType::Int64, true, true), USERS]),
            "((_key))"
        );
        assert_eq!(
            key(&[("share", DataType::Float64, true, false)]),
            "((_key))"
        );
        assert_eq!(key(&[USERS]), "((_key))");
        assert_eq!(
            key(&[("hour", TIME, true, false), USERS]),
            "((hour), _hour_us)"
        );
    }

    #[test]
    fn the_newest_window_comes_first() {
        let key = |columns: &[Given], window| key(ViewKind::Aggregate, columns, Some(window));
        let minute = (MINUTE, MINUTE);
        assert_eq!(key(&[START, USERS], minute), "((_day), start DESC)");
        assert_eq!(key(&[END, USERS], minute), "((_day), end DESC)");
        assert_eq!(key(&[END, START, USERS], minute), "((_day), start DESC)");
        assert_eq!(key(&[START, NAT, USERS], minute), "((nat), start DESC)");
        assert_eq!(
            key(&[START, NAT_OR_NULL, USERS], minute),
            "((_day), start DESC, _key)"
        );
        assert_eq!(
            key(&[START, USERS], (7 * DAY_US, DAY_US)),
            "((_year), start DESC)"
        );
        assert_eq!(
            key(&[START, ("hour", TIME, true, false)], (1500, 1500)),
            "((hour), start DESC, _start_us DESC, _hour_us)"
        );
    }

    #[test]
    fn a_person_is_found_by_the_pid_where_every_row_has_one() {
        let key = |columns: &[Given]| key(ViewKind::Row, columns, None);
        let pid = |nullable| ("pid", DataType::Utf8, true, nullable);
        assert_eq!(key(&[pid(false), USERS]), "((pid))");
        assert_eq!(key(&[pid(true), USERS]), "((_key))");
        assert_eq!(key(&[USERS]), "((_key))");
        // Under another name erasing would not find it.
        assert_eq!(key(&[("who", DataType::Utf8, true, false)]), "((_key))");
    }

    #[test]
    fn a_time_keeps_its_microseconds_beside_it() {
        let columns = [START, ("seen", TIME, false, true)];
        let view = view(ViewKind::Aggregate, &columns, Some((MINUTE, MINUTE)));
        let layout = Layout::of(&view).expect("it fits");
        let columns: Vec<_> = layout
            .columns
            .iter()
            .map(|c| (c.name.as_str(), c.cql))
            .collect();
        assert_eq!(
            columns,
            [
                ("start", "timestamp"),
                ("seen", "timestamp"),
                ("_seen_us", "smallint"),
                ("_day", "date"),
                ("_key", "text"),
                ("_version", "bigint"),
            ]
        );
    }

    #[test]
    fn statements_name_every_column_once() {
        let columns = [START, NAT_OR_NULL, ("select", DataType::Int64, false, true)];
        let view = view(ViewKind::Aggregate, &columns, Some((MINUTE, MINUTE)));
        let layout = Layout::of(&view).expect("it fits");
        assert_eq!(
            layout.create("k", &view, Some(Duration::from_hours(30 * 24))),
            "CREATE TABLE IF NOT EXISTS \"k\".\"v\" (\"start\" timestamp, \"nat\" text, \
             \"select\" bigint, \"_day\" date, \"_key\" text, \"_version\" bigint, \
             PRIMARY KEY ((\"_day\"), \"start\", \"_key\")) WITH comment = 'view v of falaj' \
             AND CLUSTERING ORDER BY (\"start\" DESC, \"_key\" ASC) \
             AND compaction = {'class': 'TimeWindowCompactionStrategy', \
             'compaction_window_unit': 'DAYS', 'compaction_window_size': 1}"
        );
        assert_eq!(
            layout.insert("k", "v", true),
            "INSERT INTO \"k\".\"v\" (\"start\", \"nat\", \"select\", \"_day\", \"_key\", \
             \"_version\") VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
        );
        assert!(
            layout
                .insert("k", "v", false)
                .ends_with("USING TIMESTAMP ?")
        );
        let names: HashSet<_> = layout.columns.iter().map(|c| &c.name).collect();
        assert_eq!(names.len(), layout.columns.len());
    }

    #[test]
    fn files_hold_people_or_spans_of_time() {
        let compaction = |columns: &[Given], window, hours| {
            let view = view(ViewKind::Aggregate, columns, window);
            let layout = Layout::of(&view).expect("it fits");
            layout.compaction(Some(Duration::from_hours(hours)))
        };
        let minute = Some((MINUTE, MINUTE));
        let spans = |size: &str| compaction(&[START], minute, 24).is_some_and(|c| c.contains(size));
        assert!(spans("'HOURS', 'compaction_window_size': 1}"));
        assert_eq!(compaction(&[NAT], None, 24), None);
        let people = compaction(&[START, ("pid", DataType::Utf8, true, false)], minute, 24);
        assert!(people.is_some_and(|c| c.contains("Leveled")));
    }

    #[test]
    fn people_need_an_index_unless_they_are_the_partition() {
        let layout = |columns: &[Given]| Layout::of(&view(ViewKind::Aggregate, columns, None));
        let needs = |columns: &[Given]| layout(columns).expect("it fits").needs_pid_index();
        let pid = ("pid", DataType::Utf8, true, false);
        assert!(!needs(&[pid.clone(), USERS]));
        assert!(needs(&[pid, NAT]));
        assert!(needs(&[("pid", DataType::Utf8, true, true)]));
        assert!(!needs(&[NAT, USERS]));
    }

    #[test]
    fn names_that_cannot_be_a_tables_are_refused() {
        let mut long = view(ViewKind::Aggregate, &[NAT], None);
        long.name = "n".repeat(TABLE_NAME_MAX + 1);
        let own = view(
            ViewKind::Aggregate,
            &[("_day", DataType::Utf8, true, true)],
            None,
        );
        let twice = view(ViewKind::Aggregate, &[NAT, NAT_OR_NULL], None);
        for (view, cause) in [
            (long, "1 to 222 letters"),
            (own, "`_day` begins with `_`"),
            (twice, "two columns named `nat`"),
        ] {
            let error = Layout::of(&view).expect_err(cause).to_string();
            assert!(error.contains(cause), "{error}");
        }
    }

    fn stored(columns: &[(&str, &str, Part)]) -> Vec<Stored> {
        let stored = |&(name, cql, part): &(&str, &str, Part)| Stored {
            name: name.into(),
            cql: cql.into(),
            part,
        };
        columns.iter().map(stored).collect()
    }

    #[test]
    fn a_table_that_is_there_is_measured_against_its_view() {
        let view = view(ViewKind::Aggregate, &[NAT_OR_NULL, USERS], None);
        let layout = Layout::of(&view).expect("it fits");
        let key = ("_key", "text", Part::Partition(0));
        let version = ("_version", "bigint", Part::None);
        let fit = |columns: &[_]| Fit::of("store", &view, &layout, &stored(columns));

        let fits = fit(&[
            key,
            version,
            ("nat", "text", Part::None),
            ("age", "int", Part::None),
        ]);
        let fits = fits.map(|fit| (fit.add, fit.drop));
        assert_eq!(
            fits,
            Ok((vec![("users".into(), "bigint")], vec!["age".into()]))
        );

        let text = |result: Result<Fit, SinkError>| match result {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        assert!(text(fit(&[version])).contains("no column `_key`"));
        assert!(text(fit(&[key])).contains("no column `_version`"));
        assert!(
            text(fit(&[key, version, ("users", "text", Part::None)]))
                .contains("`users` of table `v` holds text, but the view gives bigint (bigint)")
        );
        let other = [
            ("nat", "text", Part::Partition(0)),
            ("_key", "text", Part::Clustering(0, Order::Descending)),
            version,
        ];
        assert!(text(fit(&other)).contains("((nat), _key DESC), but the view needs ((_key))"));
    }
}

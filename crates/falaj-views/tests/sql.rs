//! Runs `tests/sql/*.sql`: each file is a view, the records it gets and the rows it must have.
//!
//! A case runs in one batch, record by record, and in random batches with random drains, interleaved
//! partitions and restarts from checkpoints; all must give what the file says. The format stands in
//! `tests/sql/README.md`. `UPDATE=1` writes what the first run gives into the file: read it over then.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use falaj_record::{At, Hint, Period, Value, ViewKind, ViewUpdate};
use falaj_views::{ViewOptions, ViewSpec, Views};
use records::{Decoding, Record};
use serde_json::json;

/// Size at which sets of people stop growing.
const PEOPLE: usize = 3;
/// Random runs of each case.
const SEEDS: u64 = 12;
/// Event time of records that give none: 2026-01-01.
const TIME_MS: i64 = 1_767_225_600_000;

/// One file, taken apart.
struct Case {
    path: PathBuf,
    title: Vec<String>,
    fields: Vec<(String, String)>,
    lateness: Duration,
    partitions: i32,
    others: Vec<ViewSpec>,
    steps: Vec<Step>,
    /// The header's lines that say what goes in.
    given: Vec<String>,
    /// The header's lines that say what comes out.
    golden: Vec<String>,
    sql: String,
}

#[derive(Clone)]
enum Step {
    Record(Record),
    Idle(BTreeSet<i32>),
    Expire,
}

/// What a run ends with.
#[derive(Debug, Clone, Default, PartialEq)]
struct Outcome {
    columns: String,
    rows: BTreeMap<String, (serde_json::Value, Option<u32>)>,
    fold: Option<serde_json::Value>,
    ledger: Option<serde_json::Value>,
    late: BTreeSet<(i32, i64)>,
    expired: BTreeSet<String>,
    error: Option<String>,
}

/// How records are cut into batches.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Single,
    Random(u64),
}

#[test]
fn every_case_gives_its_rows_however_it_is_cut_and_restarted() {
    let mut failures = Vec::new();
    for path in files("") {
        let case = Case::read(&path);
        let whole = case.run(Cut::Whole);
        case.check(&whole.lines(), &mut failures);
        let cuts = std::iter::once(Cut::Single).chain((0..SEEDS).map(Cut::Random));
        for cut in cuts {
            let outcome = case.run(cut);
            if !outcome.about(&whole) {
                failures.push(format!(
                    "{}: {cut:?} gives\n{}\nand not\n{}",
                    path.display(),
                    outcome.lines().join("\n"),
                    whole.lines().join("\n")
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_refused_text_gives_its_message() {
    let mut failures = Vec::new();
    for path in files("refused") {
        let mut case = Case::read(&path);
        if case.fields.is_empty() {
            let fields = "nat string, gender string, age int, score float, vip bool";
            case.fields = read_fields(fields);
        }
        let schema = Decoding::new(&case.fields);
        let lines = match Views::plan(schema.schema(), &case.specs(), &case.options()) {
            Ok(_) => vec!["accepted".to_owned()],
            Err(errors) => errors
                .iter()
                .flat_map(|e| {
                    let place = format!("{} {}:{}: {}", e.view, e.line, e.column, e.message);
                    let hint = e.hint().map(|hint| format!("hint: {hint}"));
                    std::iter::once(place).chain(hint)
                })
                .collect(),
        };
        case.check(&lines, &mut failures);
        assert_ne!(case.golden, ["accepted"], "{}", path.display());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("FALAJ_CHECKOUT"))
        .join("tests/sql")
        .join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are cases");
    files
}

fn read_fields(text: &str) -> Vec<(String, String)> {
    let field = |f: &str| {
        let (name, kind) = f.trim().split_once(' ').expect("`name type`");
        (name.to_owned(), kind.to_owned())
    };
    text.split(',').map(field).collect()
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a case");
        let header: Vec<&str> = text.lines().take_while(|l| l.starts_with("--")).collect();
        let sql = text
            .lines()
            .skip(header.len())
            .collect::<Vec<_>>()
            .join("\n");
        let mut case = Self {
            path: path.to_owned(),
            title: Vec::new(),
            fields: Vec::new(),
            lateness: Duration::from_secs(10),
            partitions: 1,
            others: Vec::new(),
            steps: Vec::new(),
            given: Vec::new(),
            golden: Vec::new(),
            sql,
        };
        let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
        let mut golden = false;
        for line in header {
            let text = line.trim_start_matches("--").trim();
            if text == "gives:" {
                golden = true;
                continue;
            }
            if golden {
                case.golden.push(text.to_owned());
                continue;
            }
            let given = case.given.len();
            case.given.push(line.to_owned());
            match text.split_once(':') {
                Some(("fields", fields)) => case.fields = read_fields(fields),
                Some(("lateness", p)) => {
                    case.lateness = p.trim().parse::<Period>().expect("a period").0;
                }
                Some(("partitions", n)) => case.partitions = n.trim().parse().expect("a number"),
                Some(("view", view)) => {
                    let (name, sql) = view.trim().split_once(" AS ").expect("`name AS sql`");
                    case.others.push(ViewSpec {
                        name: name.into(),
                        sql: sql.into(),
                    });
                }
                Some(("idle", list)) => {
                    let idle = serde_json::from_str(list).expect("a list of partitions");
                    case.steps.push(Step::Idle(idle));
                }
                Some(("expire", _)) => case.steps.push(Step::Expire),
                _ if text.starts_with('{') => {
                    case.steps
                        .push(Step::Record(read_record(text, &mut offsets)));
                }
                _ => {
                    case.given.truncate(given);
                    case.title.push(line.to_owned());
                }
            }
        }
        case
    }

    fn specs(&self) -> Vec<ViewSpec> {
        let own = ViewSpec {
            name: "v".into(),
            sql: self.sql.clone(),
        };
        std::iter::once(own).chain(self.others.clone()).collect()
    }

    fn options(&self) -> ViewOptions {
        ViewOptions {
            lateness: self.lateness,
            people: PEOPLE,
            partitions: self.partitions,
            pid_required: true,
        }
    }

    /// Compares with the file, or writes it.
    fn check(&self, lines: &[String], failures: &mut Vec<String>) {
        if lines == self.golden {
            return;
        }
        if std::env::var_os("UPDATE").is_some() {
            let mut text = String::new();
            for line in self.title.iter().chain(&self.given) {
                writeln!(text, "{line}").expect("a text");
            }
            text.push_str("-- gives:\n");
            for line in lines {
                writeln!(text, "--   {line}").expect("a text");
            }
            writeln!(text, "{}", self.sql).expect("a text");
            std::fs::write(&self.path, text).expect("a case is written");
            return;
        }
        failures.push(format!(
            "{} gives\n{}\nand says\n{}",
            self.path.display(),
            lines.join("\n"),
            self.golden.join("\n")
        ));
    }

    fn run(&self, cut: Cut) -> Outcome {
        let mut run = Run::new(self, cut);
        let error = run.steps().err();
        if let Some(error) = error {
            return Outcome {
                error: Some(error.to_string()),
                columns: run.outcome.columns,
                ..Outcome::default()
            };
        }
        run.outcome
    }
}

/// A record: `at`, `partition` and the fields; short pids are made as long as real ones.
fn read_record(text: &str, offsets: &mut BTreeMap<i32, i64>) -> Record {
    let mut value: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let partition = value
        .remove("partition")
        .and_then(|p| p.as_i64())
        .unwrap_or(0);
    let partition = i32::try_from(partition).expect("a partition");
    let time_ms = match value.remove("at") {
        None => TIME_MS,
        Some(at) => time(at.as_str().expect("a time")),
    };
    if let Some(serde_json::Value::String(pid)) = value.get_mut("pid") {
        *pid = format!("{pid:z<26}");
    }
    let next = offsets.entry(partition).or_default();
    *next += 1;
    Record {
        partition,
        offset: *next - 1,
        time_ms,
        value: serde_json::Value::Object(value).to_string(),
    }
}

/// `hh:mm:ss[.mmm]` of the first of January 2026, or milliseconds since 1970.
fn time(text: &str) -> i64 {
    if let Ok(ms) = text.parse() {
        return ms;
    }
    let (whole, ms) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<i64> = whole
        .split(':')
        .map(|p| p.parse().expect("digits"))
        .collect();
    let [h, m, s] = parts.as_slice() else {
        panic!("a time is hh:mm:ss");
    };
    TIME_MS + ((h * 60 + m) * 60 + s) * 1000 + ms.parse::<i64>().expect("digits")
}

struct Run<'a> {
    case: &'a Case,
    cut: Cut,
    dice: Dice,
    decoding: Decoding,
    views: Views,
    /// A checkpoint does not hold which partitions are idle.
    idle: BTreeSet<i32>,
    version: i64,
    recent: BTreeMap<String, BTreeSet<u64>>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, cut: Cut) -> Self {
        let decoding = Decoding::new(&case.fields);
        let views = case.plan(&decoding);
        let info = &views.info()[0];
        let columns: Vec<String> = info
            .columns
            .iter()
            .map(|c| {
                format!(
                    "{} {}{}",
                    c.name,
                    c.type_name(),
                    if c.key { " key" } else { "" }
                )
            })
            .collect();
        let outcome = Outcome {
            columns: columns.join(", "),
            ..Outcome::default()
        };
        let seed = match cut {
            Cut::Random(seed) => seed,
            _ => 0,
        };
        Self {
            case,
            cut,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            decoding,
            views,
            idle: BTreeSet::new(),
            version: 0,
            recent: BTreeMap::new(),
            outcome,
        }
    }

    fn steps(&mut self) -> Result<(), falaj_views::ViewsError> {
        let mut waiting: Vec<Record> = Vec::new();
        for step in &self.case.steps {
            match step {
                Step::Record(record) => {
                    waiting.push(record.clone());
                }
                Step::Idle(idle) => {
                    self.push(std::mem::take(&mut waiting))?;
                    self.idle.clone_from(idle);
                    self.views.set_idle(idle);
                }
                Step::Expire => {
                    self.push(std::mem::take(&mut waiting))?;
                    self.drain()?;
                    for (view, keys) in self.views.expire()? {
                        if view == "v" {
                            self.outcome.expired.extend(keys);
                        }
                    }
                    self.restart()?;
                }
            }
        }
        self.push(waiting)?;
        self.drain()?;
        self.restart()?;
        self.compare_with_all()?;
        let ledger = self.views.ledger();
        self.outcome.ledger = ledger.get("v").map(|l| json!(l));
        for reject in self.views.take_late(0) {
            if let At::Topic { partition, offset } = reject.at {
                assert!(
                    self.outcome.late.insert((partition, offset)),
                    "each late record once"
                );
            }
        }
        Ok(())
    }

    fn push(&mut self, mut records: Vec<Record>) -> Result<(), falaj_views::ViewsError> {
        if matches!(self.cut, Cut::Random(_)) {
            records = self.dice.interleave(records);
        }
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let size = match self.cut {
                Cut::Whole => rest.len(),
                Cut::Single => 1,
                Cut::Random(_) => 1 + self.dice.below(rest.len()),
            };
            let (now, later) = rest.split_at(size);
            rest = later;
            let batch = self.decoding.batch(now);
            self.views.push(&batch)?;
            match self.cut {
                Cut::Whole => {}
                Cut::Single => self.drain()?,
                Cut::Random(_) => {
                    if self.dice.below(2) == 0 {
                        self.drain()?;
                    }
                    if self.dice.below(3) == 0 {
                        self.restart()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on from a checkpoint, as after a kill.
    fn restart(&mut self) -> Result<(), falaj_views::ViewsError> {
        if !matches!(self.cut, Cut::Random(_)) {
            return Ok(());
        }
        let bytes = self.views.checkpoint()?;
        let again = self.views.checkpoint()?;
        assert_eq!(bytes, again, "a checkpoint changes nothing");
        let mut views = self.case.plan(&self.decoding);
        views.restore(&bytes, &BTreeSet::new())?;
        views.set_idle(&self.idle);
        self.views = views;
        Ok(())
    }

    fn drain(&mut self) -> Result<(), falaj_views::ViewsError> {
        self.version += 1;
        for update in self.views.drain(self.version)? {
            assert_eq!(update.version, self.version);
            if update.view.name == "v" {
                self.upsert(&update);
            }
        }
        Ok(())
    }

    fn upsert(&mut self, update: &ViewUpdate) {
        let mut keys = BTreeSet::new();
        for (row, (key, values)) in rows(update).into_iter().enumerate() {
            assert!(keys.insert(key.clone()), "each key once an update");
            let people = update.people.as_ref().map(|people| {
                let list = people.recent.value(row);
                let recent = self.recent.entry(key.clone()).or_default();
                recent.extend(list.as_primitive::<UInt64Type>().values());
                let count = people.count[row];
                let known = recent.len().min(PEOPLE);
                assert_eq!(known, count as usize, "people of all drains are the people");
                count
            });
            self.outcome.rows.insert(key, (values, people));
        }
    }

    /// All rows of the state are the rows of all updates, less those of expired windows.
    fn compare_with_all(&mut self) -> Result<(), falaj_views::ViewsError> {
        if self.views.info()[0].kind == ViewKind::Row {
            return Ok(());
        }
        let mut all = BTreeMap::new();
        for update in self.views.all(self.version + 1)? {
            if update.view.name == "v" {
                all.extend(rows(&update));
            }
        }
        let open = |key: &&String| !self.outcome.expired.contains(*key);
        let keys: Vec<String> = self.outcome.rows.keys().filter(open).cloned().collect();
        assert_eq!(all.keys().cloned().collect::<Vec<_>>(), keys);
        for (key, values) in &all {
            assert!(about(values, &self.outcome.rows[key].0), "{values}");
        }
        let nothing = self.views.fold("v", &["other".into(), "[]]".into()])?;
        assert_eq!(nothing, None, "no group has these keys");
        self.outcome.fold = self
            .views
            .fold("v", &keys)?
            .map(|values| values.iter().map(Value::json).collect());
        Ok(())
    }
}

impl Case {
    fn plan(&self, decoding: &Decoding) -> Views {
        Views::plan(decoding.schema(), &self.specs(), &self.options())
            .unwrap_or_else(|errors| panic!("{}: {errors:#?}", self.path.display()))
    }
}

/// Keys and values of an update, with short pids.
fn rows(update: &ViewUpdate) -> Vec<(String, serde_json::Value)> {
    let short = |text: &str| text.trim_end_matches('z').to_owned();
    (0..update.rows.num_rows())
        .map(|row| {
            let values = update.view.columns.iter().zip(update.rows.columns());
            let values = values
                .map(|(column, values)| match Value::at(values, row).json() {
                    serde_json::Value::String(text) if column.name == "pid" => short(&text).into(),
                    value => value,
                })
                .collect();
            (
                short(update.keys.value(row)),
                serde_json::Value::Array(values),
            )
        })
        .collect()
}

impl Outcome {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("columns: {}", self.columns)];
        for (key, (values, people)) in &self.rows {
            let people = people.map_or(String::new(), |n| format!("  people {n}"));
            lines.push(format!("{key}  {values}{people}"));
        }
        lines.extend(self.fold.as_ref().map(|fold| format!("fold: {fold}")));
        lines.extend(
            self.ledger
                .as_ref()
                .map(|ledger| format!("ledger: {ledger}")),
        );
        if !self.late.is_empty() {
            let late: Vec<String> = self.late.iter().map(|(p, o)| format!("{p}/{o}")).collect();
            lines.push(format!("late: {}", late.join(" ")));
        }
        if !self.expired.is_empty() {
            let expired: Vec<&str> = self.expired.iter().map(String::as_str).collect();
            lines.push(format!("expired: {}", expired.join(" ")));
        }
        lines.extend(self.error.as_ref().map(|error| format!("error: {error}")));
        lines
    }

    /// Whether two outcomes are the same but for the last digits of floats.
    fn about(&self, other: &Self) -> bool {
        let same = |a: &Option<serde_json::Value>, b: &Option<serde_json::Value>| match (a, b) {
            (Some(a), Some(b)) => about(a, b),
            (None, None) => true,
            _ => false,
        };
        let mut rows = self.rows.iter().zip(&other.rows);
        self.rows.len() == other.rows.len()
            && rows.all(|((k, (a, p)), (l, (b, q)))| k == l && p == q && about(a, b))
            && same(&self.fold, &other.fold)
            && self.columns == other.columns
            && self.ledger == other.ledger
            && self.late == other.late
            && self.expired == other.expired
            && self.error == other.error
    }
}

/// Whether two values are the same but for the last digits of floats.
fn about(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    match (a, b) {
        (serde_json::Value::Array(a), serde_json::Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(v, w)| about(v, w))
        }
        (serde_json::Value::Number(a), serde_json::Value::Number(b)) if a.is_f64() => {
            let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) else {
                return false;
            };
            (a - b).abs() <= a.abs().max(b.abs()) * 1e-12
        }
        _ => a == b,
    }
}

/// Small seeded randomness (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).expect("small")
    }

    /// Another order that keeps the order within each partition.
    fn interleave(&mut self, records: Vec<Record>) -> Vec<Record> {
        let mut parts: BTreeMap<i32, std::collections::VecDeque<Record>> = BTreeMap::new();
        for record in records {
            parts.entry(record.partition).or_default().push_back(record);
        }
        let mut parts: Vec<_> = parts.into_values().collect();
        let mut mixed = Vec::new();
        while !parts.is_empty() {
            let at = self.below(parts.len());
            mixed.extend(parts[at].pop_front());
            parts.retain(|part| !part.is_empty());
        }
        mixed
    }
}

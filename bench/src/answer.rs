//! What the views must say, to compare a scenario's result with the floor's.

use std::collections::BTreeMap;
use std::path::Path;

use falaj_record::{Value, ViewUpdate};
use falaj_views::Views;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

/// Results of the three aggregate views.
#[derive(Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub nations: BTreeMap<String, i64>,
    pub domains: BTreeMap<String, i64>,
    /// Records in all windows.
    pub users: i64,
    /// The sum of all ages, in whole years.
    pub years: i64,
}

impl Answer {
    /// Reads all rows of `views`.
    pub fn of(views: &mut Views, version: i64) -> Self {
        let mut answer = Self::default();
        for update in views.all(version).expect("views give rows") {
            match update.view.name.as_str() {
                "users_by_nationality" => answer.nations = counts(&update),
                "email_domains" => answer.domains = counts(&update),
                "average_age" => answer.windows(&update),
                _ => {}
            }
        }
        answer
    }

    /// Reads what the embedded sink holds in `file`; an error while its tables are not there.
    pub fn of_store(file: &Path) -> rusqlite::Result<Self> {
        let store = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let counts = |sql| -> rusqlite::Result<BTreeMap<String, i64>> {
            let mut rows = store.prepare(sql)?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let mut answer = Self {
            nations: counts("SELECT nat, users FROM users_by_nationality")?,
            domains: counts("SELECT email_domain, users FROM email_domains")?,
            ..Self::default()
        };
        let mut windows = store.prepare("SELECT average_age, users FROM average_age")?;
        let windows = windows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for window in windows {
            let (average, users) = window?;
            answer.window(average, users);
        }
        Ok(answer)
    }

    fn windows(&mut self, update: &ViewUpdate) {
        for row in 0..update.rows.num_rows() {
            let Value::Float(average) = value(update, 1, row) else {
                panic!("an average")
            };
            self.window(average, int(update, 2, row));
        }
    }

    fn window(&mut self, average: f64, users: i64) {
        self.users += users;
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 records")]
        let years = (average * users as f64).round();
        #[expect(clippy::cast_possible_truncation, reason = "ages are small")]
        let years = years as i64;
        self.years += years;
    }

    /// Whether every record is in each of the three results.
    pub fn is_of(&self, records: u64) -> bool {
        let all = [
            self.nations.values().sum(),
            self.domains.values().sum(),
            self.users,
        ];
        all.iter()
            .all(|sum: &i64| u64::try_from(*sum) == Ok(records))
    }
}

fn counts(update: &ViewUpdate) -> BTreeMap<String, i64> {
    let row = |row| {
        let Value::Text(group) = value(update, 0, row) else {
            panic!("a text")
        };
        (group, int(update, 1, row))
    };
    (0..update.rows.num_rows()).map(row).collect()
}

fn int(update: &ViewUpdate, column: usize, row: usize) -> i64 {
    let Value::Int(int) = value(update, column, row) else {
        panic!("a number")
    };
    int
}

fn value(update: &ViewUpdate, column: usize, row: usize) -> Value {
    Value::at(update.rows.column(column), row)
}

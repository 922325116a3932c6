//! What the views must say, to compare a scenario's result with the floor's.

use std::collections::BTreeMap;

use falaj_record::{Value, ViewUpdate};
use falaj_views::Views;
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

    fn windows(&mut self, update: &ViewUpdate) {
        for row in 0..update.rows.num_rows() {
            let Value::Float(average) = value(update, 1, row) else {
                panic!("an average")
            };
            let users = int(update, 2, row);
            self.users += users;
            #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 records")]
            let years = (average * users as f64).round();
            #[expect(clippy::cast_possible_truncation, reason = "ages are small")]
            let years = years as i64;
            self.years += years;
        }
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

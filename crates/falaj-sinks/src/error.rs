use falaj_record::{Hint, ViewInfo};

/// What can go wrong with a sink. No variant holds a value of a row: a driver's message may quote
/// one, so only its code is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The store's file or address cannot be opened.
    #[error("cannot open the store `{store}`: {cause}")]
    Open {
        /// Path or address.
        store: String,
        /// The system's or the driver's words for the code.
        cause: String,
    },
    /// Nobody answers at the address, or the network or the store gave up.
    #[error("the store `{store}` cannot be reached: {cause}")]
    Unreachable {
        /// Address.
        store: String,
        /// The system's or the driver's words for the code.
        cause: String,
    },
    /// The store does not take the user or the password.
    #[error("the store `{store}` refuses the login")]
    Login {
        /// Address.
        store: String,
    },
    /// The user may not do what has to be done.
    #[error("the store `{store}` does not let falaj {what}")]
    Forbidden {
        /// Address.
        store: String,
        /// What was to be done, as a verb: "make the keyspace `falaj`".
        what: String,
    },
    /// A keyspace, database or table that falaj may not or should not make.
    #[error("{what} is missing in the store `{store}`")]
    Missing {
        /// What, with its name: "keyspace `falaj`".
        what: String,
        /// Address.
        store: String,
    },
    /// A setting of the sink that cannot be used.
    #[error("`{key}` of the sink cannot be used: {cause}")]
    Setting {
        /// The key in `[sinks.NAME]`.
        key: &'static str,
        /// Why; a secret's name, never the secret.
        cause: String,
    },
    /// The file is something else.
    #[error("`{store}` is not a SQLite database")]
    NotADatabase {
        /// Path.
        store: String,
    },
    /// The store cannot be written.
    #[error("the store `{store}` is read-only")]
    ReadOnly {
        /// Path or address.
        store: String,
    },
    /// No space is left.
    #[error("no space is left for the store `{store}`")]
    Full {
        /// Path or address.
        store: String,
    },
    /// Another program holds a lock for longer than the sink waits.
    #[error("the store `{store}` is locked by another program")]
    Locked {
        /// Path or address.
        store: String,
    },
    /// The file is no longer where it was opened.
    #[error("the store `{store}` was moved, replaced or removed while falaj had it open")]
    Moved {
        /// Path.
        store: String,
    },
    /// A table of the view's name was made by somebody else.
    #[error("table `{table}` in `{store}` was not made by falaj: {lack}")]
    ForeignTable {
        /// Table, named like the view.
        table: String,
        /// Path or address.
        store: String,
        /// What it lacks.
        lack: &'static str,
    },
    /// A table of the view's name holds rows of another life of the pipeline, or of another one.
    #[error("{} rows that this pipeline did not write", holding(tables, store))]
    ForeignRows {
        /// Tables, named like the views; at least one.
        tables: Vec<String>,
        /// Path or address.
        store: String,
    },
    /// A column holds another type than the view gives now.
    #[error("column `{column}` of table `{table}` holds {stored}, but the view gives {given}")]
    ColumnType {
        /// Table, named like the view.
        table: String,
        /// Column.
        column: String,
        /// Type in the store.
        stored: String,
        /// Type of the view's column.
        given: String,
    },
    /// A table whose primary key is not the one that the view asks for.
    #[error("table `{table}` has the primary key {stored}, but the view needs {given}")]
    PrimaryKey {
        /// Table, named like the view.
        table: String,
        /// Primary key in the store.
        stored: String,
        /// Primary key for the view.
        given: String,
    },
    /// A view or column that this store cannot hold.
    #[error("view `{view}` cannot be kept in a {kind} store: {cause}")]
    Unfit {
        /// View.
        view: String,
        /// Kind of the sink.
        kind: &'static str,
        /// Why, with the column's name where it is one.
        cause: String,
    },
    /// An update of a view that was not prepared.
    #[error("view `{view}` was not prepared in the sink")]
    UnknownView {
        /// View.
        view: String,
    },
    /// An update whose columns are not those of its view.
    #[error("rows for view `{view}` do not have its columns")]
    Shape {
        /// View.
        view: String,
    },
    /// An update with a smaller version than an earlier one of its view.
    #[error("an update of view `{view}` came after a newer one")]
    Order {
        /// View.
        view: String,
    },
    /// The store said no in another way.
    #[error("the store `{store}` failed: {cause}")]
    Store {
        /// Path or address.
        store: String,
        /// The driver's fixed text for its code.
        cause: String,
    },
    /// The sink no longer works: it was closed, or its task ended.
    #[error("sink `{sink}` is closed")]
    Closed {
        /// Name or kind.
        sink: String,
    },
    /// Saved updates cannot be used.
    #[error("the saved updates of a sink cannot be used: {cause}")]
    Saved {
        /// What is wrong with them.
        cause: String,
    },
}

impl SinkError {
    /// An update has other columns than `view` had when it was prepared.
    pub(crate) fn shape(view: &ViewInfo) -> Self {
        let view = view.name.clone();
        Self::Shape { view }
    }

    /// Whether it may pass without anybody changing the pipeline file or the store: falaj starts
    /// all the same, and tries again.
    #[must_use]
    pub fn passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Full { .. } | Self::Locked { .. } | Self::Store { .. }
        )
    }
}

/// `table .. in .. holds`, of one or of several.
fn holding(tables: &[String], store: &str) -> String {
    let names: Vec<_> = tables.iter().map(|table| format!("`{table}`")).collect();
    let names = names.join(", ");
    match tables {
        [_] => format!("table {names} in `{store}` holds"),
        _ => format!("tables {names} in `{store}` hold"),
    }
}

impl Hint for SinkError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Open { .. } => Some(
                "make the folder, or point `path` of the sink to one that can be written".into(),
            ),
            Self::Unreachable { .. } => Some(
                "start the store, or correct its address in the sink; falaj keeps what is pending and tries again".into(),
            ),
            Self::Login { .. } => Some("correct `user` and `password` of the sink".into()),
            Self::Forbidden { .. } => Some(
                "give the sink's user that right, or make it by hand and set `create = false`".into(),
            ),
            Self::Missing { .. } => {
                Some("make it, or leave `create = false` out of the sink".into())
            }
            Self::Setting { key, .. } => Some(format!("correct `{key}` of the sink")),
            Self::NotADatabase { .. } => {
                Some("point `path` of the sink to another file, or move this one away".into())
            }
            Self::ReadOnly { store } => Some(format!(
                "give the user that runs falaj the right to write `{store}`"
            )),
            Self::Full { .. } => {
                Some("make room on the disk; falaj keeps what is pending and tries again".into())
            }
            Self::Locked { .. } => {
                Some("end the other program's transaction; falaj tries again".into())
            }
            Self::Moved { .. } => {
                Some("put the file back, or start falaj again: it fills an empty store anew".into())
            }
            Self::ForeignTable { table, .. } => Some(format!(
                "rename the view or the table `{table}`, or give the sink another store"
            )),
            Self::ForeignRows { tables, .. } => Some(format!(
                "they are of another pipeline, topic, key or SQL: start with `--rebuild {}`, which makes {} anew, or give the sink another store",
                tables.join(" --rebuild "),
                if tables.len() == 1 { "the table" } else { "the tables" },
            )),
            Self::ColumnType { table, .. } => Some(format!(
                "start with `--rebuild {table}`, which makes the table anew, or name the column differently"
            )),
            Self::PrimaryKey { table, .. } => Some(format!(
                "start with `--rebuild {table}`, which makes the table anew"
            )),
            Self::Unfit { .. } => Some("rename it in the pipeline file".into()),
            Self::Saved { .. } => Some("start with `--rebuild` for the views that changed".into()),
            Self::UnknownView { .. }
            | Self::Shape { .. }
            | Self::Order { .. }
            | Self::Store { .. }
            | Self::Closed { .. } => None,
        }
    }
}

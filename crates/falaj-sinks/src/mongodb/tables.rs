//! Collections: how they are made, kept up with their views, looked at, and let go of.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use falaj_record::{Column, PID, ViewInfo, ViewUpdate};
use mongodb::bson::raw::CString;
use mongodb::bson::{Binary, Bson, Document, doc};

use super::NAME;
use super::cells::{Cells, declared};
use super::fault::{Fault, NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND};
use super::server::{Server, documents};
use crate::{Prepared, Retention, SinkError, Standing, Terms, check_shape, now_us};

/// The collection that says which others falaj made.
const REGISTER: &str = "_falaj";
/// Fields of falaj's own, which no column may be named like.
const OWN_FIELDS: [&str; 5] = ["_id", KEY, VERSION, EXPIRES, MICROS];
/// The row's key.
pub(super) const KEY: &str = "_key";
/// The version of its last write.
pub(super) const VERSION: &str = "_version";
/// When its retention is over.
pub(super) const EXPIRES: &str = "_expires";
/// Microseconds that Dates have no room for.
pub(super) const MICROS: &str = "_micros";
/// What falaj's indexes begin with.
const INDEX_PREFIX: &str = "falaj_";
/// Longest name of a collection with its database, in bytes.
const NAMESPACE_BYTES_MAX: usize = 255;
/// Most entries of a list of collections or indexes that is read at once.
const LIST_MAX: i32 = 100_000;

/// A view's collection.
pub(super) struct Table {
    pub(super) view: Arc<ViewInfo>,
    /// Names of its columns as BSON has them.
    pub(super) names: Vec<CString>,
    /// How long rows are kept after their last write.
    pub(super) kept: Option<Duration>,
    /// The server's mark of the collection that was prepared.
    uuid: Option<Binary>,
}

impl Table {
    /// The columns of an update that fits the view.
    pub(super) fn cells<'a>(&self, update: &'a ViewUpdate) -> Result<Vec<Cells<'a>>, SinkError> {
        check_shape(&self.view, update, declared)?;
        let columns = update.rows.columns().iter();
        columns
            .map(|column| Cells::of(column).ok_or_else(|| SinkError::shape(&self.view)))
            .collect()
    }
}

/// What the register says about a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Names and types.
    columns: Vec<(String, String)>,
    /// Retention that `_expires` was made with.
    kept_ms: Option<i64>,
    /// Whose rows it holds, and of which filling.
    mark: Option<String>,
    /// The server's mark of the collection, where it gives one. A collection that is dropped and
    /// made again by the next row has another.
    uuid: Option<Binary>,
}

impl Entry {
    fn of(view: &ViewInfo, columns: &[(&str, &str)], retention: &Retention) -> Self {
        let owned = |(name, kind): &(&str, &str)| ((*name).to_owned(), (*kind).to_owned());
        Self {
            columns: columns.iter().map(owned).collect(),
            kept_ms: retention.get(&view.name).map(|kept| millis(*kept)),
            mark: None,
            uuid: None,
        }
    }

    fn read(document: &Document) -> Self {
        let column = |column: &Document| {
            let text = |key| column.get_str(key).unwrap_or_default().to_owned();
            (text("name"), text("type"))
        };
        Self {
            columns: documents(document, "columns").map(column).collect(),
            kept_ms: document.get_i64("retention_ms").ok(),
            mark: document.get_str("owner").ok().map(str::to_owned),
            uuid: uuid(document),
        }
    }

    fn document(&self, view: &str) -> Document {
        let column = |(name, kind): &(String, String)| doc! { "name": name, "type": kind };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        let mut document = doc! {
            "_id": view,
            "made_by": "falaj",
            "columns": columns,
            "retention_ms": self.kept_ms,
        };
        if let Some(mark) = &self.mark {
            document.insert("owner", mark);
        }
        if let Some(uuid) = &self.uuid {
            document.insert("uuid", uuid.clone());
        }
        document
    }

    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|(known, _)| known == name)
    }
}

/// What was found of a view before anything is changed.
pub(super) struct Found {
    /// Its columns with their types.
    wanted: Entry,
    /// The collection's entry in the register.
    entry: Option<Entry>,
    /// The collection, where it is there.
    made: Option<Made>,
    /// Whether it is another collection than the one that was prepared, so that rows of before are
    /// missing in it, whatever it holds.
    anew: bool,
    /// Names and keys of its indexes.
    indexes: Vec<Index>,
}

/// A collection that is there.
struct Made {
    /// What makes it unfit for rows.
    lack: Option<&'static str>,
    uuid: Option<Binary>,
}

/// An index of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    name: String,
    /// What it is on.
    pub(super) field: String,
    /// Whether documents expire by it, at the time that its field holds.
    expiring: bool,
}

impl Index {
    fn on(field: &str) -> Self {
        Self {
            name: format!("{INDEX_PREFIX}{}", field.trim_start_matches('_')),
            field: field.to_owned(),
            expiring: field == EXPIRES,
        }
    }

    /// An index of one field, as the server lists it.
    fn read(listed: &Document) -> Option<Self> {
        let keys = listed.get_document("key").ok()?;
        let (field, _) = keys.iter().next().filter(|_| keys.len() == 1)?;
        Some(Self {
            name: listed.get_str("name").ok()?.to_owned(),
            field: field.clone(),
            expiring: match listed.get("expireAfterSeconds") {
                Some(Bson::Int32(seconds)) => *seconds == 0,
                Some(Bson::Int64(seconds)) => *seconds == 0,
                Some(Bson::Double(seconds)) => *seconds == 0.0,
                _ => false,
            },
        })
    }

    /// Whether it does what `wanted` is for, whatever it is called.
    fn does_as(&self, wanted: &Self) -> bool {
        self.field == wanted.field && self.expiring == wanted.expiring
    }

    fn document(&self) -> Document {
        let mut document = doc! { "key": { &self.field: 1 }, "name": &self.name };
        if self.expiring {
            document.insert("expireAfterSeconds", 0);
        }
        document
    }
}

impl Found {
    /// Indexes that are not there, whatever others are called.
    pub(super) fn missing(&self, view: &ViewInfo) -> Vec<Index> {
        let mut wanted: Vec<_> = view
            .columns
            .iter()
            .filter(|column| column.key || column.name == PID)
            .map(|column| Index::on(&column.name))
            .collect();
        wanted.extend(self.wanted.kept_ms.map(|_| Index::on(EXPIRES)));
        wanted.retain(|index| !self.indexes.iter().any(|other| other.does_as(index)));
        wanted
    }

    /// Indexes of falaj's own on fields that are no more.
    fn stale(&self) -> impl Iterator<Item = &Index> {
        self.indexes.iter().filter(|index| {
            let wanted = match index.field.as_str() {
                EXPIRES => self.wanted.kept_ms.is_some(),
                field => self.wanted.has(field),
            };
            index.name.starts_with(INDEX_PREFIX) && !wanted
        })
    }

    /// Columns that the view no longer has.
    fn dropped(&self) -> impl Iterator<Item = &str> {
        let columns = self.entry.iter().flat_map(|entry| &entry.columns);
        let names = columns.map(|(name, _)| name.as_str());
        names.filter(|name| !self.wanted.has(name))
    }
}

/// Makes or evolves a collection for each view. `ours` are those that held rows of this very sink.
pub(super) async fn prepare(
    server: &Server,
    views: &[Arc<ViewInfo>],
    terms: &Terms,
    ours: &HashSet<String>,
    create: bool,
) -> Result<(HashMap<String, Table>, Prepared), SinkError> {
    let found = look(server, views, &terms.retention, ours).await?;
    // Everything is looked at before anything is changed.
    let standings = standings(server, views, &found, terms).await?;
    for (view, found) in views.iter().zip(&found) {
        if let Some(error) = unusable(server, view, found, create).into_iter().next() {
            return Err(error);
        }
    }
    let mut tables = HashMap::new();
    let mut prepared = Prepared::default();
    for ((view, found), standing) in views.iter().zip(&found).zip(&standings) {
        let name = &view.name;
        let mark = match standing {
            Standing::New(filling) => Some(terms.mark(name, filling)),
            _ => found.entry.as_ref().and_then(|entry| entry.mark.clone()),
        };
        let uuid = evolve(server, view, found, mark, create).await?;
        prepared.marked(name, standing);
        let names = view
            .columns
            .iter()
            .map(|column| CString::try_from(column.name.as_str()));
        let table = Table {
            view: Arc::clone(view),
            names: names
                .collect::<Result<_, _>>()
                .map_err(|_| unfit(view, "a column's name holds a zero".into()))?,
            kept: terms.retention.get(name).copied(),
            uuid,
        };
        tables.insert(name.clone(), table);
    }
    Ok((tables, prepared))
}

/// What each collection is to this pipeline.
async fn standings(
    server: &Server,
    views: &[Arc<ViewInfo>],
    found: &[Found],
    terms: &Terms,
) -> Result<Vec<Standing>, SinkError> {
    let mut standings = Vec::new();
    let mut foreign = Vec::new();
    for (view, found) in views.iter().zip(found) {
        let (name, entry) = (&view.name, found.entry.as_ref());
        let mark = entry.and_then(|entry| entry.mark.as_deref());
        // Rows without an entry are this sink's own, from after a loss: they are removed.
        let holds_rows = entry.is_some() && found.made.is_some() && !is_empty(server, name).await?;
        let standing = match terms.standing(name, mark, holds_rows) {
            Standing::Kept(_) if found.anew => Standing::begin(),
            standing => standing,
        };
        if standing == Standing::Foreign {
            foreign.push(name.clone());
        }
        standings.push(standing);
    }
    if foreign.is_empty() {
        return Ok(standings);
    }
    Err(SinkError::ForeignRows {
        tables: foreign,
        store: server.store.clone(),
    })
}

/// Removes a view's collection; one that falaj may not make anew is emptied.
pub(super) async fn drop_view(server: &Server, view: &str, create: bool) -> Result<(), SinkError> {
    let what = format!("drop the collection `{view}`");
    if entries(server, &[view]).await?.is_empty() {
        let made = collections(server, &[view]).await?;
        let Some((_, made)) = made.into_iter().next() else {
            return Ok(());
        };
        return match made.lack {
            None if is_empty(server, view).await? => Ok(()),
            lack => Err(foreign(server, view, lack.unwrap_or(NOT_OURS))),
        };
    }
    if create {
        let dropped = server.change(doc! { "drop": view }, &what).await;
        accept(dropped, NAMESPACE_NOT_FOUND)?;
    } else {
        remove_all(server, view, &what).await?;
    }
    // Last: what is left after a failure is known to be falaj's.
    let entry = doc! { "q": { "_id": view }, "limit": 1 };
    let command = doc! { "delete": REGISTER, "deletes": [entry] };
    server.change(command, &what).await?;
    Ok(())
}

async fn remove_all(server: &Server, name: &str, what: &str) -> Result<(), SinkError> {
    let all = doc! { "q": {}, "limit": 0 };
    let command = doc! { "delete": name, "deletes": [all] };
    server.change(command, what).await?;
    Ok(())
}

/// Which view's collection is no longer the one that was prepared: dropped, or lost with the
/// server's data. The next row would make it again, without the rows and indexes of before.
pub(super) async fn lost(
    server: &Server,
    tables: &HashMap<String, Table>,
) -> Result<Option<String>, SinkError> {
    let mut names: Vec<_> = tables.keys().map(String::as_str).collect();
    if names.is_empty() {
        return Ok(None);
    }
    names.sort_unstable();
    let made = collections(server, &names).await?;
    let entries = entries(server, &names).await?;
    let lost = names.into_iter().find(|name| {
        let is_there = made
            .get(*name)
            .is_some_and(|made| !others(made.uuid.as_ref(), tables[*name].uuid.as_ref()));
        !is_there || !entries.contains_key(*name)
    });
    Ok(lost.map(str::to_owned))
}

/// What is lost, as an error that passes: preparing makes it good.
pub(super) fn loss(server: &Server, view: &str) -> SinkError {
    SinkError::Store {
        store: server.store.clone(),
        cause: format!(
            "the collection `{view}`, or its entry in `{REGISTER}`, was dropped or made anew \
             while falaj had it open"
        ),
    }
}

/// Every collection that falaj made is looked at, those of views that are gone, too, and those of
/// `tables`, which have no entry where the server lost it. Keys of groups are JSON arrays, so no
/// pid is one.
pub(super) async fn erase(
    server: &Server,
    tables: &HashMap<String, Table>,
    pid: &str,
) -> Result<u64, SinkError> {
    let mut rows = 0;
    let of_view = |table: &Table| table.view.columns.iter().any(|column| column.name == PID);
    let of_views = tables.iter();
    let mut people: HashMap<_, _> = of_views
        .map(|(name, t)| (name.clone(), of_view(t)))
        .collect();
    for (name, entry) in entries(server, &[]).await? {
        *people.entry(name).or_default() |= entry.has(PID);
    }
    for (view, has_pid) in people {
        let person = if has_pid {
            doc! { "$or": [{ "_id": pid }, { PID: pid }] }
        } else {
            doc! { "_id": pid }
        };
        let delete = doc! { "q": person, "limit": 0 };
        let command = doc! { "delete": &view, "deletes": [delete] };
        let what = format!("remove from the collection `{view}`");
        rows += server.change(command, &what).await?;
    }
    Ok(rows)
}

/// Puts the index back that rows expire by.
pub(super) async fn keep_expiring(server: &Server, table: &Table) -> Result<(), SinkError> {
    if table.kept.is_none() {
        return Ok(());
    }
    let (name, wanted) = (&table.view.name, Index::on(EXPIRES));
    let indexes = match indexes(server, name).await {
        Ok(indexes) => indexes,
        // The first row makes the collection.
        Err(fault) if fault.code == NAMESPACE_NOT_FOUND => return Ok(()),
        Err(fault) => return Err(fault.error),
    };
    if indexes.iter().any(|index| index.does_as(&wanted)) {
        return Ok(());
    }
    drop_wrong_expiry(server, name, &indexes).await?;
    make_indexes(server, name, &[wanted]).await
}

/// Drops indexes by which rows would expire at another time, or not: MongoDB makes no second one
/// beside them.
async fn drop_wrong_expiry(
    server: &Server,
    name: &str,
    indexes: &[Index],
) -> Result<(), SinkError> {
    let wrong = |index: &&Index| index.field == EXPIRES && !index.expiring;
    for index in indexes.iter().filter(wrong) {
        drop_index(server, name, index).await?;
    }
    Ok(())
}

async fn drop_index(server: &Server, name: &str, index: &Index) -> Result<(), SinkError> {
    let what = format!("drop the index `{}` of `{name}`", index.name);
    let command = doc! { "dropIndexes": name, "index": &index.name };
    server.change(command, &what).await?;
    Ok(())
}

const NOT_OURS: &str = "it holds documents that falaj did not write";

/// What is there of each view.
pub(super) async fn look(
    server: &Server,
    views: &[Arc<ViewInfo>],
    retention: &Retention,
    ours: &HashSet<String>,
) -> Result<Vec<Found>, SinkError> {
    let mut wanted = Vec::new();
    for view in views {
        let columns = declared_columns(view, server.name())?;
        wanted.push(Entry::of(view, &columns, retention));
    }
    let names: Vec<_> = views.iter().map(|view| view.name.as_str()).collect();
    let mut made = collections(server, &names).await?;
    let mut entries = entries(server, &names).await?;
    let mut all = Vec::new();
    for (name, wanted) in names.into_iter().zip(wanted) {
        let entry = entries.remove(name);
        let made = made.remove(name);
        let mut there = Vec::new();
        let mut anew = false;
        if let Some(made) = &made {
            if let Some(lack) = made.lack {
                return Err(foreign(server, name, lack));
            }
            anew = match &entry {
                Some(entry) => others(entry.uuid.as_ref(), made.uuid.as_ref()),
                // Whoever lost the entry lost the rows of before, too.
                None => ours.contains(name),
            };
            if entry.is_none() && !anew && !is_empty(server, name).await? {
                return Err(foreign(server, name, NOT_OURS));
            }
            there = indexes(server, name).await?;
        }
        all.push(Found {
            wanted,
            entry,
            made,
            anew,
            indexes: there,
        });
    }
    Ok(all)
}

/// What keeps a view from being written to what was found.
pub(super) fn unusable(
    server: &Server,
    view: &ViewInfo,
    found: &Found,
    create: bool,
) -> Vec<SinkError> {
    let mut errors = Vec::new();
    let stored = found.entry.iter().flat_map(|entry| &entry.columns);
    for (name, stored) in stored {
        let same = |column: &&(String, String)| column.0 == *name;
        let Some((_, given)) = found.wanted.columns.iter().find(same) else {
            continue;
        };
        if given != stored {
            let column = view.columns.iter().find(|column| column.name == *name);
            let word = column.map_or_else(String::new, Column::type_name);
            errors.push(SinkError::ColumnType {
                table: view.name.clone(),
                column: name.clone(),
                stored: stored.clone(),
                given: format!("{word} ({given})"),
            });
        }
    }
    let missing = |what: String| SinkError::Missing {
        what,
        store: server.store.clone(),
    };
    if !create && found.made.is_none() {
        errors.push(missing(format!("collection `{}`", view.name)));
    } else if !create && found.missing(view).iter().any(|index| index.expiring) {
        errors.push(missing(format!(
            "the index on `{EXPIRES}` of the collection `{}` with `expireAfterSeconds: 0`",
            view.name
        )));
    }
    errors
}

/// Brings a collection to where its view is, and gives the server's name for it. Every step may be repeated, and
/// the register is written last: a step that failed is found again.
async fn evolve(
    server: &Server,
    view: &ViewInfo,
    found: &Found,
    mark: Option<String>,
    create: bool,
) -> Result<Option<Binary>, SinkError> {
    let name = &view.name;
    let uuid = if let Some(made) = &found.made {
        made.uuid.clone()
    } else {
        let what = format!("make the collection `{name}`");
        let made = server.change(doc! { "create": name }, &what).await;
        accept(made, NAMESPACE_EXISTS)?;
        let made = collections(server, &[name]).await?.remove(name);
        made.and_then(|made| made.uuid)
    };
    may_write(server, name).await?;
    if found.anew && found.entry.is_none() {
        // This sink's own rows from after the loss: with no word of the owner they would be
        // somebody's, and they are written again with all others.
        let what = format!("remove from the collection `{name}`");
        remove_all(server, name, &what).await?;
    }
    if create {
        let missing = found.missing(view);
        if missing.iter().any(|index| index.expiring) {
            drop_wrong_expiry(server, name, &found.indexes).await?;
        }
        if !missing.is_empty() {
            make_indexes(server, name, &missing).await?;
        }
        for index in found.stale() {
            drop_index(server, name, index).await?;
        }
    }
    for column in found.dropped() {
        let rest = format!("{MICROS}.{column}");
        let there =
            doc! { "$or": [{ column: { "$exists": true } }, { &rest: { "$exists": true } }] };
        change_all(
            server,
            name,
            there,
            doc! { "$unset": { column: "", rest: "" } }.into(),
        )
        .await?;
    }
    let before = found.entry.as_ref().and_then(|entry| entry.kept_ms);
    if found.entry.is_some() && before != found.wanted.kept_ms {
        keep_for(server, name, found.wanted.kept_ms).await?;
    }
    let wanted = Entry {
        mark,
        uuid: uuid.clone(),
        ..found.wanted.clone()
    };
    if found.entry.as_ref() != Some(&wanted) {
        let entry = wanted.document(name);
        let write = doc! { "q": { "_id": name }, "u": entry, "upsert": true };
        let command = doc! { "update": REGISTER, "updates": [write] };
        let what = format!("write the collection `{REGISTER}`");
        server.change(command, &what).await?;
    }
    Ok(uuid)
}

/// A write that matches nothing: whoever may not do it may not write rows either.
async fn may_write(server: &Server, name: &str) -> Result<(), SinkError> {
    let nothing = doc! { "q": { "_id": Bson::MinKey }, "u": { "$set": { VERSION: 0_i64 } } };
    let command = doc! { "update": name, "updates": [nothing] };
    let what = format!("write the collection `{name}`");
    server.change(command, &what).await?;
    Ok(())
}

/// Rows that are there get the retention that holds now, counted from their last write.
async fn keep_for(server: &Server, name: &str, kept_ms: Option<i64>) -> Result<(), SinkError> {
    let Some(kept_ms) = kept_ms else {
        let there = doc! { EXPIRES: { "$exists": true } };
        return change_all(
            server,
            name,
            there,
            doc! { "$unset": { EXPIRES: "" } }.into(),
        )
        .await;
    };
    let version = format!("${VERSION}");
    let written = doc! { "$toLong": { "$ceil": { "$divide": [version, 1000] } } };
    // A version may be ahead of the clock.
    let written = doc! { "$min": [written, now_us() / 1000] };
    let until = doc! { "$toDate": { "$add": [written, kept_ms] } };
    let steps = vec![doc! { "$set": { EXPIRES: until } }];
    change_all(server, name, doc! {}, steps.into()).await
}

async fn change_all(
    server: &Server,
    name: &str,
    which: Document,
    change: Bson,
) -> Result<(), SinkError> {
    let update = doc! { "q": which, "u": change, "multi": true };
    let what = format!("write the collection `{name}`");
    let command = doc! { "update": name, "updates": [update] };
    server.change(command, &what).await?;
    Ok(())
}

async fn make_indexes(server: &Server, name: &str, indexes: &[Index]) -> Result<(), SinkError> {
    let indexes: Vec<_> = indexes.iter().map(Index::document).collect();
    let what = format!("make indexes of the collection `{name}`");
    let mut command = doc! { "createIndexes": name, "indexes": indexes };
    if server.replicated {
        // By default all members have to be there to the end.
        command.insert("commitQuorum", "majority");
    }
    server.change(command, &what).await?;
    Ok(())
}

async fn is_empty(server: &Server, name: &str) -> Result<bool, SinkError> {
    let what = format!("read the collection `{name}`");
    let command = doc! { "find": name, "limit": 1, "projection": { "_id": 1 } };
    Ok(server.find(command, &what).await?.is_empty())
}

/// Which of these collections are there.
async fn collections(server: &Server, names: &[&str]) -> Result<HashMap<String, Made>, SinkError> {
    let filter = doc! { "name": { "$in": names } };
    let command =
        doc! { "listCollections": 1, "filter": filter, "cursor": { "batchSize": LIST_MAX } };
    let what = format!("list the collections of `{}`", server.name());
    let listed = server.first_batch(command, &what).await?;
    let each = listed.into_iter().filter_map(|listed| {
        let name = listed.get_str("name").ok()?.to_owned();
        let made = Made {
            lack: lack(&listed),
            uuid: listed.get_document("info").ok().and_then(uuid),
        };
        Some((name, made))
    });
    Ok(each.collect())
}

fn uuid(holder: &Document) -> Option<Binary> {
    match holder.get("uuid") {
        Some(Bson::Binary(uuid)) => Some(uuid.clone()),
        _ => None,
    }
}

/// Whether these are marks of two collections.
fn others(one: Option<&Binary>, other: Option<&Binary>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

fn lack(listed: &Document) -> Option<&'static str> {
    let options = listed.get_document("options").ok();
    let has = |option| options.is_some_and(|options| options.contains_key(option));
    if listed
        .get_str("type")
        .is_ok_and(|kind| kind != "collection")
    {
        Some("it is a view or a time series")
    } else if options.is_some_and(|options| options.get_bool("capped").is_ok_and(|capped| capped)) {
        Some("it is capped, and would drop rows")
    } else if has("collation") {
        Some("it has a collation, by which different keys may be the same")
    } else {
        None
    }
}

async fn indexes(server: &Server, name: &str) -> Result<Vec<Index>, Fault> {
    let command = doc! { "listIndexes": name, "cursor": { "batchSize": LIST_MAX } };
    let what = format!("list the indexes of the collection `{name}`");
    let listed = server.first_batch(command, &what).await?;
    Ok(listed.iter().filter_map(Index::read).collect())
}

/// What the register says of these collections; of all of them where none is named.
async fn entries(server: &Server, names: &[&str]) -> Result<HashMap<String, Entry>, SinkError> {
    let filter = if names.is_empty() {
        doc! {}
    } else {
        doc! { "_id": { "$in": names } }
    };
    let command = doc! { "find": REGISTER, "filter": filter, "batchSize": LIST_MAX };
    let what = format!("read the collection `{REGISTER}`");
    let found = server.find(command, &what).await?;
    let each = found.iter().filter_map(|document| {
        let name = document.get_str("_id").ok()?.to_owned();
        Some((name, Entry::read(document)))
    });
    Ok(each.collect())
}

/// The columns of a view with their types, where a collection can hold them.
fn declared_columns<'a>(
    view: &'a ViewInfo,
    database: &str,
) -> Result<Vec<(&'a str, &'static str)>, SinkError> {
    let unfit = |cause: String| unfit(view, cause);
    let name = view.name.as_str();
    if name.is_empty() || name.contains(['$', '\0']) || name.starts_with("system.") {
        return Err(unfit("its name is none for a collection".into()));
    }
    if name == REGISTER {
        return Err(unfit(format!("the collection `{REGISTER}` is falaj's own")));
    }
    if database.len() + 1 + name.len() > NAMESPACE_BYTES_MAX {
        return Err(unfit(format!(
            "database and name are longer than {NAMESPACE_BYTES_MAX} bytes"
        )));
    }
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for column in &view.columns {
        let name = column.name.as_str();
        if OWN_FIELDS.contains(&name) {
            return Err(unfit(format!("the column `{name}` is falaj's own")));
        }
        if name.is_empty() || name.contains(['.', '\0']) || name.starts_with('$') {
            return Err(unfit(format!(
                "the column `{name}` has no name for a field"
            )));
        }
        if columns.iter().any(|(other, _)| *other == name) {
            return Err(unfit(format!("it has two columns named `{name}`")));
        }
        let kind = declared(&column.data_type).ok_or_else(|| {
            unfit(format!(
                "the column `{name}` has a type that views do not have"
            ))
        })?;
        columns.push((name, kind));
    }
    Ok(columns)
}

fn unfit(view: &ViewInfo, cause: String) -> SinkError {
    SinkError::Unfit {
        view: view.name.clone(),
        kind: NAME,
        cause,
    }
}

fn foreign(server: &Server, table: &str, lack: &'static str) -> SinkError {
    SinkError::ForeignTable {
        table: table.to_owned(),
        store: server.store.clone(),
        lack,
    }
}

/// Whole milliseconds of a retention, rounded up: nothing is removed too soon.
pub(super) fn millis(kept: Duration) -> i64 {
    i64::try_from(kept.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// A fault with this code is none.
fn accept(result: Result<u64, Fault>, code: i32) -> Result<(), SinkError> {
    match result {
        Err(fault) if fault.code != code => Err(fault.error),
        _ => Ok(()),
    }
}

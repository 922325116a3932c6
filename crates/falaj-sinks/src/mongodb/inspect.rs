//! A look at the server before a run. Nothing is changed.

use std::collections::HashSet;
use std::sync::Arc;

use falaj_record::ViewInfo;
use mongodb::bson::{Document, rawdoc};

use super::server::{Server, documents, int};
use super::tables::{self, Found};
use crate::{Finding, Inspection, Retention, SinkError, now_us};

/// `maxWireVersion` of MongoDB 6.0, the oldest that falaj is written for.
const WIRE_VERSION_MIN: i32 = 17;
/// What a user has to be allowed on every collection.
const RIGHTS: [&str; 6] = [
    "find",
    "insert",
    "update",
    "remove",
    "listCollections",
    "listIndexes",
];
/// What else, where falaj makes the collections.
const RIGHTS_TO_CREATE: [&str; 4] = [
    "createCollection",
    "createIndex",
    "dropCollection",
    "dropIndex",
];

/// Which server it is, and what would keep these views from being written to it.
pub(super) async fn inspect(
    server: &Server,
    views: &[Arc<ViewInfo>],
    retention: &Retention,
    create: bool,
) -> Result<Inspection, SinkError> {
    let before = now_us();
    let hello = server.hello().await?;
    let here_ms = before.midpoint(now_us()) / 1000;
    let there = hello.get_datetime("localTime");
    let built = rawdoc! { "buildInfo": 1 };
    let built = server.run_as_admin(built, "ask for its version").await?;
    let mut findings = about_server(server, &hello);
    for view in views {
        // One at a time: a view that does not fit hides no other.
        let (view_alone, none) = (std::slice::from_ref(view), HashSet::new());
        match tables::look(server, view_alone, retention, &none).await {
            Ok(found) => findings.extend(about_table(server, view, &found[0], create)),
            Err(error) if error.passing() || matches!(error, SinkError::Login { .. }) => {
                return Err(error);
            }
            Err(error) => findings.push(Finding::of(&error)),
        }
    }
    findings.extend(about_rights(server, create).await?);
    Ok(Inspection {
        server: product(&built),
        clock_ahead_ms: there.ok().map(|time| time.timestamp_millis() - here_ms),
        findings,
    })
}

/// Name and version. What is compatible with MongoDB and says so is not called MongoDB.
fn product(built: &Document) -> String {
    let version = built.get_str("version").unwrap_or("of no version");
    match built.get_str("secantusVersion") {
        Ok(own) => format!("SecantusDB {own}, compatible with MongoDB {version}"),
        Err(_) => format!("MongoDB {version}"),
    }
}

fn about_server(server: &Server, hello: &Document) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut finding = |what: &str, hint: &str| {
        findings.push(Finding {
            what: what.to_owned(),
            hint: hint.to_owned(),
            fatal: false,
        });
    };
    if !server.replicated {
        finding(
            "it is one server and no replica set: what it loses is lost",
            "make it a replica set, with three members to survive the loss of one",
        );
    }
    if int(hello, "maxWireVersion") < WIRE_VERSION_MIN {
        finding(
            "it is older than MongoDB 6.0, the oldest that falaj is written for",
            "use a version that is still cared for",
        );
    }
    if server.exposed {
        finding(
            "rows and login travel the network without TLS",
            "give the sink `ca`, or write `tls=true` in its `uri`",
        );
    }
    findings
}

fn about_table(server: &Server, view: &ViewInfo, found: &Found, create: bool) -> Vec<Finding> {
    let errors = tables::unusable(server, view, found, create);
    let mut findings: Vec<_> = errors.iter().map(Finding::of).collect();
    if errors.is_empty() && !create {
        findings.extend(found.missing(view).into_iter().map(|index| Finding {
            what: format!(
                "the collection `{}` has no index on `{}`",
                view.name, index.field
            ),
            hint: "make it, or reading by that column, and erasing a person, looks at every document"
                .into(),
            fatal: false,
        }));
    }
    findings
}

/// What the user may not do, where the server tells.
async fn about_rights(server: &Server, create: bool) -> Result<Vec<Finding>, SinkError> {
    let command = rawdoc! { "connectionStatus": 1, "showPrivileges": true };
    let status = server.run_as_admin(command, "ask for its rights").await?;
    let Ok(login) = status.get_document("authInfo") else {
        return Ok(Vec::new());
    };
    let privileges: Vec<_> = documents(login, "authenticatedUserPrivileges").collect();
    if privileges.is_empty() {
        return Ok(Vec::new());
    }
    let may = |action: &&str| {
        let mut here = privileges.iter().filter(|p| concerns(p, server.name()));
        here.any(|p| grants(p, action))
    };
    let more: &[_] = if create { &RIGHTS_TO_CREATE } else { &[] };
    let actions = RIGHTS.iter().chain(more);
    let findings = actions.filter(|action| !may(action)).map(|action| {
        Finding::of(&SinkError::Forbidden {
            store: server.store.clone(),
            what: format!("do `{action}` in the database `{}`", server.name()),
        })
    });
    Ok(findings.collect())
}

/// Whether a privilege is about collections of this database. One that is about a single
/// collection counts: which of them a role was made for is not for falaj to guess.
fn concerns(privilege: &Document, database: &str) -> bool {
    let Ok(resource) = privilege.get_document("resource") else {
        return false;
    };
    let named = resource.get_str("db");
    resource.get_bool("anyResource").is_ok_and(|any| any)
        || named.is_ok_and(|named| named.is_empty() || named == database)
}

fn grants(privilege: &Document, action: &str) -> bool {
    let Ok(actions) = privilege.get_array("actions") else {
        return false;
    };
    let mut actions = actions.iter().filter_map(|action| action.as_str());
    actions.any(|granted| granted == action || granted == "anyAction")
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn a_privilege_counts_where_it_is_about_the_database() {
        for (resource, counts) in [
            (doc! { "db": "falaj", "collection": "" }, true),
            (doc! { "db": "falaj", "collection": "counts" }, true),
            (doc! { "db": "", "collection": "" }, true),
            (doc! { "anyResource": true }, true),
            (doc! { "db": "other", "collection": "" }, false),
            (doc! { "cluster": true }, false),
        ] {
            let privilege = doc! { "resource": resource, "actions": ["find", "insert"] };
            assert_eq!(concerns(&privilege, "falaj"), counts, "{privilege}");
            assert!(grants(&privilege, "find") && !grants(&privilege, "update"));
        }
    }

    #[test]
    fn a_stand_in_is_not_called_by_the_name_of_what_it_stands_for() {
        let real = doc! { "version": "8.0.4" };
        assert_eq!(product(&real), "MongoDB 8.0.4");
        let other = doc! { "version": "8.2.11", "secantusVersion": "0.7.0" };
        assert!(product(&other).starts_with("SecantusDB 0.7.0"));
    }
}

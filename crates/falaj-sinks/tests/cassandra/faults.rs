//! Addresses where nobody is, logins, certificates; and that no error quotes a row.

use std::net::TcpListener;
use std::time::Duration;

use falaj_record::Hint;
use falaj_servers::Certificates;
use falaj_sinks::conformance::Store;
use falaj_sinks::{Sink, SinkError};
use scylla::value::CqlValue;

use crate::server::{alone, new_store, now_us, prepare, user, users};

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_it_is_said_and_passes() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = free.local_addr().expect("it is bound").to_string();
    drop(free);
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silence = silent.local_addr().expect("it is bound").to_string();
    for address in [
        nobody.as_str(),
        silence.as_str(),
        "no-such-host.invalid:9042",
    ] {
        let sink = keyspace.sink_of(&keyspace.config_at(address, ""));
        let mut sink = sink.expect("the settings can be used");
        let views = [users()];
        let tried = tokio::time::timeout(Duration::from_mins(1), sink.prepare(&views)).await;
        let error = tried
            .expect("it does not hang")
            .expect_err("nobody is there");
        assert!(
            matches!(error, SinkError::Unreachable { .. }),
            "{address}: {error}"
        );
        assert!(error.passing() && error.hint().is_some());
        let error = sink.inspect(&views).await.expect_err("nobody is there");
        assert!(error.passing(), "{address}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_is_noticed_while_there_is_nothing_to_write() {
    let Some(keyspace) = alone().await else {
        return;
    };
    let mut sink = keyspace.sink_with("");
    sink.ping().await.expect("nothing was prepared");
    prepare(&mut sink, &[&users()]).await;
    sink.ping().await.expect("it is there");
    let server = keyspace.server();
    server.kill();
    let error = sink.ping().await.expect_err("it is gone");
    assert!(
        matches!(error, SinkError::Unreachable { .. }) && error.passing(),
        "{error}"
    );
    let restarted = tokio::task::spawn_blocking(move || server.restart());
    restarted.await.expect("it starts");
    prepare(&mut sink, &[&users()]).await;
    sink.ping().await.expect("it is there again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_needed_and_missing_is_told() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let mut config = keyspace.config("");
    (config.user, config.password) = (None, None);
    let mut sink = keyspace.sink_of(&config).expect("the settings can be used");
    let error = sink
        .prepare(&[users()])
        .await
        .expect_err("nobody logged in");
    assert!(matches!(error, SinkError::Login { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_to_whom_the_authority_vouches_for() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let authority = keyspace.server().certificates().authority();
    let ca = format!("ca = '{}'", authority.display());
    let view = users();
    let port = keyspace.server().address().replace("127.0.0.1:", "");
    for address in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let sink = keyspace.sink_of(&keyspace.config_at(&address, &ca));
        let mut sink = sink.expect("the settings can be used");
        prepare(&mut sink, &[&view]).await;
        sink.write(&[user(&view, 1, &["p1"], "NL")])
            .await
            .expect("written");
        // The server says who is connected how.
        let clients = keyspace
            .cql("SELECT username, ssl_enabled, client_options FROM system_views.clients")
            .await;
        let ours: Vec<_> = clients
            .iter()
            .filter(|row| {
                row.columns[0].as_ref().and_then(CqlValue::as_text) == Some(&keyspace.name)
            })
            .collect();
        assert!(!ours.is_empty());
        for client in ours {
            assert_eq!(client.columns[1], Some(CqlValue::Boolean(true)));
            let options = format!("{:?}", client.columns[2]);
            assert!(options.contains("falaj"), "{options}");
        }
    }
    assert_eq!(keyspace.rows(&view).await.len(), 1);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let others = Certificates::make(folder.path()).authority();
    for settings in [
        "tls = true".to_owned(),
        format!("ca = '{}'", others.display()),
    ] {
        let sink = keyspace.sink_of(&keyspace.config(&settings));
        let mut sink = match sink {
            Ok(sink) => sink,
            // A system that trusts nobody.
            Err(SinkError::Setting { key: "tls", .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let error = sink.prepare(&[users()]).await.expect_err("nobody vouches");
        assert!(
            matches!(error, SinkError::Setting { key: "ca", .. }),
            "{error}"
        );
        assert!(!error.passing());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_quotes_a_row() {
    let Some(keyspace) = new_store().await else {
        return;
    };
    let (view, name) = (users(), keyspace.name.clone());
    let mut sink = keyspace.sink().await;
    prepare(sink.as_mut(), &[&view]).await;
    let canary = "canary-1a2b3c4d5e6f";
    let large = format!("{canary} ").repeat(100_000);
    // Cassandra's own words name the key of a row that is too large.
    let written = sink.write(&[user(&view, 1, &[canary], &large)]).await;
    let refused = format!("{written:?}");
    assert!(
        refused.contains("TooLargeForStore") && !refused.contains(canary),
        "{refused}"
    );
    let mut errors = Vec::new();
    let row = [user(&view, 1, &[canary], canary)];
    sink.write(&row).await.expect("written");
    keyspace
        .cql(&format!("ALTER TABLE {name}.users DROP nat"))
        .await;
    errors.push(sink.write(&row).await.expect_err("a column is missing"));
    keyspace.make_read_only().await;
    errors.push(sink.write(&row).await.expect_err("nothing may be written"));
    errors.push(sink.erase(canary).await.expect_err("nor removed"));
    for error in errors {
        let texts = format!("{error} {error:?} {:?}", error.hint());
        assert!(!texts.contains(canary), "{texts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardrail_about_the_clock_refuses_no_row() {
    let Some(keyspace) = alone().await else {
        return;
    };
    let view = users();
    let mut sink = keyspace.sink_with("timeout = '1s'");
    prepare(&mut sink, &[&view]).await;
    let in_two_years = now_us() + 2 * 365 * 86_400_000_000;
    let rows = [
        user(&view, in_two_years, &["p1"], "NL"),
        user(&view, now_us(), &["p2"], "NL"),
    ];
    let error = sink.write(&rows).await.expect_err("one cannot be written");
    assert!(error.passing(), "{error}");
    assert!(error.to_string().contains("`maximum_timestamp`"), "{error}");
    let rows = keyspace.rows(&view).await;
    assert_eq!(rows.len(), 1, "the other one is");
}

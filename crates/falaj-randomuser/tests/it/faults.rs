use std::net::SocketAddr;
use std::time::Duration;

use falaj_randomuser::{Faults, ServerConfig, serve};

use crate::client::{Reply, ask, get};

async fn under(faults: &str, target: &str) -> Reply {
    let config = ServerConfig {
        faults: faults.parse().unwrap(),
        seed: Some(7),
        slow_pause: Duration::from_millis(5),
        ..ServerConfig::default()
    };
    let server = serve(config).await.unwrap();
    let reply = get(server.addr(), target).await;
    server.shutdown().await;
    reply
}

#[tokio::test]
async fn proxies_answer_with_html() {
    for (fault, status, title) in [
        ("503", 503, "503 Service Not Available"),
        ("502", 502, "502 Bad Gateway"),
        ("504", 504, "504 Gateway Time-out"),
    ] {
        let reply = under(fault, "/api/?results=5").await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("content-type"), Some("text/html"));
        assert!(reply.text().contains(title), "{fault}");
    }
}

#[tokio::test]
async fn an_error_object_comes_with_200_500_or_429() {
    for (fault, status, opening) in [
        ("error-200", 200, "Uh oh, something has gone wrong."),
        ("error-500", 500, "Uh oh, something has gone wrong."),
        ("429", 429, "Whoa, ease up there cowboy."),
    ] {
        let reply = under(fault, "/api/?results=5").await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(
            reply.json()["error"].as_str().unwrap().starts_with(opening),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn empty_results_claim_people_in_the_info() {
    let reply = under("empty", "/api/?results=30").await;
    assert_eq!((reply.status, reply.people()), (200, 0));
    assert_eq!(reply.json()["info"]["results"], 30);
}

#[tokio::test]
async fn cut_json_ends_after_some_records_as_a_whole_reply() {
    let reply = under("cut", "/api/?results=200").await;
    assert_eq!(reply.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&reply.body).is_err());
    let records = reply.text().matches("\"gender\"").count();
    assert!((25..=35).contains(&records), "{records} of 200");
}

#[tokio::test]
async fn a_missing_cors_header_is_all_that_is_missing() {
    let reply = under("no-cors", "/api/?results=5").await;
    assert_eq!((reply.status, reply.people()), (200, 5));
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_slow_body_is_whole_in_the_end() {
    let reply = under("slow", "/api/?results=5").await;
    assert_eq!(reply.people(), 5);
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn a_hanging_request_ends_with_the_server() {
    let config = ServerConfig {
        faults: "hang".parse().unwrap(),
        ..ServerConfig::default()
    };
    let server = serve(config).await.unwrap();
    let addr = server.addr();
    let mut asked = tokio::spawn(async move { get(addr, "/api/").await.status });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut asked).await;
    assert!(early.is_err(), "it was answered");
    server.shutdown().await;
    assert_eq!(asked.await.unwrap(), 503);
}

async fn statuses(addr: SocketAddr, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(get(addr, "/api/").await.status);
    }
    statuses
}

#[tokio::test]
async fn faults_follow_the_servers_seed_and_can_be_changed_while_it_runs() {
    let config = ServerConfig {
        faults: "503=0.5".parse().unwrap(),
        seed: Some(11),
        ..ServerConfig::default()
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let server = serve(config.clone()).await.unwrap();
        runs.push(statuses(server.addr(), 40).await);
        server.set_faults(Faults::default());
        assert_eq!(statuses(server.addr(), 10).await, [200; 10]);
        server.set_faults("502=every 2".parse().unwrap());
        assert_eq!(statuses(server.addr(), 4).await, [200, 502, 200, 502]);
        server.shutdown().await;
    }
    assert_eq!(runs[0], runs[1]);
    let failed = runs[0].iter().filter(|status| **status == 503).count();
    assert!((8..32).contains(&failed), "{failed} of 40");
}

#[tokio::test]
async fn a_cut_body_may_be_compressed() {
    let config = ServerConfig {
        faults: "cut".parse().unwrap(),
        ..ServerConfig::default()
    };
    let server = serve(config).await.unwrap();
    let reply = ask(
        server.addr(),
        "GET",
        "/api/?results=100",
        "Accept-Encoding: gzip\r\n",
    )
    .await;
    assert!(reply.body.starts_with(b"{\"results\":[{\"gender\""));
    assert!(!reply.body.ends_with(b"}"));
    server.shutdown().await;
}

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use falaj_randomuser::{
    Clock, NDJSON_DAY, Query, RateLimit, ServerConfig, Version, canaries, drawn_seed, serve,
};
use falaj_record::Hint;

use crate::client::{ask, get};

/// A server whose people are the same on every run.
fn steady() -> ServerConfig {
    ServerConfig {
        seed: Some(7),
        clock: Clock::fixed(UNIX_EPOCH + Duration::from_secs(NDJSON_DAY)),
        ..ServerConfig::default()
    }
}

#[tokio::test]
async fn every_format_has_its_content_type_and_the_services_headers() {
    let server = serve(steady()).await.unwrap();
    for (format, content_type, extension) in [
        ("json", "application/json", "json"),
        ("pretty", "application/json", "json"),
        ("prettyjson", "application/json", "json"),
        ("csv", "text/csv", "csv"),
        ("yaml", "text/x-yaml", "yaml"),
        ("xml", "text/xml", "xml"),
        ("nonsense", "application/json", "json"),
    ] {
        let reply = get(
            server.addr(),
            &format!("/api/?results=2&format={format}&dl"),
        )
        .await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some(content_type), "{format}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
        assert_eq!(reply.header("etag"), None);
        let name = format!("attachment; filename=download.{extension}");
        assert_eq!(reply.header("content-disposition"), Some(name.as_str()));
    }
    let plain = get(server.addr(), "/api/").await;
    assert_eq!(plain.header("content-disposition"), None);
    assert_eq!(plain.people(), 1);
    let wrapped = get(server.addr(), "/api/?callback=show").await;
    assert_eq!(wrapped.header("content-type"), Some("application/json"));
    assert!(wrapped.text().starts_with("show({") && wrapped.text().ends_with("});"));
    server.shutdown().await;
}

#[tokio::test]
async fn a_path_pins_a_version_and_an_unknown_one_is_not_found() {
    let server = serve(steady()).await.unwrap();
    for (path, version) in [
        ("/api", "1.4"),
        ("/api/", "1.4"),
        ("/api/1.1/", "1.1"),
        ("/api/1.2", "1.2"),
        ("/api/1.3/", "1.3"),
    ] {
        assert_eq!(
            get(server.addr(), path).await.json()["info"]["version"],
            version,
            "{path}"
        );
    }
    for path in ["/api/1.5/", "/api/0.8/", "/api/x", "/", "/apis"] {
        let reply = get(server.addr(), path).await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (404, "Not Found"),
            "{path}"
        );
    }
    assert_eq!(ask(server.addr(), "POST", "/api/", "").await.status, 405);
    let head = ask(server.addr(), "HEAD", "/api/?results=3", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    server.shutdown().await;
}

#[tokio::test]
async fn bad_results_give_one_person_without_a_word() {
    let server = serve(steady()).await.unwrap();
    for (results, people) in [("5001", 1), ("0", 1), ("-1", 1), ("x", 1), ("12", 12)] {
        let reply = get(server.addr(), &format!("/api/?results={results}")).await;
        assert_eq!(reply.people(), people, "results={results}");
        assert_eq!(reply.json()["info"]["results"], people);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn seeds_are_kept_or_drawn_and_repeat_the_people() {
    let server = serve(steady()).await.unwrap();
    let given = get(server.addr(), "/api/?seed=abc&results=5").await;
    assert_eq!(given.json()["info"]["seed"], "abc");
    assert_eq!(
        given.json(),
        get(server.addr(), "/api/?seed=abc&results=5").await.json()
    );

    let [third, fourth] = [2, 3].map(|request| drawn_seed(7, request));
    let drawn = get(server.addr(), "/api/?results=5").await.json();
    assert_eq!(drawn["info"]["seed"], third);
    let next = get(server.addr(), "/api/?results=5").await.json();
    assert_eq!(next["info"]["seed"], fourth);
    assert_ne!(drawn["results"], next["results"]);
    let again = get(server.addr(), &format!("/api/?results=5&seed={third}"))
        .await
        .json();
    assert_eq!(again["results"], drawn["results"]);
    server.shutdown().await;
}

#[tokio::test]
async fn servers_without_a_seed_draw_different_people() {
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let server = serve(ServerConfig::default()).await.unwrap();
        seeds.push(get(server.addr(), "/api/").await.json()["info"]["seed"].clone());
        server.shutdown().await;
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn age_is_counted_at_request_time() {
    let ages = async |year: u64| {
        let now = UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952);
        let server = serve(ServerConfig {
            clock: Clock::fixed(now),
            ..steady()
        })
        .await
        .unwrap();
        let reply = get(server.addr(), "/api/?seed=abc&results=50&inc=dob")
            .await
            .json();
        server.shutdown().await;
        let records = reply["results"].as_array().unwrap().clone();
        records
            .iter()
            .map(|record| record["dob"]["age"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let (earlier, later) = (ages(2026).await, ages(2036).await);
    for (earlier, later) in earlier.iter().zip(&later) {
        assert_eq!(later - earlier, 10);
    }
}

#[tokio::test]
async fn small_bodies_have_a_length_and_large_ones_come_in_chunks() {
    let server = serve(steady()).await.unwrap();
    let small = get(server.addr(), "/api/?seed=a&results=10").await;
    assert!(small.header("content-length").is_some());
    assert_eq!(small.header("transfer-encoding"), None);
    let large = get(server.addr(), "/api/?seed=a&results=500").await;
    assert_eq!(large.header("transfer-encoding"), Some("chunked"));
    assert_eq!(large.people(), 500);
    server.shutdown().await;
}

#[tokio::test]
async fn gzip_gives_the_same_body_where_the_client_takes_it() {
    let server = serve(steady()).await.unwrap();
    for results in [1, 2000] {
        let target = format!("/api/?seed=a&results={results}");
        let plain = get(server.addr(), &target).await;
        let gzip = ask(
            server.addr(),
            "GET",
            &target,
            "Accept-Encoding: br, gzip\r\n",
        )
        .await;
        assert_eq!(plain.header("content-encoding"), None);
        assert_eq!(gzip.header("content-encoding"), Some("gzip"));
        assert!(gzip.body == plain.body);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn an_address_is_refused_when_its_users_are_used_up() {
    let rate_limit = Some(RateLimit {
        users: 10,
        ..RateLimit::REAL
    });
    let server = serve(ServerConfig {
        rate_limit,
        ..steady()
    })
    .await
    .unwrap();
    assert_eq!(get(server.addr(), "/api/?results=9").await.people(), 9);
    assert_eq!(
        get(server.addr(), "/api/?results=50").await.people(),
        50,
        "9 is below 10"
    );
    let refused = get(server.addr(), "/api/").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("content-type"), Some("application/json"));
    assert_eq!(refused.header("retry-after"), None);
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    let opening = "Whoa, ease up there cowboy. You've requested 59 users in the last minute.";
    assert!(error.starts_with(opening), "{error}");
    assert_eq!((server.requests(), server.users()), (3, 59));
    server.shutdown().await;
}

#[tokio::test]
async fn a_new_window_serves_the_address_again() {
    // A window so short that every request begins one.
    let rate_limit = Some(RateLimit {
        users: 1,
        window: Duration::from_nanos(1),
    });
    let server = serve(ServerConfig {
        rate_limit,
        ..steady()
    })
    .await
    .unwrap();
    for _ in 0..3 {
        assert_eq!(get(server.addr(), "/api/?results=5").await.people(), 5);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn domains_and_canaries_reach_the_reply() {
    let config = ServerConfig {
        canary: true,
        domains: "a.example=1,b.example=1".parse().unwrap(),
        clock: Clock::of(SystemTime::now),
        ..steady()
    };
    let server = serve(config).await.unwrap();
    let body = get(server.addr(), "/api/?results=40").await.text();
    for domain in ["@a.example", "@b.example"] {
        assert!(body.contains(domain), "{domain}");
    }
    let query = Query::new(Version::V1_4, drawn_seed(7, 0));
    for index in 0..40 {
        for canary in canaries(&query, index) {
            assert!(
                body.contains(&canary.token),
                "{} of person {index}",
                canary.field
            );
        }
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_a_hint() {
    let server = serve(steady()).await.unwrap();
    let config = ServerConfig {
        listen: server.addr(),
        ..steady()
    };
    let error = serve(config).await.expect_err("the port is taken");
    let text = format!("the Random User server cannot listen on {}", server.addr());
    assert_eq!(error.to_string(), text);
    assert_eq!(
        error.hint().unwrap(),
        "choose another port, or port 0 for a free one"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn after_a_shutdown_nothing_answers() {
    let server = serve(steady()).await.unwrap();
    let addr = server.addr();
    assert_eq!(server.url(), format!("http://{addr}/api/"));
    server.shutdown().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

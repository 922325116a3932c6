//! The page in a real browser: headless Chromium draws it, and what it drew is read back.
//!
//! Without a Chromium on the PATH these tests say so and pass, but on CI (`CI=true`) they fail.

mod chromium;
#[path = "../../crates/falaj-serve/examples/made_up/mod.rs"]
mod made_up;

use std::net::SocketAddr;

use chromium::Page;
use falaj_serve::{Listen, Server};
use made_up::{MadeUp, Scene};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DRAWN: &str = "document.querySelectorAll('.plot[data-drawn]').length === 3";

/// A server of a scene, beside the test.
struct Served {
    runtime: Runtime,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    fn start(made_up: &MadeUp, port: u16) -> Self {
        let runtime = Runtime::new().expect("threads");
        let listen = Listen::from(SocketAddr::from(([127, 0, 0, 1], port)));
        let server = runtime
            .block_on(Server::bind(&listen, made_up.hub()))
            .expect("the port is free");
        let (address, stop) = (server.address(), CancellationToken::new());
        let run = server.run(stop.clone());
        let task = runtime.spawn(async { run.await.expect("the server ends well") });
        Self {
            runtime,
            address,
            stop,
            task,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn end(self) {
        self.stop.cancel();
        self.runtime.block_on(self.task).expect("no panic");
    }
}

/// The points that the chart of a view drew.
fn drawn(page: &mut Page, view: &str) -> Vec<Value> {
    let text = page.value(&format!(
        "document.querySelector('[data-view={view}] .plot').dataset.drawn"
    ));
    let points: Value = serde_json::from_str(text.as_str().unwrap_or_default()).expect("JSON");
    points.as_array().cloned().unwrap_or_default()
}

/// How many bars or dots the picture of a view has.
fn marks(page: &mut Page, view: &str) -> Value {
    page.value(&format!(
        "document.querySelectorAll('[data-view={view}] .plot .point').length"
    ))
}

#[test]
fn the_three_charts_show_what_was_published_and_follow_it() {
    let Some(mut page) = Page::open(1280) else {
        return;
    };
    let mut made_up = MadeUp::new(Scene::Busy);
    made_up.step();
    let served = Served::start(&made_up, 0);
    page.go(&served.url());
    page.wait_for(DRAWN);

    let bars = drawn(&mut page, "users_by_nationality");
    assert_eq!(bars.len(), 23, "21 nationalities, unknown, other");
    assert_eq!(marks(&mut page, "users_by_nationality"), 23);
    assert_eq!(bars[22], json!(["other", 9]), "the folded bar is last");
    assert!(
        bars.contains(&json!(["unknown", 1_200])),
        "NULL is shown as unknown"
    );
    let sizes: Vec<i64> = bars[..22]
        .iter()
        .filter_map(|bar| bar[1].as_i64())
        .collect();
    assert!(
        sizes.is_sorted_by(|a, b| a >= b),
        "the largest is on top: {sizes:?}"
    );
    // The numbers of `made_up`, one step in.
    assert!(bars.contains(&json!(["AU", 4_203])), "{bars:?}");

    let bars = drawn(&mut page, "email_domains");
    assert_eq!(bars.len(), 11, "the top 10 and other");
    assert_eq!(marks(&mut page, "email_domains"), 11);
    assert_eq!(
        (&bars[0], &bars[10]),
        (&json!(["mail.example", 41_020]), &json!(["other", 37]))
    );

    let points = drawn(&mut page, "average_age");
    assert!((45..=46).contains(&points.len()), "{}", points.len());
    assert_eq!(marks(&mut page, "average_age"), points.len());
    let times: Vec<&str> = points
        .iter()
        .filter_map(|point| point[0].as_str())
        .collect();
    assert!(times.is_sorted() && times.len() == points.len());
    let ages = points
        .iter()
        .map(|point| point[1].as_f64().unwrap_or_default());
    assert!(
        ages.clone().all(|age| (40.0..50.0).contains(&age)),
        "{:?}",
        ages.collect::<Vec<_>>()
    );

    made_up.step();
    page.wait_for(
        "document.querySelector('[data-view=users_by_nationality] .plot').dataset.drawn.includes('[\"AU\",4206]')",
    );
    page.wait_for(
        "document.querySelector('[data-tile=in] .more').textContent === '98,000 since start'",
    );

    let own = served.url();
    let foreign: Vec<&String> = page
        .requests
        .iter()
        .filter(|url| {
            !url.starts_with(&own) && !url.starts_with("data:") && !url.starts_with("about:")
        })
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
    served.end();
}

#[test]
fn odd_labels_are_text_and_a_narrow_screen_needs_no_sideways_scroll() {
    let Some(mut page) = Page::open(375) else {
        return;
    };
    let served = Served::start(&MadeUp::new(Scene::Hostile), 0);
    page.go(&served.url());
    page.wait_for(DRAWN);
    let bars = drawn(&mut page, "users_by_nationality");
    let labels: Vec<&str> = bars.iter().filter_map(|bar| bar[0].as_str()).collect();
    assert_eq!(
        (labels.len(), marks(&mut page, "users_by_nationality")),
        (8, json!(8))
    );
    for label in [
        "<b>bold</b>",
        "=1+1",
        "007",
        "(empty)",
        "unknown",
        "a,\"b\"\nc",
    ] {
        assert!(labels.contains(&label), "{label} in {labels:?}");
    }
    assert_eq!(
        labels.iter().filter(|label| **label == "other").count(),
        2,
        "a group may be called so"
    );
    assert_eq!(labels.last(), Some(&"other"));
    assert_eq!(
        page.value("document.querySelectorAll('.chart .plot b, .chart td b').length"),
        0
    );
    assert_eq!(page.value("document.documentElement.scrollWidth"), 375);
    page.value(
        "document.querySelectorAll('details').forEach((details) => { details.open = true; })",
    );
    page.wait_for("document.querySelectorAll('.data tbody tr').length > 16");
    assert_eq!(
        page.value("document.documentElement.scrollWidth"),
        375,
        "with open tables"
    );
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
    served.end();
}

#[test]
fn one_group_is_told_in_a_sentence_and_nothing_says_what_it_waits_for() {
    let Some(mut page) = Page::open(800) else {
        return;
    };
    let single = Served::start(&MadeUp::new(Scene::Single), 0);
    page.go(&single.url());
    page.wait_for(DRAWN);
    let sentence =
        page.value("document.querySelector('[data-view=email_domains] .sentence').innerText");
    assert_eq!(
        sentence,
        "1 email domain: example.com, 100 % of 12,345 users"
    );
    assert_eq!(
        marks(&mut page, "average_age"),
        1,
        "a single window is a point"
    );
    let empty = Served::start(&MadeUp::new(Scene::Empty), 0);
    page.go(&empty.url());
    page.wait_for(
        "[...document.querySelectorAll('.empty')].every((e) => e.innerText === 'Waiting for the pipeline to start.')",
    );
    let standby = Served::start(&MadeUp::new(Scene::Standby), 0);
    page.go(&standby.url());
    page.wait_for("document.getElementById('run')?.innerText.startsWith('standby, up ') ?? false");
    page.wait_for(
        "[...document.querySelectorAll('.empty')].every((e) => e.innerText === 'Standby: another falaj runs this pipeline.')",
    );
    let strip = page
        .value("[...document.querySelectorAll('#strip li > *')].map((e) => e.innerText.trim())");
    assert_eq!(
        strip,
        json!(["pipeline", "standby", "another falaj runs this pipeline"])
    );
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
    single.end();
    empty.end();
    standby.end();
}

#[test]
fn a_stopped_server_leaves_the_old_numbers_and_a_new_one_is_found() {
    let Some(mut page) = Page::open(1280) else {
        return;
    };
    let mut made_up = MadeUp::new(Scene::Busy);
    let served = Served::start(&made_up, 0);
    let port = served.address.port();
    page.go(&served.url());
    page.wait_for(DRAWN);
    page.wait_for("document.getElementById('link-state').textContent === 'live'");
    served.end();
    page.wait_for("document.getElementById('link-state').textContent === 'stopped'");
    assert_eq!(
        drawn(&mut page, "users_by_nationality").len(),
        23,
        "old numbers stay"
    );
    assert_eq!(
        page.value("Number(getComputedStyle(document.querySelector('main')).opacity) < 1"),
        true
    );
    made_up = MadeUp::new(Scene::Busy);
    made_up.step();
    let again = Served::start(&made_up, port);
    page.wait_for("document.getElementById('link-state').textContent === 'live'");
    page.wait_for(
        "document.querySelector('[data-view=users_by_nationality] .plot').dataset.drawn.includes('[\"AU\",4203]')",
    );
    again.end();
}

#[test]
fn pause_theme_and_picture_do_what_they_say() {
    let Some(mut page) = Page::open(1280) else {
        return;
    };
    let mut made_up = MadeUp::new(Scene::Busy);
    let served = Served::start(&made_up, 0);
    page.go(&served.url());
    page.wait_for(DRAWN);
    page.value("document.getElementById('pause').click()");
    made_up.step();
    made_up.step();
    // The numbers have arrived when the next status has: and still the old ones are shown.
    page.value("new Promise((done) => setTimeout(done, 1500))");
    assert!(drawn(&mut page, "users_by_nationality").contains(&json!(["AU", 4_200])));
    assert_eq!(
        page.value("document.getElementById('link-state').textContent"),
        "paused"
    );
    page.value("document.getElementById('pause').click()");
    page.wait_for(
        "document.querySelector('[data-view=users_by_nationality] .plot').dataset.drawn.includes('[\"AU\",4206]')",
    );
    let colours = "getComputedStyle(document.body).backgroundColor + \
                   document.querySelector('.plot .point path').style.fill";
    let mut seen = vec![];
    for theme in ["light", "dark"] {
        page.value("document.getElementById('theme').click()");
        assert_eq!(page.value("document.documentElement.dataset.theme"), theme);
        seen.push(page.value(colours));
    }
    assert_ne!(seen[0], seen[1], "page and bars have colours for each");
    page.value(
        "HTMLAnchorElement.prototype.click = function () { window.taken = [this.download, this.href]; };
         document.querySelector('[data-view=email_domains] .png').click()",
    );
    page.wait_for("Array.isArray(window.taken)");
    let size = page.value(
        "new Promise((done) => { const image = new Image(); image.src = window.taken[1];
           image.onload = () => done([image.width, image.height >= 500, window.taken[0].endsWith('.png')]); })",
    );
    assert_eq!(size, json!([1200, true, true]));
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
    served.end();
}

//! Made-up aggregates: what the three views of the example would publish, out of thin air.
//! The same numbers on every run, so that tests can say what they expect.

use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use falaj_record::{
    Column, Ledger, Publication, PublishedRow, SourceLedger, TopicLedger, Value, ViewInfo,
    ViewKind, ViewLedger, Window,
};
use falaj_serve::{
    ChartConfig, ChartType, CheckpointStatus, FieldPanel, Hub, LagStatus, PartitionStatus,
    PrivacyPanel, ProcessStatus, PurposePanel, RunState, SinkStatus, SourceStatus, StageStatus,
    Status, SubjectPanel, Time, Working,
};

/// What there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// Everything flows.
    Busy,
    /// Nothing came yet.
    Empty,
    /// Another falaj runs the pipeline.
    Standby,
    /// One group in each view, and one window.
    Single,
    /// The source is rate limited and a store is away.
    Failing,
    /// Labels that look like markup, formulas, numbers and nothing.
    Hostile,
}

impl FromStr for Scene {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "busy" => Self::Busy,
            "empty" => Self::Empty,
            "standby" => Self::Standby,
            "single" => Self::Single,
            "failing" => Self::Failing,
            "hostile" => Self::Hostile,
            _ => return Err("a scene is busy, empty, standby, single, failing or hostile".into()),
        })
    }
}

const MINUTE: i64 = 60_000_000;
const NATIONALITIES: [&str; 21] = [
    "AU", "BR", "CA", "CH", "DE", "DK", "ES", "FI", "FR", "GB", "IE", "IN", "IR", "MX", "NL", "NO",
    "NZ", "RS", "TR", "UA", "US",
];
const DOMAINS: [&str; 14] = [
    "mail.example",
    "post.example",
    "inbox.example",
    "quick.example",
    "letters.example",
    "uni.example",
    "web.example",
    "home.example",
    "office.example",
    "city.example",
    "school.example",
    "club.example",
    "garden.example",
    "a-rather-long-name-of-a-provider.example",
];
const HOSTILE: [&str; 6] = ["<b>bold</b>", "=1+1", "007", "", "other", "a,\"b\"\nc"];

/// The views, their numbers, and the hub they are shown on.
pub struct MadeUp {
    hub: Hub,
    scene: Scene,
    nationality: Arc<ViewInfo>,
    age: Arc<ViewInfo>,
    domain: Arc<ViewInfo>,
    /// Half seconds since the start.
    steps: i64,
    started: Time,
}

fn column(name: &str, data_type: DataType, key: bool) -> Column {
    Column {
        name: name.into(),
        data_type,
        key,
        nullable: true,
    }
}

fn view(name: &str, columns: Vec<Column>, window: Option<Window>) -> Arc<ViewInfo> {
    let (name, sql) = (name.into(), String::new());
    Arc::new(ViewInfo {
        name,
        kind: ViewKind::Aggregate,
        columns,
        window,
        fields: Vec::new(),
        sql,
    })
}

fn chart(title: &str, view: &str, kind: ChartType, x: &str, y: &str) -> ChartConfig {
    let [title, view, x, y] = [title, view, x, y].map(str::to_owned);
    ChartConfig {
        title,
        view,
        kind,
        x,
        y,
        top: None,
        note: None,
    }
}

impl MadeUp {
    /// The scene at its start.
    pub fn new(scene: Scene) -> Self {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let users = || column("users", DataType::Int64, false);
        let by = |name: &str| vec![column(name, DataType::Utf8, true), users()];
        let nationality = view("users_by_nationality", by("nat"), None);
        let domain = view("email_domains", by("email_domain"), None);
        let window = Window {
            size_us: MINUTE,
            slide_us: MINUTE,
            start: Some(0),
            end: None,
        };
        let average = column("average_age", DataType::Float64, false);
        let age = view(
            "average_age",
            vec![column("minute", time, true), average, users()],
            Some(window),
        );
        let people = Arc::new(ViewInfo {
            name: "users".into(),
            kind: ViewKind::Row,
            columns: vec![column("pid", DataType::Utf8, true)],
            window: None,
            fields: Vec::new(),
            sql: String::new(),
        });
        let mut domains = chart(
            "Most common e-mail domains",
            "email_domains",
            ChartType::Bar,
            "email_domain",
            "users",
        );
        domains.top = std::num::NonZeroU32::new(10);
        domains.note =
            Some("The domains are synthetic: the real service has only example.com.".into());
        let charts = vec![
            chart(
                "Users by nationality",
                "users_by_nationality",
                ChartType::Bar,
                "nat",
                "users",
            ),
            chart(
                "Average age over time",
                "average_age",
                ChartType::Line,
                "minute",
                "average_age",
            ),
            domains,
        ];
        let views = [nationality.clone(), age.clone(), domain.clone(), people];
        let errors: Vec<_> = charts
            .iter()
            .flat_map(|chart| chart.check(&views))
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        let hub = Hub::new("random-users", &views, charts);
        let made_up = Self {
            hub,
            scene,
            nationality,
            age,
            domain,
            steps: 0,
            started: Time::now(),
        };
        made_up.hub.set_privacy(privacy());
        made_up.hub.set_status(made_up.status());
        if !matches!(scene, Scene::Empty | Scene::Standby) {
            made_up.hub.show(&made_up.first());
        }
        made_up
    }

    /// The hub.
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// Half a second later.
    pub fn step(&mut self) {
        self.steps += 1;
        if self.steps % 2 == 0 {
            self.hub.set_status(self.status());
        }
        if matches!(self.scene, Scene::Busy | Scene::Failing) {
            self.hub.show(&self.changes());
        }
    }

    /// Users of the nationality or domain at `i`, growing.
    fn users(&self, i: usize) -> i64 {
        let i = i64::try_from(i).unwrap_or(0);
        4_200 + (i * 7_919) % 900 + self.steps * (3 + (i * 5) % 7)
    }

    fn publication(&self, view: &Arc<ViewInfo>, rows: Vec<(String, Vec<Value>)>) -> Publication {
        Publication {
            view: view.clone(),
            version: Time::now().0,
            watermark: Some(minute_of(Time::now()) - 1),
            suppressed: if self.scene == Scene::Single { 0 } else { 3 },
            upserts: rows
                .into_iter()
                .map(|(key, values)| PublishedRow { key, values })
                .collect(),
            deletes: vec![],
        }
    }

    fn group(label: Option<&str>, users: i64) -> (String, Vec<Value>) {
        let value = label.map_or(Value::Null, |label| Value::Text(label.into()));
        (
            format!("[{}]", value.json()),
            vec![value, Value::Int(users)],
        )
    }

    fn folded(users: i64) -> (String, Vec<Value>) {
        let other = PublishedRow::OTHER;
        (
            other.into(),
            vec![Value::Text(other.into()), Value::Int(users)],
        )
    }

    fn window(minute: i64, i: i64) -> (String, Vec<Value>) {
        let wave = [
            0.0, 0.21, 0.34, 0.18, -0.12, -0.3, -0.22, 0.05, 0.4, 0.28, -0.08,
        ];
        let index = usize::try_from(i.rem_euclid(11)).unwrap_or(0);
        let average = 44.6 + wave[index] * 1.7;
        let values = vec![
            Value::Timestamp(minute),
            Value::Float(average),
            Value::Int(58_000 + i * 137),
        ];
        (format!("[{minute}]"), values)
    }

    fn first(&self) -> Vec<Publication> {
        let now = minute_of(Time::now());
        let (mut nationalities, mut domains, mut windows) = (vec![], vec![], vec![]);
        match self.scene {
            Scene::Empty | Scene::Standby => {}
            Scene::Single => {
                nationalities.push(Self::group(Some("CH"), 12_345));
                domains.push(Self::group(Some("example.com"), 12_345));
                windows.push(Self::window(now, 0));
            }
            Scene::Hostile => {
                for (i, label) in HOSTILE.iter().enumerate() {
                    nationalities.push(Self::group(Some(label), self.users(i)));
                    domains.push(Self::group(Some(label), self.users(i)));
                }
                for rows in [&mut nationalities, &mut domains] {
                    rows.push(Self::group(None, 77));
                    rows.push(Self::folded(11));
                }
                windows.push(Self::window(now, 0));
            }
            Scene::Busy | Scene::Failing => {
                for (i, nat) in NATIONALITIES.iter().enumerate() {
                    nationalities.push(Self::group(Some(nat), self.users(i)));
                }
                nationalities.push(Self::group(None, 1_200));
                nationalities.push(Self::folded(9));
                for (i, domain) in DOMAINS.iter().enumerate() {
                    let rank = i64::try_from(i).unwrap_or(0) + 1;
                    domains.push(Self::group(Some(domain), 41_000 / rank));
                }
                domains.push(Self::folded(37));
                windows.extend((0..45).map(|i| Self::window(now - (44 - i) * MINUTE, i)));
            }
        }
        vec![
            self.publication(&self.nationality, nationalities),
            self.publication(&self.domain, domains),
            self.publication(&self.age, windows),
        ]
    }

    fn changes(&self) -> Vec<Publication> {
        let nationalities = NATIONALITIES
            .iter()
            .enumerate()
            .map(|(i, nat)| Self::group(Some(nat), self.users(i)));
        let window = Self::window(minute_of(Time::now()), 44 + self.steps % 3);
        let domain = Self::group(Some(DOMAINS[0]), 41_000 + self.steps * 20);
        vec![
            self.publication(&self.nationality, nationalities.collect()),
            self.publication(&self.domain, vec![domain]),
            self.publication(&self.age, vec![window]),
        ]
    }

    fn status(&self) -> Status {
        let running = self.running();
        if self.scene != Scene::Standby {
            return running;
        }
        Status {
            state: RunState::Standby,
            detail: Some("another falaj runs this pipeline".into()),
            stages: vec![],
            source: None,
            positions: vec![],
            sinks: vec![],
            ..running
        }
    }

    #[expect(clippy::too_many_lines, reason = "one literal that shows every field")]
    fn running(&self) -> Status {
        let empty = matches!(self.scene, Scene::Empty | Scene::Standby);
        let failing = self.scene == Scene::Failing;
        let seconds = u64::try_from(self.steps / 2).unwrap_or(0);
        let wobble = [0.0, 40.0, -25.0, 12.0, -60.0, 33.0, 5.0, -9.0];
        #[expect(clippy::cast_possible_truncation, reason = "it is taken modulo 8")]
        let wave = wobble[seconds as usize % 8];
        let flow = if empty || failing {
            0.0
        } else {
            2_000.0 + wave
        };
        let total = if empty { 0 } else { 96_000 + seconds * 2_000 };
        let now = Time::now();
        let stage = |name: &str, state, detail: Option<&str>| StageStatus {
            name: name.into(),
            state,
            detail: detail.map(str::to_owned),
            since: self.started,
            records_total: total,
            rate: flow,
        };
        let source_state = if failing {
            Working::Failing
        } else if empty {
            Working::Waiting
        } else {
            Working::Ok
        };
        let retry = failing.then(|| Time(now.0 + 4_000_000));
        let sink = |name: &str, kind: &str, failing: bool| SinkStatus {
            name: name.into(),
            kind: kind.into(),
            state: if failing {
                Working::Failing
            } else {
                Working::Ok
            },
            pending: if failing { 48 } else { 0 },
            behind: false,
            written_total: total / 40,
            refused_total: 0,
            rate: if failing || empty {
                0.0
            } else {
                58.0 + wave / 10.0
            },
            last_error: failing.then(|| "no reply from 127.0.0.1:27017 within 5 s".into()),
            hint: failing.then(|| "start the store, or correct its address".into()),
            retry_at: retry,
            since: self.started,
        };
        let rejected = if empty { 0 } else { 17 };
        Status {
            pipeline: "random-users".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            at: now,
            started: self.started,
            uptime: self.started.until(now),
            state: if empty {
                RunState::Starting
            } else {
                RunState::Running
            },
            detail: None,
            stages: vec![
                stage("source", source_state, None),
                stage("gate", Working::Ok, None),
                stage("topic", Working::Ok, Some("messages, 4 partitions")),
                stage("views", Working::Ok, None),
            ],
            source: Some(SourceStatus {
                kind: "http".into(),
                state: source_state,
                detail: failing.then(|| "429: rate limited".into()),
                retry_at: retry,
                records_total: total,
                bytes_total: total * 310,
                rate: flow,
                bytes_rate: flow * 310.0,
                lag: None,
            }),
            positions: (0..4)
                .map(|partition| {
                    let end = i64::try_from(total / 4).unwrap_or(0);
                    let lag = if empty { 0 } else { 3 };
                    let next = end - i64::try_from(lag).unwrap_or(0);
                    PartitionStatus {
                        partition,
                        start: 0,
                        end,
                        next,
                        lag,
                    }
                })
                .collect(),
            lag: if empty {
                LagStatus::default()
            } else {
                LagStatus {
                    records: 12,
                    seconds: 0.006,
                }
            },
            watermark: (!empty).then_some(Time(now.0 - 10_000_000)),
            sinks: vec![
                sink("local", "sqlite", false),
                sink("people", "mongodb", failing),
            ],
            rejects: if empty {
                std::collections::BTreeMap::new()
            } else {
                [("wrong type".to_owned(), 12), ("not JSON".to_owned(), 5)].into()
            },
            late: 0,
            withheld: if empty { 0 } else { 5 },
            checkpoint: (!empty).then_some(CheckpointStatus {
                at: Time(now.0 - 2_000_000),
                age: 2.0,
                bytes: 48_211,
                duration_ms: 11.5,
            }),
            ledger: if empty {
                Ledger::default()
            } else {
                ledger(total, rejected)
            },
            process: ProcessStatus {
                rss_bytes: 61_000_000,
                cpu_seconds: 1.25,
                version: env!("CARGO_PKG_VERSION").into(),
            },
        }
    }
}

fn minute_of(time: Time) -> i64 {
    time.0.div_euclid(MINUTE) * MINUTE
}

fn ledger(total: u64, rejected: u64) -> Ledger {
    let published = total - rejected - 5;
    let view = |late| ViewLedger {
        applied: published - late,
        filtered: 0,
        late,
    };
    Ledger {
        source: SourceLedger {
            r#in: total,
            published,
            rejected,
            withheld: 5,
            replayed: 3,
        },
        topic: TopicLedger {
            read: published + 2,
            out: published,
            rejected: 0,
            duplicate: 2,
        },
        views: [
            ("average_age".to_owned(), view(4)),
            ("email_domains".to_owned(), view(0)),
            ("users_by_nationality".to_owned(), view(0)),
        ]
        .into(),
    }
}

fn privacy() -> PrivacyPanel {
    let field = |name: &str, from: &str, kind: &str, class: &str, treatment: &str| FieldPanel {
        name: name.into(),
        from: from.into(),
        kind: kind.into(),
        class: class.into(),
        treatment: treatment.into(),
        purpose: "statistics".into(),
    };
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    PrivacyPanel {
        controller: "Example Ltd".into(),
        contact: Some("dpo@example.com".into()),
        k: 5,
        delta_k: 5,
        subject: Some(SubjectPanel {
            from: "email".into(),
            required: true,
        }),
        fields: vec![
            field("nat", "nat", "string", "quasi", "keep"),
            field("gender", "gender", "string", "quasi", "keep"),
            field("age", "dob.age", "int", "quasi", "clamp(0,120)"),
            field("age_band", "dob.age", "int", "quasi", "band(10)"),
            field("email_domain", "email", "string", "direct", "email_domain"),
        ],
        never: words(&[
            "login.**",
            "phone",
            "cell",
            "location.coordinates.**",
            "id.**",
            "picture.**",
        ]),
        purposes: vec![PurposePanel {
            name: "statistics".into(),
            legal_basis: "consent".into(),
            retention: "30d".into(),
            data_subjects: "registered users".into(),
            consent: Some("synthetic".into()),
        }],
        topic_retention: "7d".into(),
        requested: Some(words(&["dob", "email", "gender", "nat"])),
    }
}

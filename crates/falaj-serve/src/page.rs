//! `/`: the page with its first snapshot already in it.
//!
//! Always: everything that is not our own markup is escaped. Always: tiles and tables are readable
//! before the script runs and without one (then the page reloads itself).
//! The script takes over the same elements: what is rendered here and there has the same shape.

use std::fmt::Write;

use falaj_record::{PublishedRow, Value};

use crate::assets::INDEX;
use crate::chart::{ChartConfig, ChartType};
use crate::hub::{Hub, Sample, Snapshot, Table};
use crate::status::{PrivacyPanel, RunState, Status, Time};

/// Rows of a table in the first snapshot; the script shows more.
const TABLE_ROWS_MAX: usize = 40;
/// Size of a sparkline's canvas, as in the script.
const SPARK: (f64, f64) = (100.0, 28.0);

/// The whole page.
pub(crate) fn page(hub: &Hub) -> String {
    let snapshot = hub.snapshot();
    let status = snapshot.status.as_deref();
    let fill = |name: &str| match name {
        "name" => escape(hub.pipeline()),
        "now" => clock(Time::now()),
        "run" => run_state(status),
        "tiles" => tiles(&snapshot),
        "strip" => strip(status),
        "charts" => hub
            .charts()
            .iter()
            .map(|chart| card(chart, &snapshot))
            .collect(),
        "ledger" => ledger(status),
        "privacy" => snapshot.privacy.as_deref().map_or_else(no_privacy, privacy),
        "version" => escape(status.map_or(env!("CARGO_PKG_VERSION"), |s| &s.version)),
        _ => String::new(),
    };
    let mut page = String::with_capacity(32 * 1024);
    let mut rest = INDEX;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(&fill(name));
        rest = after;
    }
    page.push_str(rest);
    page
}

/// Text for elements and for attributes in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `1234567` as `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: whole from 10 on, one decimal below.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is small and not negative; beyond u64 it saturates"
)]
fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        grouped(per_second.round() as u64)
    }
}

/// `340 ms`, `2.5 s`, `42 s`, `7 min`, `3.2 h`, `5.0 d`.
fn seconds(s: f64) -> String {
    match s {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded to three digits")]
fn bytes(n: u64) -> String {
    match n {
        n if n < 1_000 => format!("{n} B"),
        n if n < 1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        n => format!("{:.1} MB", n as f64 / 1e6),
    }
}

/// Time of day, UTC.
fn clock(time: Time) -> String {
    let text = falaj_record::rfc3339(time.0.div_euclid(1_000_000) * 1_000_000);
    text.split_once('T')
        .map_or_else(|| text.clone(), |(_, t)| t.trim_end_matches('Z').to_owned())
}

fn run_state(status: Option<&Status>) -> String {
    match status {
        None => RunState::Starting.word().to_owned(),
        Some(status) => format!("{}, up {}", status.state.word(), seconds(status.uptime)),
    }
}

struct Tile {
    id: &'static str,
    title: &'static str,
    value: String,
    unit: &'static str,
    more: String,
    spark: Vec<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "a sparkline is 28 pixels high")]
fn tiles(snapshot: &Snapshot) -> String {
    let status = snapshot.status.as_deref();
    let number = |of: &dyn Fn(&Status) -> String| status.map_or_else(|| "–".to_owned(), of);
    let spark = |of: &dyn Fn(&Sample) -> f64| snapshot.history.iter().map(of).collect();
    let k = snapshot.privacy.as_ref().map(|panel| panel.k);
    let suppressed: u64 = snapshot.boards.iter().map(|b| b.suppressed).sum();
    let tiles = [
        Tile {
            id: "in",
            title: "Records in",
            value: number(&|s| rate(s.source.as_ref().map_or(0.0, |source| source.rate))),
            unit: "/s",
            more: number(&|s| {
                let total = s.source.as_ref().map_or(0, |source| source.records_total);
                format!("{} since start", grouped(total))
            }),
            spark: spark(&|s| s.r#in),
        },
        Tile {
            id: "out",
            title: "Rows out",
            value: number(&|s| rate(s.sinks.iter().map(|sink| sink.rate).sum())),
            unit: "/s",
            more: number(&|s| {
                let sink =
                    |sink: &crate::SinkStatus| format!("{} {} /s", sink.name, rate(sink.rate));
                if s.sinks.is_empty() {
                    "no store".to_owned()
                } else {
                    s.sinks.iter().map(sink).collect::<Vec<_>>().join(" · ")
                }
            }),
            spark: spark(&|s| s.out),
        },
        Tile {
            id: "lag",
            title: "Lag",
            value: number(&|s| grouped(s.lag.records)),
            unit: "records",
            more: number(&|s| match s.lag.records {
                0 => "up to date".to_owned(),
                _ => format!("{} behind", seconds(s.lag.seconds)),
            }),
            spark: spark(&|s| s.lag as f64),
        },
        Tile {
            id: "rejected",
            title: "Rejected",
            value: number(&|s| grouped(s.rejected())),
            unit: "",
            more: number(&reject_reasons),
            spark: spark(&|s| s.rejected as f64),
        },
        Tile {
            id: "withheld",
            title: "Withheld",
            value: number(&|s| grouped(s.withheld)),
            unit: "",
            more: "kept out on purpose".to_owned(),
            spark: spark(&|s| s.withheld as f64),
        },
        Tile {
            id: "protected",
            title: "People protected",
            value: grouped(suppressed),
            unit: "groups",
            more: match k {
                Some(k) => format!("under {k} people: folded or held back"),
                None => "too small: folded or held back".to_owned(),
            },
            spark: spark(&|s| s.protected as f64),
        },
    ];
    tiles.iter().map(tile).collect()
}

fn reject_reasons(status: &Status) -> String {
    let mut reasons: Vec<String> = status
        .rejects
        .iter()
        .map(|(reason, n)| format!("{reason} {}", grouped(*n)))
        .collect();
    if status.late > 0 && !status.rejects.contains_key("late") {
        reasons.push(format!("and late {}", grouped(status.late)));
    }
    if reasons.is_empty() {
        "none".to_owned()
    } else {
        reasons.join(" · ")
    }
}

fn tile(tile: &Tile) -> String {
    let (line, area) = spark(&tile.spark);
    format!(
        "<article class=\"tile\" data-tile=\"{}\"><h2>{}</h2>\
         <p class=\"value\"><b>{}</b> <span>{}</span></p><p class=\"more\">{}</p>\
         <svg class=\"spark\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <path class=\"area\" d=\"{area}\"/><path class=\"line\" d=\"{line}\"/></svg></article>\n",
        tile.id,
        tile.title,
        tile.value,
        tile.unit,
        escape(&tile.more),
        SPARK.0,
        SPARK.1,
    )
}

/// Line and area of a sparkline from 0 up.
#[expect(
    clippy::cast_precision_loss,
    reason = "there are a few hundred samples"
)]
fn spark(samples: &[f64]) -> (String, String) {
    if samples.len() < 2 {
        return Default::default();
    }
    let (width, height) = SPARK;
    let top = samples.iter().copied().fold(1.0, f64::max);
    let step = width / (samples.len() - 1) as f64;
    let mut line = String::new();
    for (i, sample) in samples.iter().enumerate() {
        let (x, y) = (
            i as f64 * step,
            height - 1.0 - sample / top * (height - 3.0),
        );
        let _ = write!(line, "{}{x:.1},{y:.1}", if i == 0 { "M" } else { "L" });
    }
    let area = format!("{line}L{width},{height}L0,{height}Z");
    (line, area)
}

fn strip(status: Option<&Status>) -> String {
    let Some(status) = status else {
        return "<li data-state=\"waiting\"><h3><i class=\"mark\"></i>pipeline</h3>\
                <p class=\"rate\">starting</p><p class=\"detail\">no stage has reported yet</p></li>"
            .to_owned();
    };
    let source = status.source.as_ref();
    let mut strip = String::new();
    if !status.state.active() && status.stages.is_empty() {
        let _ = writeln!(
            strip,
            "<li class=\"stage\" data-state=\"waiting\"><h3><i class=\"mark\"></i>pipeline</h3>\
             <p class=\"rate\">{}</p><p class=\"detail\">{}</p></li>",
            status.state.word(),
            escape(status.detail.as_deref().unwrap_or_default()),
        );
    }
    for stage in &status.stages {
        let is_source = stage.name == "source";
        let mut details: Vec<String> = stage.detail.iter().cloned().collect();
        if is_source && let Some(source) = source {
            if stage.detail.is_none() {
                details.extend(source.detail.iter().cloned());
            }
            details.extend(source.retry_at.map(|at| format!("next try {}", clock(at))));
        }
        if stage.name == "views" && status.lag.records > 0 {
            details.push(format!("{} behind", seconds(status.lag.seconds)));
        }
        strip.push_str(&strip_item(
            "stage",
            &stage.name,
            source.filter(|_| is_source).map_or("", |s| &s.kind),
            stage.state.word(),
            &format!("{} /s", rate(stage.rate)),
            &details.join(" · "),
        ));
    }
    for sink in &status.sinks {
        let detail = sink_detail(sink);
        let rate = format!("{} /s", rate(sink.rate));
        strip.push_str(&strip_item(
            "sink",
            &sink.name,
            &sink.kind,
            sink.state.word(),
            &rate,
            &detail,
        ));
    }
    strip
}

/// What holds a sink up, since when, and what waits for it.
fn sink_detail(sink: &crate::SinkStatus) -> String {
    let mut details = Vec::new();
    if let Some(error) = &sink.last_error
        && sink.state != crate::Working::Ok
    {
        details.push(error.clone());
        details.push(format!("since {}", clock(sink.since)));
        details.extend(sink.retry_at.map(|at| format!("next try {}", clock(at))));
    }
    if sink.pending > 0 {
        details.push(format!("{} waiting", grouped(sink.pending)));
    }
    if sink.behind {
        details.push("catching up".to_owned());
    }
    if sink.refused_total > 0 {
        details.push(format!("{} refused", grouped(sink.refused_total)));
    }
    details.join(" · ")
}

fn strip_item(part: &str, name: &str, kind: &str, state: &str, rate: &str, detail: &str) -> String {
    let said = match state {
        "ok" => "<span class=\"sr\">ok</span>".to_owned(),
        state => format!("<em>{state}</em>"),
    };
    format!(
        "<li class=\"{part}\" data-state=\"{state}\"><h3><i class=\"mark\"></i>{} <small>{}</small></h3>\
         <p class=\"rate\">{} {said}</p><p class=\"detail\">{}</p></li>\n",
        escape(name),
        escape(kind),
        escape(rate),
        escape(detail),
    )
}

fn card(chart: &ChartConfig, snapshot: &Snapshot) -> String {
    let board = snapshot
        .boards
        .iter()
        .find(|board| board.info.name == chart.view);
    let rows = board.map_or(0, |board| board.rows.len());
    let (title, view) = (escape(&chart.title), escape(&chart.view));
    let kind = match chart.kind {
        ChartType::Bar => "bar",
        ChartType::Line => "line",
    };
    let top = chart
        .top
        .map(|top| format!(" data-top=\"{top}\""))
        .unwrap_or_default();
    let tall = if chart.kind == ChartType::Bar && chart.top.is_none() {
        " tall"
    } else {
        ""
    };
    let note = chart
        .note
        .as_ref()
        .map(|note| format!("<p class=\"note\">{}</p>", escape(note)));
    let empty = if rows == 0 { "" } else { " hidden" };
    let foot = board.map(folded_note).unwrap_or_default();
    format!(
        "<article class=\"card chart{tall}\" data-view=\"{view}\" data-type=\"{kind}\" \
         data-x=\"{x}\" data-y=\"{y}\"{top} data-title=\"{title}\">\n\
         <header><h2>{title}</h2><nav aria-label=\"Take {title} along\">\
         <a href=\"api/v1/views/{view}?format=csv\" download=\"{view}.csv\">CSV</a>\
         <button type=\"button\" class=\"png\" disabled>PNG</button></nav></header>\n\
         {note}<p class=\"sentence\" hidden></p>\
         <p class=\"empty\"{empty}>Waiting for the first rows of <code>{view}</code>.</p>\
         <div class=\"plot\" role=\"img\" aria-label=\"{title}\"></div>\
         <p class=\"foot\">{foot}</p>\n\
         <details class=\"data\" open><summary>Data as table</summary>{table}</details></article>\n",
        x = escape(&chart.x),
        y = escape(&chart.y),
        note = note.unwrap_or_default(),
        table = board.map(table).unwrap_or_default(),
    )
}

fn folded_note(board: &Table) -> String {
    match board.suppressed {
        0 => String::new(),
        1 => "1 small group is folded or held back".to_owned(),
        n => format!("{} small groups are folded or held back", grouped(n)),
    }
}

fn table(board: &Table) -> String {
    let columns = &board.info.columns;
    let is_number = |i: usize| {
        matches!(columns[i].type_name().as_str(), "bigint" | "double")
            || columns[i].type_name().starts_with("decimal")
    };
    let class = |i: usize| if is_number(i) { " class=\"n\"" } else { "" };
    let mut html = "<div class=\"scroll\"><table><thead><tr>".to_owned();
    for (i, column) in columns.iter().enumerate() {
        let name = escape(&column.name.replace('_', " "));
        let _ = write!(html, "<th{}>{name}</th>", class(i));
    }
    html.push_str("</tr></thead><tbody>");
    // Of windows the newest matter, of groups the first in order.
    let newest_first = board.info.window.is_some();
    let mut shown: Vec<_> = board.rows.iter().collect();
    if newest_first {
        shown.reverse();
    }
    for (key, values) in shown.into_iter().take(TABLE_ROWS_MAX) {
        html.push_str(if &**key == PublishedRow::OTHER {
            "<tr class=\"folded\">"
        } else {
            "<tr>"
        });
        for (i, value) in values.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", class(i), escape(&cell(value)));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    if board.rows.len() > TABLE_ROWS_MAX {
        let more = board.rows.len() - TABLE_ROWS_MAX;
        let _ = write!(
            html,
            "<p class=\"foot\">and {} more, in the CSV</p>",
            grouped(more as u64)
        );
    }
    html
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::Int(n) if *n >= 0 => grouped(n.unsigned_abs()),
        Value::Int(n) => format!("-{}", grouped(n.unsigned_abs())),
        Value::Float(v) if v.is_nan() => "unknown".to_owned(),
        Value::Float(v) => format!("{v:.2}"),
        Value::Text(text) if text.is_empty() => "(empty)".to_owned(),
        Value::Text(text) | Value::Decimal(text) => text.clone(),
        Value::Bool(v) => v.to_string(),
        Value::Timestamp(us) => falaj_record::rfc3339(*us)
            .replace('T', " ")
            .replace('Z', ""),
        Value::Date(_) => value.json().as_str().unwrap_or_default().to_owned(),
    }
}

fn ledger(status: Option<&Status>) -> String {
    let head = "<h2>Nothing lost, nothing counted twice</h2>";
    let Some((status, checkpoint)) = status.and_then(|s| Some((s, s.checkpoint.as_ref()?))) else {
        return format!(
            "{head}<p class=\"muted\">The ledger is shown with the first checkpoint.</p>"
        );
    };
    let ledger = &status.ledger;
    let (source, topic) = (&ledger.source, &ledger.topic);
    let published = match source.replayed {
        0 => "published".to_owned(),
        replayed => format!("published (<b>{}</b> replayed)", grouped(replayed)),
    };
    let mut lines = vec![
        (
            "source".to_owned(),
            source.r#in,
            "in",
            vec![
                (source.published, published.as_str()),
                (source.rejected, "rejected"),
                (source.withheld, "withheld"),
            ],
        ),
        (
            "topic".to_owned(),
            topic.read,
            "read",
            vec![
                (topic.out, "out"),
                (topic.rejected, "rejected"),
                (topic.duplicate, "duplicate"),
            ],
        ),
    ];
    lines.extend(ledger.views.iter().map(|(name, view)| {
        let parts = vec![
            (view.applied, "applied"),
            (view.filtered, "filtered"),
            (view.late, "late"),
        ];
        (name.clone(), topic.out, "out", parts)
    }));
    let mut html = format!(
        "{head}<p class=\"muted\">Checkpoint of {} ({}, written in {})</p><ul class=\"ledger\">",
        clock(checkpoint.at),
        bytes(checkpoint.bytes),
        seconds(checkpoint.duration_ms / 1e3),
    );
    for (name, whole, word, parts) in lines {
        let sum: u64 = parts.iter().map(|(n, _)| n).sum();
        let state = if sum == whole { "ok" } else { "failing" };
        let said = if sum == whole {
            "balances"
        } else {
            "does not balance"
        };
        let parts: Vec<_> = parts
            .iter()
            .map(|(n, word)| format!("<b>{}</b> {word}", grouped(*n)))
            .collect();
        let _ = write!(
            html,
            "<li data-state=\"{state}\"><h3><i class=\"mark\"></i>{} <span class=\"sr\">{said}</span></h3>\
             <p><b>{}</b> {word} = {}</p></li>",
            escape(&name),
            grouped(whole),
            parts.join(" + "),
        );
    }
    html.push_str("</ul>");
    html
}

fn no_privacy() -> String {
    "<h2>What privacy does</h2><p class=\"muted\">The policy is shown once the pipeline runs.</p>"
        .to_owned()
}

fn privacy(panel: &PrivacyPanel) -> String {
    let codes = |paths: &[String]| -> String {
        let code = |path: &String| format!("<code>{}</code>", escape(path));
        paths.iter().map(code).collect::<Vec<_>>().join(" ")
    };
    let mut html = "<h2>What privacy does</h2>".to_owned();
    let _ = write!(
        html,
        "<p>A group is shown from <b>{}</b> people on, and changes only when at least <b>{}</b> \
         joined or left. Smaller groups are folded into <i>other</i> or held back.</p>",
        panel.k, panel.delta_k
    );
    if let Some(subject) = &panel.subject {
        let _ = write!(
            html,
            "<p><code>{}</code> becomes a pseudonym and is not kept{}.</p>",
            escape(&subject.from),
            if subject.required {
                "; a record without it is rejected"
            } else {
                ""
            },
        );
    }
    html.push_str(
        "<div class=\"scroll\"><table class=\"fields\"><caption>Fields that are kept</caption><thead>\
         <tr><th>field</th><th>from</th><th>class</th><th>treatment</th><th>purpose</th></tr></thead><tbody>",
    );
    for field in &panel.fields {
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{}</th><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&field.name),
            escape(&field.from),
            escape(&field.class),
            escape(&field.treatment),
            escape(&field.purpose),
        );
    }
    html.push_str("</tbody></table></div><dl>");
    let mut pair = |name: &str, text: String| {
        let _ = write!(html, "<div><dt>{name}</dt><dd>{text}</dd></div>");
    };
    pair(
        "Dropped",
        "everything else: its bytes are skipped, never decoded, stored, logged or shown".to_owned(),
    );
    if !panel.never.is_empty() {
        pair(
            "Never",
            format!("{} cannot even be declared", codes(&panel.never)),
        );
    }
    if let Some(requested) = &panel.requested {
        pair("Asked of the source", codes(requested));
    }
    let purposes = panel.purposes.iter().map(|purpose| {
        let consent = purpose
            .consent
            .as_ref()
            .map(|c| format!(" ({})", escape(c)));
        format!(
            "<b>{}</b>: {}{}, {}, kept {}",
            escape(&purpose.name),
            escape(&purpose.legal_basis.replace('_', " ")),
            consent.unwrap_or_default(),
            escape(&purpose.data_subjects),
            escape(&purpose.retention),
        )
    });
    let purposes = purposes.collect::<Vec<_>>().join("<br>");
    if !purposes.is_empty() {
        pair("Purpose", purposes);
    }
    pair(
        "Retention",
        format!("the topic keeps records {}", escape(&panel.topic_retention)),
    );
    let contact = panel
        .contact
        .as_ref()
        .map(|c| format!(", {}", escape(c)))
        .unwrap_or_default();
    pair(
        "Controller",
        format!("{}{contact}", escape(&panel.controller)),
    );
    html.push_str("</dl>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(n), text);
        }
        for (r, text) in [(0.0, "0"), (0.25, "0.2"), (9.96, "10"), (1_998.4, "1,998")] {
            assert_eq!(rate(r), text);
        }
        for (s, text) in [
            (0.34, "340 ms"),
            (2.46, "2.5 s"),
            (61.0, "61 s"),
            (600.0, "10 min"),
            (9e5, "10.4 d"),
        ] {
            assert_eq!(seconds(s), text);
        }
        assert_eq!(clock(Time(1_767_225_600_250_000)), "00:00:00");
        assert_eq!(cell(&Value::Int(-1_234)), "-1,234");
        assert_eq!(cell(&Value::Timestamp(60_000_000)), "1970-01-01 00:01:00");
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let hostile = "<img src=x onerror='a()'>&\"";
        let chart = ChartConfig {
            title: hostile.into(),
            view: hostile.into(),
            kind: ChartType::Bar,
            x: hostile.into(),
            y: hostile.into(),
            top: None,
            note: Some(hostile.into()),
        };
        let hub = Hub::new(hostile, &[], vec![chart]);
        let field = crate::FieldPanel {
            name: hostile.into(),
            from: hostile.into(),
            kind: hostile.into(),
            class: hostile.into(),
            treatment: hostile.into(),
            purpose: hostile.into(),
        };
        hub.set_privacy(PrivacyPanel {
            controller: hostile.into(),
            contact: Some(hostile.into()),
            fields: vec![field],
            never: vec![hostile.into()],
            requested: Some(vec![hostile.into()]),
            topic_retention: hostile.into(),
            ..PrivacyPanel::default()
        });
        let page = page(&hub);
        assert!(!page.contains("<img src=x"), "an element got in");
        assert!(
            !page.contains("{{") && !page.contains("}}"),
            "a gap was not filled"
        );
        assert!(page.contains("&lt;img src=x onerror=&#39;a()&#39;&gt;&amp;&quot;"));
    }

    #[test]
    fn a_sparkline_needs_two_samples_and_starts_at_zero() {
        assert_eq!(spark(&[1.0]), (String::new(), String::new()));
        let (line, area) = spark(&[0.0, 2.0]);
        assert_eq!(line, "M0.0,27.0L100.0,2.0");
        assert_eq!(area, "M0.0,27.0L100.0,2.0L100,28L0,28Z");
    }
}

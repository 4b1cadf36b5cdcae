//! The status page: each line with its timeline.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use galerna_http::{ApiError, Params};
use galerna_model::Timestamp;
use minijinja::Environment;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use super::{Api, failed, refused};
use crate::event::{Cause, LineState};
use crate::line::{Downtime, Line, NoticeKind};
use crate::store::{Delivery, DeliveryStatus, DowntimeQuery, Recipient};
use crate::topology::duration;

/// Widths of the timeline, in hours.
const WINDOWS: [(u32, &str); 4] = [(1, "1 hour"), (24, "1 day"), (72, "3 days"), (240, "10 days")];
/// Units of the timeline's drawing.
const WIDTH: f64 = 1_000.0;
/// Most downtimes that are drawn.
const MOST: usize = 20_000;
/// Marks of time on the timeline.
const MARKS: i64 = 4;
/// Nothing but this page's own files is loaded.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Api> {
    let css = get(|| async { ([(header::CONTENT_TYPE, "text/css")], include_str!("page.css")) });
    let js = get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], include_str!("page.js")) });
    Router::new().route("/lines", get(page)).route("/lines.css", css).route("/lines.js", js)
}

#[derive(Debug, Deserialize)]
struct View {
    /// Width of the timeline.
    hours: Option<u32>,
    /// Its end, RFC 3339; now unless given, or the last event if that was before the timeline.
    until: Option<String>,
    /// Only lines with this in their names.
    q: Option<String>,
}

/// A downtime, as it is drawn.
#[derive(Debug, Serialize)]
struct Bar {
    x: f64,
    width: f64,
    title: String,
}

/// A line, as it is drawn.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    down: bool,
    state: String,
    bars: Vec<Bar>,
    count: usize,
    total_ms: i64,
    total: String,
}

#[derive(Debug, Serialize)]
struct Told {
    line: String,
    text: &'static str,
    at: String,
    to: String,
    status: &'static str,
    reason: Option<String>,
}

/// What the template shows.
#[derive(Debug, Serialize)]
struct Shown {
    down: usize,
    count: usize,
    total: String,
    rows: Vec<Row>,
    marks: Vec<String>,
    hours: u32,
    windows: [(u32, &'static str); 4],
    q: String,
    until: Option<String>,
    earlier: String,
    later: String,
    at_end: bool,
    dead: Vec<Told>,
    told: Vec<Told>,
}

fn template() -> &'static Environment<'static> {
    static TEMPLATE: OnceLock<Environment<'static>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
        // The tests render it.
        if let Err(error) = environment.add_template("page", include_str!("page.html")) {
            tracing::error!(%error, "the page's template is wrong");
        }
        environment
    })
}

/// `2026-01-01 12:00:00`.
fn shown(at: Timestamp) -> String {
    at.to_string().replace('T', " ").split(['.', 'Z']).next().unwrap_or_default().to_owned()
}

fn row(line: &Line, downtimes: &[Downtime], from: Timestamp, until: Timestamp, now: Timestamp) -> Row {
    let span = until.millis_since(from).max(1) as f64;
    let place = |at: Timestamp| (at.millis_since(from) as f64 / span * WIDTH).clamp(0.0, WIDTH);
    let mut total_ms = 0;
    let bars = downtimes
        .iter()
        .map(|downtime| {
            let end = downtime.end.unwrap_or(now);
            total_ms += end.min(until).millis_since(downtime.start.max(from)).max(0);
            let (x, right) = (place(downtime.start), place(end));
            let lasted = duration(end.millis_since(downtime.start));
            let title = match downtime.end {
                Some(end) => format!("down from {} to {}, {lasted}", shown(downtime.start), shown(end)),
                None => format!("down since {}, {lasted}", shown(downtime.start)),
            };
            // Of what is too short to be seen, something is seen.
            Bar { x: x.min(WIDTH - 2.0), width: (right - x).max(2.0), title }
        })
        .collect();
    let silent = if line.cause == Cause::Silence { ", silent" } else { "" };
    let state = match line.state {
        LineState::Down => format!("down for {}{silent}", duration(now.millis_since(line.since))),
        LineState::Up => format!("up for {}", duration(now.millis_since(line.since))),
    };
    Row {
        name: line.name.clone(),
        down: line.state == LineState::Down,
        state,
        bars,
        count: downtimes.len(),
        total_ms,
        total: duration(total_ms),
    }
}

fn told(delivery: Delivery) -> Told {
    let to = match delivery.recipient {
        Recipient::Mail { list, .. } | Recipient::Log { list, .. } => list,
        Recipient::Webhook {} => "webhook".to_owned(),
    };
    let text = match delivery.what.kind {
        NoticeKind::Down => "is down",
        NoticeKind::Restored => "is restored",
    };
    let (status, reason) = (delivery.status.as_str(), delivery.reason);
    Told { line: delivery.what.line, text, at: shown(delivery.what.at), to, status, reason }
}

async fn page(State(api): State<Api>, Params(view): Params<View>) -> Result<impl IntoResponse, ApiError> {
    let hours = view.hours.unwrap_or(24).clamp(1, 24 * 366);
    let width = i64::from(hours) * 3_600_000;
    let asked =
        view.until.as_deref().map(Timestamp::parse).transpose().map_err(|why| refused("until", why))?;
    let lines = api.store.lines().await.map_err(failed)?;
    let latest = lines.iter().map(|line| line.heard).max();
    let clock = api.clock.now();
    // Of recorded days, as in the demo, the last are shown.
    let now = latest.filter(|latest| clock.millis_since(*latest) > width).unwrap_or(clock);
    let until = asked.unwrap_or(now);
    let from = until.plus_millis(-width);
    let query = DowntimeQuery { from: Some(from), to: Some(until), limit: MOST, ..DowntimeQuery::default() };
    let mut by_line: BTreeMap<String, Vec<Downtime>> = BTreeMap::new();
    for downtime in api.store.downtimes(&query).await.map_err(failed)? {
        by_line.entry(downtime.line.clone()).or_default().push(downtime);
    }
    let wanted = view.q.as_deref().unwrap_or_default().trim().to_lowercase();
    let matching = lines.iter().filter(|line| line.name.to_lowercase().contains(&wanted));
    let mut rows: Vec<Row> = matching
        .map(|line| row(line, by_line.get(&line.name).map_or(&[][..], Vec::as_slice), from, until, now))
        .collect();
    rows.sort_by(|a, b| {
        b.down.cmp(&a.down).then(b.total_ms.cmp(&a.total_ms)).then_with(|| a.name.cmp(&b.name))
    });
    let marks: Vec<String> = (0..=MARKS).map(|n| shown(from.plus_millis(width * n / MARKS))).collect();
    let dead = api.store.deliveries(Some(DeliveryStatus::Dead), 10).await.map_err(failed)?;
    let last = api.store.deliveries(None, 10).await.map_err(failed)?;
    let shown = Shown {
        down: lines.iter().filter(|line| line.state == LineState::Down).count(),
        count: lines.len(),
        total: duration(rows.iter().map(|row| row.total_ms).sum()),
        rows,
        marks,
        hours,
        windows: WINDOWS,
        q: view.q.unwrap_or_default(),
        until: view.until,
        earlier: from.to_string(),
        later: until.plus_millis(width).min(now).to_string(),
        at_end: until >= now,
        dead: dead.into_iter().map(told).collect(),
        told: last.into_iter().map(told).collect(),
    };
    let html =
        template().get_template("page").and_then(|page| page.render(Serde(shown))).map_err(|error| {
            tracing::error!(%error, "the page cannot be rendered");
            ApiError::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                "page_failed",
                "the page failed; the log says why",
            )
        })?;
    Ok(([(HeaderName::from_static("content-security-policy"), POLICY)], Html(html)))
}

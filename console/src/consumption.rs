//! What the counters of a source say was used, by hour, day and month.

use std::collections::HashMap;

use async_trait::async_trait;
use galerna_consumption::{Bar, Calendar, CountedReadings, CounterBars, QueryError, Step, of_source};
use galerna_model::{ParameterRegistry, SourceId, Timestamp};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::access::Visitor;
use super::act::{Act, Done};
use super::layout::{self, Query};
use super::observer::within_timeout;
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, format, param};

/// Counters of a source that are drawn.
const COUNTERS: usize = 20;
const HOUR_MS: i64 = 3_600_000;

const OFF: &str = "Consumption is not kept here: `ingest.consumption_zone` says by the days of which time zone it is to be.";

/// How far back is shown unless another stretch is asked for: two days of hours, 31 days, a year of months.
fn stretch(step: Step) -> i64 {
    match step {
        Step::Hour => 48 * HOUR_MS,
        Step::Day => 31 * 24 * HOUR_MS,
        Step::Month => 366 * 24 * HOUR_MS,
    }
}

/// What a call asks for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    source: String,
    /// Only of this device.
    device: Option<String>,
    /// `hour`, `day` (the default) or `month`.
    by: Option<String>,
    /// A date of the time zone, or a time with an offset.
    from: Option<String>,
    /// The same; now without it.
    until: Option<String>,
}

fn step(by: Option<&str>) -> Result<Step, Problem> {
    let unknown = |by: &str| {
        Problem::Invalid(format!(
            "`by` is `{}`; write hour, day or month",
            by.chars().take(40).collect::<String>()
        ))
    };
    by.map_or(Ok(Step::Day), |by| Step::parse(by).ok_or_else(|| unknown(by)))
}

fn instant(calendar: &Calendar, name: &str, text: &str) -> Result<Timestamp, Problem> {
    let parsed = calendar.parse_date(text).or_else(|| Timestamp::parse(text).ok());
    parsed.ok_or_else(|| {
        Problem::Invalid(format!(
            "`{name}` is no date of {} such as 2017-01-31, and no time with an offset such as 2017-01-31T18:00:00+01:00",
            calendar.zone()
        ))
    })
}

/// `GET /api/consumption`
pub(super) async fn answer(page: &Page, asked: Asked) -> Result<Value, Problem> {
    let calendar = page.parts.consumption.as_ref().ok_or_else(|| Problem::Conflict(OFF.to_owned()))?;
    let source = SourceId::new(&asked.source).map_err(|e| Problem::Invalid(format!("`source`: {e}")))?;
    let step = step(asked.by.as_deref())?;
    let until = match &asked.until {
        Some(text) => instant(calendar, "until", text)?,
        None => page.now(),
    };
    let from = match &asked.from {
        Some(text) => instant(calendar, "from", text)?,
        None => until.plus_millis(-stretch(step)),
    };
    let counters = used(page, calendar, &source, asked.device.as_deref(), step, from, until).await?;
    if counters.is_empty() && !is_known(page, &source).await? {
        return Err(Problem::Unknown(format!("there is no source `{source}`")));
    }
    let bar = |bar: &Bar| {
        json!({
            "from": bar.from, "until": bar.until, "local": calendar.text(bar.from, step == Step::Hour), "used": bar.used,
            "estimated": bar.estimated, "resets": bar.resets, "corrections": bar.corrections,
        })
    };
    let counter = |of: &CounterBars| {
        let known = page.parts.parameters.get(of.parameter);
        json!({
            "device": of.device, "parameter": of.parameter, "quantity": known.map(|known| &known.quantity),
            "unit": known.map(|known| &known.unit), "bars": of.bars.iter().map(bar).collect::<Vec<_>>(),
        })
    };
    Ok(json!({
        "source": source, "time_zone": calendar.zone(), "by": step, "from": from, "until": until,
        "counters": counters.iter().map(counter).collect::<Vec<_>>(),
    }))
}

/// Whether a source is in the list, or has sent anything.
async fn is_known(page: &Page, source: &SourceId) -> Result<bool, Problem> {
    let looked = async {
        if page.parts.store.sources.list().await?.iter().any(|known| known.id == *source) {
            return Ok(true);
        }
        Ok::<_, galerna_storage::StorageError>(!page.parts.store.readings.latest(source).await?.is_empty())
    };
    within_timeout("the store", looked).await.map_err(Problem::Unavailable)
}

async fn used(
    page: &Page,
    calendar: &Calendar,
    source: &SourceId,
    device: Option<&str>,
    step: Step,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<CounterBars>, Problem> {
    let asked = async {
        match of_source(&*page.parts.store.consumption, calendar, source, device, step, from, until).await {
            Ok(used) => Ok(Ok(used)),
            Err(QueryError::Storage(error)) => Err(error),
            Err(error) => Ok(Err(Problem::Invalid(error.to_string()))),
        }
    };
    within_timeout("the store", asked).await.map_err(Problem::Unavailable)?
}

/// The section of a source's page. `latest`: when its last reading was measured.
pub(super) async fn section(
    page: &Page,
    source: &SourceId,
    latest: Option<Timestamp>,
    params: &HashMap<String, String>,
) -> Markup {
    let Some(calendar) = &page.parts.consumption else {
        return layout::nothing(OFF);
    };
    let chosen = step(Some(param(params, "by")).filter(|by| !by.is_empty())).unwrap_or(Step::Day);
    let until = latest.map_or_else(|| page.now(), |latest| latest.plus_millis(1));
    let counters =
        used(page, calendar, source, None, chosen, until.plus_millis(-stretch(chosen)), until).await;
    let path = format!("/sources/{}", layout::encoded(source.as_str()));
    html! {
        nav.tabs aria-label="Length of the bars" {
            @for step in Step::ALL {
                @let query = Query(vec![("by", step.as_str().to_owned())]);
                a.button.small href=(query.link(&path)) aria-current=[(step == chosen).then_some("true")] { "By " (step.as_str()) }
                " "
            }
        }
        @match &counters {
            Err(problem) => { (layout::nothing(&problem.to_string())) }
            Ok(counters) if counters.is_empty() => { (layout::nothing("No counter of it has two readings in this time.")) }
            Ok(counters) => {
                @for of in counters.iter().take(COUNTERS) { (one(calendar, &page.parts.parameters, chosen, of)) }
                @if counters.len() > COUNTERS { p.dim { "The first " (COUNTERS) " of " (format::count(counters.len() as u64)) " counters; " code { "galerna sources consumption" } " has all." } }
            }
        }
        p.dim { "Of " (calendar.zone()) ". A bar is estimated (lighter) where readings are farther apart than its borders: the difference is spread evenly between them." }
    }
}

fn one(calendar: &Calendar, parameters: &ParameterRegistry, step: Step, of: &CounterBars) -> Markup {
    let known = parameters.get(of.parameter);
    let unit = known.map_or("", |known| known.unit.as_str());
    let total: f64 = of.bars.iter().filter_map(|bar| bar.used).sum();
    let columns = [
        Column::name(match step {
            Step::Hour => "Hour",
            Step::Day => "Day",
            Step::Month => "Month",
        }),
        Column::number("Used").explained(unit),
        Column::text("Estimated"),
        Column::number("Began anew"),
        Column::number("Corrected"),
    ];
    let known_bars = of.bars.iter().rev().filter(|bar| bar.used.is_some());
    let rows = known_bars.map(|bar| {
        [
            html! { (local(calendar, step, bar.from)) },
            html! { (format::exact(rounded(bar.used.unwrap_or_default()))) },
            html! { @if bar.estimated { "yes" } },
            html! { @if bar.resets > 0 { b data-tone="warn" { (bar.resets) } } @else { "0" } },
            html! { (bar.corrections) },
        ]
    });
    html! {
        h3 { (of.device) " " small { (known.map_or_else(|| of.parameter.to_string(), |known| known.quantity.replace('_', " "))) ", "
            (format::exact(rounded(total))) " " (unit) " in all" } }
        (drawn(calendar, step, of, unit))
        details { summary { "As a table" } (cards(&format!("Consumption of {}", of.device), &columns, rows)) }
    }
}

/// Counters have no more digits than this; sums of shares do.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn local(calendar: &Calendar, step: Step, at: Timestamp) -> String {
    let text = calendar.text(at, step == Step::Hour);
    match step {
        Step::Month => text.chars().take(7).collect(),
        _ => text,
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 80.0;

/// A bar chart, whose numbers are titles.
fn drawn(calendar: &Calendar, step: Step, of: &CounterBars, unit: &str) -> Markup {
    let most = of.bars.iter().filter_map(|bar| bar.used).fold(0.0, f64::max);
    let width = WIDTH / of.bars.len().max(1) as f64;
    let height = |used: f64| if most > 0.0 { used.max(0.0) / most * HEIGHT } else { 0.0 };
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) width="100%" height=(HEIGHT) preserveAspectRatio="none" role="img"
            aria-label=(format!("Consumption of {} by {}", of.device, step.as_str())) {
            @for (at, bar) in of.bars.iter().enumerate() {
                @if let Some(used) = bar.used {
                    rect x=(format!("{:.2}", at as f64 * width)) y=(format!("{:.2}", HEIGHT - height(used))) width=(format!("{:.2}", width * 0.85))
                        height=(format!("{:.2}", height(used))) fill="currentColor" opacity=(if bar.estimated { "0.4" } else { "0.75" }) {
                        title { (local(calendar, step, bar.from)) ": " (format::exact(rounded(used))) " " (unit) @if bar.estimated { ", estimated" } }
                    }
                }
            }
        }
    }
}

/// Counts all stored readings of a source anew.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Recount {
    source: String,
    reason: Option<String>,
}

#[async_trait]
impl Act for Recount {
    const NAME: &'static str = "source.recount";

    fn target(&self) -> String {
        galerna_audit::short(&self.source)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        format!("/sources/{}", layout::encoded(&self.source))
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let calendar = page.parts.consumption.clone().ok_or_else(|| Problem::Conflict(OFF.to_owned()))?;
        let source = SourceId::new(self.source.trim()).map_err(|e| Problem::Invalid(e.to_string()))?;
        let store = &page.parts.store;
        let parameters = page.parts.parameters.clone();
        let counted =
            CountedReadings::new(store.readings.clone(), store.consumption.clone(), parameters, calendar);
        // It takes as long as there are readings.
        let changed = counted.recount(&source).await.map_err(|e| Problem::Unavailable(e.to_string()))?;
        let message =
            format!("the readings of source {source} are counted anew; days that changed: {changed}");
        Ok(Done::with(message, json!({ "changed": changed })))
    }
}

//! `galerna sources consumption` and `recount`: what the counters of a source say was used, as the page tells it.

use clap::{Args, ValueEnum};
use galerna_settings::Settings;
use galerna_terminal::{Cell, List};
use serde_json::{Value, json};

use crate::args::Reason;
use crate::commands::alert_tables::{items, text};
use crate::commands::queues::because;
use crate::form::Form;
use crate::page_client::PageApi;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Hour,
    Day,
    Month,
}

/// What is asked for.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConsumptionArgs {
    /// The source
    source: String,
    /// Only of this device
    #[arg(long)]
    device: Option<String>,
    /// How long the bars are
    #[arg(long, value_enum, default_value_t = By::Day)]
    by: By,
    /// From this date of the time zone, such as 2017-01-31, or time with an offset [default: 31 days before the end; of hours 2, of
    /// months 366]
    #[arg(long, value_name = "WHEN")]
    from: Option<String>,
    /// Until this date or time [default: now]
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
}

/// Shows it.
///
/// # Errors
/// If no page answers, or it refuses.
pub(crate) async fn show(args: &ConsumptionArgs, form: &Form, settings: &Settings) -> anyhow::Result<()> {
    let by = match args.by {
        By::Hour => "hour",
        By::Day => "day",
        By::Month => "month",
    };
    let mut query = vec![("source", args.source.clone()), ("by", by.to_owned())];
    for (name, given) in [("device", &args.device), ("from", &args.from), ("until", &args.until)] {
        query.extend(given.iter().map(|given| (name, given.clone())));
    }
    let answer = PageApi::new(settings)?.get("/api/consumption", &query).await?;
    form.list(&answer, &listed(&answer, by))
}

fn listed(answer: &Value, by: &str) -> List {
    let mut list =
        List::new(&["device", "quantity", by, "used", "unit", "estimated", "began anew", "corrected"]);
    let mut bars = 0;
    for counter in items(&answer["counters"]) {
        for bar in items(&counter["bars"]).iter().filter(|bar| !bar["used"].is_null()) {
            bars += 1;
            let used = bar["used"].as_f64().unwrap_or_default();
            let cells = [
                Cell::text(text(&counter["device"])),
                Cell::text(text(&counter["quantity"])),
                Cell::text(text(&bar["local"])),
                // Counters have no more digits; sums of shares do.
                Cell::text(((used * 1e6).round() / 1e6).to_string()),
                Cell::text(text(&counter["unit"])),
                Cell::text(if bar["estimated"] == true { "yes" } else { "" }),
                Cell::number(bar["resets"].as_u64().unwrap_or_default()),
                Cell::number(bar["corrections"].as_u64().unwrap_or_default()),
            ];
            list.row(
                json!({ "device": counter["device"], "parameter": counter["parameter"], "bar": bar }),
                cells,
            );
        }
    }
    list.saying(format!("{bars} bars by {by}, of {}", text(&answer["time_zone"])))
}

/// Has all stored readings of a source counted anew.
///
/// # Errors
/// If no page answers, or it refuses.
pub(crate) async fn recount(
    source: &str,
    reason: &Reason,
    form: &Form,
    settings: &Settings,
) -> anyhow::Result<()> {
    let body = because(json!({ "source": source }), reason.reason.clone());
    let answer = PageApi::new(settings)?.post("/api/sources/recount", &body).await?;
    form.done(&answer, &text(&answer["message"]))
}

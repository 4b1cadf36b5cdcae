//! `galerna trace`: the history of a message, or of all messages of a call.
//!
//! The processes at `dispatcher.url` are asked, and all of `page.workers`. Each keeps the history of the last `trace.messages` calls in
//! its memory, for as long as it runs; a process that was started anew knows nothing of what was before. The id itself lasts
//! longer: dead letters, rejected readings and alert events have it in the broker and the store.

use anyhow::ensure;
use galerna_settings::Settings;
use galerna_telemetry::RemoteHistory;
use galerna_terminal::{Cell, List, eprint};
use serde_json::json;

use crate::args::TraceArgs;

/// Asks and prints.
///
/// # Errors
/// When nobody knows the message.
pub(crate) async fn run(args: &TraceArgs, settings: &Settings) -> anyhow::Result<()> {
    let mut urls: Vec<String> = settings.dispatcher.urls().map(str::to_owned).collect();
    urls.extend(settings.page.workers.iter().cloned());
    let asking = RemoteHistory::new(urls, settings.api.token.clone())?;
    let (steps, problems) = asking.ask(&args.id).await;
    for problem in &problems {
        eprint(format_args!("warning: not asked, since there is no good answer: {problem}"));
    }
    let mut shown = List::new(&["time (UTC)", "#after ms", "where", "what", "message"]);
    for step in &steps {
        let after = steps.first().map_or(0, |first| step.at.millis_since(first.at));
        let after = Cell::number(u64::try_from(after).unwrap_or(0));
        let [place, what, message] =
            [&step.place, &step.what, &step.message].map(|text| Cell::text(text.as_str()));
        shown.row(json!(step), [Cell::text(step.at.to_string()), after, place, what, message]);
    }
    let answer = json!({ "message": args.id, "steps": steps });
    // Programs read an empty list too.
    if args.form.is_json() || !steps.is_empty() {
        args.form.list(&answer, &shown)?;
    }
    ensure!(
        !steps.is_empty(),
        "nothing is known of `{}`; asked: {}. Each process keeps the last `trace.messages` calls while it runs; name workers and \
         notifiers elsewhere in `page.workers`",
        args.id,
        asking.urls().join(", ")
    );
    Ok(())
}

//! `galerna trace`: the history of a message, or of all messages of a call.
//!
//! The process at `dispatcher.url` is asked, and all of `page.workers`. Each keeps the history of the last `trace.messages` calls in
//! its memory, for as long as it runs; a process that was started anew knows nothing of what was before. The id itself lasts
//! longer: dead letters, rejected readings and alert events have it in the broker and the store.

use std::process::ExitCode;

use crate::args::TraceArgs;
use galerna_settings::Settings;
use galerna_telemetry::RemoteHistory;
use galerna_terminal::{eprint, print, print_json, table, thousands};

/// Asks and prints; exit code 1 when nobody knows the message.
pub(crate) async fn run(args: &TraceArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut urls = vec![settings.dispatcher.url.clone()];
    urls.extend(settings.page.workers.iter().cloned());
    let asking = RemoteHistory::new(urls, settings.api.token.clone())?;
    let (steps, problems) = asking.ask(&args.id).await;
    for problem in &problems {
        eprint(format_args!("warning: not asked, since there is no good answer: {problem}"));
    }
    if args.json {
        print_json(&serde_json::json!({ "message": args.id, "steps": steps }))?;
    } else if let Some(first) = steps.first() {
        let mut shown = table(&["time (UTC)", "#after ms", "where", "what", "message"]);
        for step in &steps {
            let after = u64::try_from(step.at.millis_since(first.at)).unwrap_or(0);
            shown.add_row([&step.at.to_string(), &thousands(after), &step.place, &step.what, &step.message]);
        }
        print(shown)?;
    }
    if steps.is_empty() {
        eprint(format_args!(
            "error: nothing is known of `{}`; asked: {}. Each process keeps the last `trace.messages` calls while it runs; name \
             workers and notifiers elsewhere in `page.workers`",
            args.id,
            asking.urls().join(", ")
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

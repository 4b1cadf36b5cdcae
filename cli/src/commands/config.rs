//! `galerna config`.

use serde_json::json;

use crate::args::ConfigArgs;
use galerna_settings::{Settings, Shown};
use galerna_terminal::{Cell, List};

/// Prints the effective configuration.
pub(crate) fn run(args: &ConfigArgs, settings: &Settings) -> anyhow::Result<()> {
    let answer: serde_json::Map<_, _> = settings
        .shown()
        .map(|Shown { name, value, origin, .. }| {
            (name.to_owned(), json!({ "value": value, "from": origin.to_string() }))
        })
        .collect();
    let mut list = List::new(&["setting", "value", "from", "what it is for"]);
    for Shown { name, value, origin, about } in settings.shown() {
        let item = json!({ "setting": name, "value": value, "from": origin.to_string(), "about": about });
        list.row(
            item,
            [Cell::text(name), Cell::text(value), Cell::text(origin.to_string()), Cell::text(about)],
        );
    }
    args.form.list(&answer.into(), &list)
}

//! `galerna config`.

use serde_json::json;

use crate::args::ConfigArgs;
use galerna_settings::{Settings, Shown};
use galerna_terminal::{print, print_json, table};

/// Prints the effective configuration.
pub(crate) fn run(args: &ConfigArgs, settings: &Settings) -> anyhow::Result<()> {
    if args.json {
        let settings: serde_json::Map<_, _> = settings
            .shown()
            .map(|Shown { name, value, origin, .. }| {
                (name.to_owned(), json!({ "value": value, "from": origin.to_string() }))
            })
            .collect();
        return print_json(&settings);
    }
    let mut shown = table(&["setting", "value", "from", "what it is for"]);
    for Shown { name, value, origin, about } in settings.shown() {
        shown.add_row([name, &value, &origin.to_string(), about]);
    }
    print(shown)
}

//! `galerna config`.

use serde_json::json;

use crate::args::ConfigArgs;
use galerna_settings::Config;
use galerna_terminal::{print, print_json, table};

/// Prints the effective configuration.
pub(crate) fn run(args: &ConfigArgs, config: &Config) -> anyhow::Result<()> {
    if args.json {
        let settings: serde_json::Map<_, _> = config
            .shown()
            .map(|(name, value, origin, _)| {
                (name.to_owned(), json!({ "value": value, "from": origin.to_string() }))
            })
            .collect();
        return print_json(&settings);
    }
    let mut shown = table(&["setting", "value", "from", "what it is for"]);
    for (name, value, origin, about) in config.shown() {
        shown.add_row([name, &value, &origin.to_string(), about]);
    }
    print(shown)
}

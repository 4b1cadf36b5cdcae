//! `galerna maintainer run-once`.

use galerna_maintainer::{Run, Task};
use galerna_server::backends::{broker, store};
use galerna_server::modules;
use galerna_settings::Settings;
use galerna_terminal::{print, print_json, table, thousands};

use crate::args::TaskName;

/// One task of the maintainer, once.
pub(crate) async fn run_once(
    task: TaskName,
    force: bool,
    json: bool,
    settings: &Settings,
) -> anyhow::Result<()> {
    let task = match task {
        TaskName::Accounts => Task::Accounts,
        TaskName::ReconcileEmpty => Task::ReconcileEmpty,
        TaskName::Timeouts => Task::Timeouts,
        TaskName::Deletions => Task::Deletions,
    };
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let accounts = modules::accounts_source(settings, &store)?;
    let maintainer = modules::maintainer(settings, &store, &broker, accounts, Default::default())?;
    // A process that has just started knows no lease's age: it watches for the length of one.
    let watch = (task == Task::Timeouts).then_some(settings.dispatcher.lease);
    let report = maintainer.run_once(task, Run { watch, force }).await?;
    if json {
        return print_json(&report);
    }
    let mut shown = table(&["what", "#how many"]);
    if let serde_json::Value::Object(fields) = serde_json::to_value(&report)? {
        for (name, value) in fields {
            if let Some(n) = value.as_u64() {
                shown.add_row([name, thousands(n)]);
            }
        }
    }
    print(shown)
}

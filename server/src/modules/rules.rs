//! The alert rules of the settings.

use anyhow::{Context, anyhow};
use galerna_bolts::{RuleSet, RuleWarning};
use galerna_model::Rule;
use galerna_settings::Settings;
use galerna_storage::Store;

use super::worker::parameters;

/// Checks the rules that the settings name.
pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    match &settings.ingest.rules {
        Some(path) => {
            compiled(&read(settings)?).with_context(|| format!("`ingest.rules` is `{}`", path.display()))
        }
        None => Ok(()),
    }
}

/// Puts the alert rules of `ingest.rules` into the store.
pub async fn load(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let rules = read(settings)?;
    if !rules.is_empty() {
        let (parameters, endpoints) = (parameters(settings)?, store.notifications.endpoints().await?);
        for rule in &rules {
            for warning in RuleWarning::of(rule, &parameters, &endpoints) {
                tracing::warn!(rule = rule.id, %warning, "an alert rule names what there is not");
            }
        }
    }
    put(store, rules).await
}

/// The alert rules of `ingest.rules`, as they are written.
fn read(settings: &Settings) -> anyhow::Result<Vec<Rule>> {
    let Some(path) = &settings.ingest.rules else { return Ok(Vec::new()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("`ingest.rules` is `{shown}`, which cannot be read"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`ingest.rules` is `{shown}`, which is no list of rules"))
}

fn compiled(rules: &[Rule]) -> anyhow::Result<()> {
    let (_, wrong) = RuleSet::compile(rules.to_vec());
    match wrong.first() {
        Some(error) => Err(anyhow!("alert rule `{}` is wrong: {}", error.rule, error.problem)),
        None => Ok(()),
    }
}

/// Checks rules and puts them into the store.
pub async fn put(store: &Store, rules: Vec<Rule>) -> anyhow::Result<()> {
    compiled(&rules)?;
    for rule in &rules {
        store.rules.put(rule).await?;
    }
    Ok(())
}

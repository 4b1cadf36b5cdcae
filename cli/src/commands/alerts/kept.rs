//! Rules and endpoints: what is kept, as JSON that is shown, saved and deleted alike.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use galerna_model::Rule;
use galerna_storage::Endpoint;
use galerna_terminal::List;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::args::{KeptArgs, KeptCommand};
use super::{act, on};
use crate::commands::alert_tables as tables;
use crate::page_client::PageApi;

/// Rules or endpoints.
pub(super) struct Kind {
    /// One of them.
    one: &'static str,
    /// All of them: their path, and their name in the answer.
    all: &'static str,
    /// What is gone with one.
    loss: &'static str,
    /// The first field of one that it has not.
    strange: fn(&Value) -> Option<String>,
    list: fn(&[Value]) -> List,
}

pub(super) static RULES: Kind = Kind {
    one: "rule",
    all: "rules",
    loss: "What it knows of each device is deleted too; alerts of it that fire are resolved with that reason.",
    strange: strange::<Rule>,
    list: tables::rules,
};

pub(super) static ENDPOINTS: Kind = Kind {
    one: "endpoint",
    all: "endpoints",
    loss: "Nobody is told there any more, by no rule that names it; its secret is gone.",
    strange: strange::<Endpoint>,
    list: tables::endpoints,
};

pub(super) async fn kept(kind: &Kind, args: KeptArgs, api: &PageApi) -> anyhow::Result<()> {
    let (form, path) = (&args.form, format!("/api/{}", kind.all));
    match args.command {
        KeptCommand::List => {
            let found = api.get(&path, &[]).await?;
            form.list(&found[kind.all], &(kind.list)(tables::items(&found[kind.all])))
        }
        KeptCommand::Show { id } => {
            let found = api.get(&path, &[("id", id.clone())]).await?;
            let one = &found[kind.all][0];
            form.one(one, &id, || tables::fields(one))
        }
        KeptCommand::Save { file, reason } => {
            let mut all = to_save(kind, &file)?;
            for one in &mut all {
                if let Some(reason) = &reason.reason {
                    one["reason"] = json!(reason);
                }
            }
            let many = all.len() > 1;
            for one in all {
                let saved = act(api, &format!("{path}/save"), &one, form).await;
                // Of one in a list it must be said which it is; those before it are saved.
                if many {
                    saved.with_context(|| format!("{} {}", kind.one, tables::text(&one["id"])))?;
                } else {
                    saved?;
                }
            }
            Ok(())
        }
        KeptCommand::Delete { id, reason, sure } => {
            if !sure.is_said(&format!("Delete {} {id}? {}", kind.one, kind.loss))? {
                bail!("{} {id} is not deleted", kind.one);
            }
            act(api, &format!("{path}/delete"), &on(&id, reason.reason), form).await
        }
        KeptCommand::Test { id, reason } => {
            act(api, &format!("{path}/test"), &on(&id, reason.reason), form).await
        }
    }
}

/// Reads one or a list of them; what only the page can validate, it validates.
fn to_save(kind: &Kind, file: &Path) -> anyhow::Result<Vec<Value>> {
    let name = if file == Path::new("-") { "standard input".into() } else { file.display().to_string() };
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("cannot read {name}"))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))?;
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    ensure!(!all.is_empty(), "{name} holds no {}", kind.one);
    for one in &all {
        ensure!(
            one.is_object(),
            "{name} holds neither a {0} nor a list of them: write JSON objects",
            kind.one
        );
        if let Some(field) = (kind.strange)(one) {
            bail!(
                "`{field}` in {name} is no field of such a {0}; see `galerna {1} show ID --json`",
                kind.one,
                kind.all
            );
        }
    }
    Ok(all)
}

/// The first field that a thing of this type has not: a field misspelt would else be left out without a word. Nothing for what is
/// no such thing at all: the page says what is wrong with it.
fn strange<T: DeserializeOwned + Serialize>(given: &Value) -> Option<String> {
    let understood = T::deserialize(given).ok()?;
    let understood = serde_json::to_value(understood).ok()?;
    fn missing(given: &Value, known: &Value, within: &str) -> Option<String> {
        given.as_object()?.iter().find_map(|(name, value)| {
            let path = format!("{within}{name}");
            match known.get(name) {
                None => (path != "reason").then_some(path),
                Some(known) => missing(value, known, &format!("{path}.")),
            }
        })
    }
    missing(given, &understood, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_found_and_what_the_store_has_is_taken() {
        let rule = json!({"id": "r", "name": "n", "account": null, "devices": "*", "severity": "info", "endpoints": [],
            "cooldown_ms": 0, "enabled": true, "condition": {"kind": "silent", "after_ms": 5000}, "reason": "why"});
        assert_eq!(strange::<Rule>(&rule), None);
        let endpoint = json!({"id": "e", "name": "e", "kind": "webhook", "url": "https://example.org", "headers": {"x": "1"}});
        assert_eq!(strange::<Endpoint>(&endpoint), None);
        let mut misspelt = rule.clone();
        misspelt["condition"]["for"] = json!(1);
        assert_eq!(strange::<Rule>(&misspelt).as_deref(), Some("condition.for"));
        let mut misspelt = endpoint.clone();
        misspelt["group"] = json!(1);
        assert_eq!(strange::<Endpoint>(&misspelt).as_deref(), Some("group"));
    }
}

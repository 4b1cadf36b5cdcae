//! Who is to be told, as it stands now: rules, endpoints and silences.

use std::collections::HashMap;

use galerna_model::Timestamp;
use galerna_model::{AlertEvent, Rule};
use galerna_storage::{Endpoint, Result, Silence, Store};
use globset::{Glob, GlobMatcher};

pub(crate) struct Routing {
    rules: HashMap<String, Rule>,
    endpoints: HashMap<String, Endpoint>,
    silences: Vec<(Silence, Option<GlobMatcher>)>,
}

impl Routing {
    pub(crate) async fn load(store: &Store) -> Result<Self> {
        let rules = store.rules.list().await?;
        let endpoints = store.notifications.endpoints().await?;
        let silences = store.notifications.silences().await?;
        Ok(Self {
            rules: rules.into_iter().map(|rule| (rule.id.clone(), rule)).collect(),
            endpoints: endpoints.into_iter().map(|endpoint| (endpoint.id.clone(), endpoint)).collect(),
            silences: silences.into_iter().filter_map(compile).collect(),
        })
    }

    /// The ids of the endpoints that a rule names, each once.
    pub(crate) fn endpoints_of(&self, rule: &str) -> Vec<&str> {
        let mut ids: Vec<&str> = Vec::new();
        for id in self.rules.get(rule).map(|rule| rule.endpoints.as_slice()).unwrap_or_default() {
            if !ids.contains(&id.as_str()) {
                ids.push(id);
            }
        }
        ids
    }

    /// Whether there is a rule with this id, in force, that names the endpoint.
    pub(crate) fn tells(&self, rule: &str, endpoint: &str) -> bool {
        self.rules
            .get(rule)
            .is_some_and(|rule| rule.enabled && rule.endpoints.iter().any(|id| id == endpoint))
    }

    pub(crate) fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    /// The silence that an alert falls under.
    pub(crate) fn silence(&self, event: &AlertEvent, now: Timestamp) -> Option<&Silence> {
        self.silences
            .iter()
            .find(|(silence, device)| {
                silence.until > now
                    && silence.account.as_ref().is_none_or(|account| *account == event.account)
                    && silence.rule.as_ref().is_none_or(|rule| *rule == event.rule)
                    && device.as_ref().is_none_or(|device| device.is_match(&event.device))
            })
            .map(|(silence, _)| silence)
    }
}

fn compile(silence: Silence) -> Option<(Silence, Option<GlobMatcher>)> {
    match silence.device.as_deref().map(Glob::new) {
        None => Some((silence, None)),
        Some(Ok(device)) => Some((silence, Some(device.compile_matcher()))),
        Some(Err(error)) => {
            tracing::warn!(silence = %silence.id, %error, "a silence is not used");
            None
        }
    }
}

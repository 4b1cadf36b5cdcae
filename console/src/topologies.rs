//! All topologies that run, here and in the processes that the page knows, each with what can be done with it.

use std::collections::HashMap;

use async_trait::async_trait;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use galerna_audit::Action as Audited;
use galerna_control::page::{Action, autoscale_fields, list, one, rebalance_fields};
use galerna_control::{Autoscale as Bounds, ControlError, Details, Summary, Topologies};
use galerna_telemetry::{Peers, TelemetryError};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{Act, ActOn, Done, Question, Request};
use super::fields::Fields;
use super::layout::{asking_button, button, encoded, form_start};
use super::problem::Problem;
use super::{Page, Params, format, shown};

/// The topologies that the page shows.
#[async_trait]
pub trait TopologiesView: Send + Sync {
    /// A line for each, and in words who does not tell.
    async fn all(&self) -> (Vec<Summary>, Vec<String>);

    /// One of them, if somebody knows it.
    async fn get(&self, name: &str) -> Option<Details>;

    /// Those that run in this process, which can be changed here.
    fn here(&self) -> Option<&Topologies>;
}

#[async_trait]
impl TopologiesView for Topologies {
    async fn all(&self) -> (Vec<Summary>, Vec<String>) {
        (self.list(), Vec::new())
    }

    async fn get(&self, name: &str) -> Option<Details> {
        Topologies::get(self, name).ok()
    }

    fn here(&self) -> Option<&Topologies> {
        Some(self)
    }
}

/// Topologies of other processes: `GET <url>/api/v1/topologies` of each. They are changed where they run.
pub struct RemoteTopologies {
    peers: Peers,
}

impl RemoteTopologies {
    /// Those at these base URLs, which take this token.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(urls: Vec<String>, token: Option<String>) -> Result<Self, TelemetryError> {
        use super::backends::{RETRY_AFTER, WORKER_TIMEOUT};
        Ok(Self { peers: Peers::new(urls, token, WORKER_TIMEOUT, RETRY_AFTER)? })
    }
}

#[derive(Deserialize)]
struct Listed {
    topologies: Vec<Summary>,
}

#[async_trait]
impl TopologiesView for RemoteTopologies {
    async fn all(&self) -> (Vec<Summary>, Vec<String>) {
        let (mut all, mut unresponsive) = (Vec::new(), Vec::new());
        for answer in self.peers.get::<Listed>("api/v1/topologies").await {
            match answer {
                // A module without topologies has nothing to tell.
                Ok(told) => all.extend(told.into_iter().flat_map(|told| told.topologies)),
                Err(e) => unresponsive.push(e.to_string()),
            }
        }
        (all, unresponsive)
    }

    async fn get(&self, name: &str) -> Option<Details> {
        let path = format!("api/v1/topologies/{}", encoded(name));
        let answers = self.peers.get::<Details>(&path).await;
        answers.into_iter().find_map(|answer| answer.ok().flatten())
    }

    fn here(&self) -> Option<&Topologies> {
        None
    }
}

/// `GET /topologies`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let (all, unresponsive) = page.parts.topologies.all().await;
    let content = html! {
        div.title { h1 { "Topologies" } p.dim { (format::count(all.len() as u64)) " that run, or ended in the last ten minutes" } }
        section #topologies data-refresh="2" { (list(&all, |t| format!("/topologies/{}", encoded(&t.name)))) }
    };
    page.frame(&visitor, "/topologies", "Topologies", &params, unresponsive, &content).await
}

/// `GET /topologies/<name>`
pub(super) async fn show_one(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(one_of(&page, &visitor, &name, &params).await)
}

async fn one_of(
    page: &Page,
    visitor: &Visitor,
    name: &str,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let details = page.parts.topologies.get(name).await;
    let details = details.ok_or_else(|| Problem::Unknown(format!("no topology is called `{name}`")))?;
    let buttons = match page.parts.topologies.here() {
        Some(_) => buttons(visitor, &details),
        None => {
            html! { p.hint { "It runs in another process, at whose API it can be changed: " code { "galerna --dispatcher URL topology" } "." } }
        }
    };
    let content = html! { section #topology data-refresh="2" { (one(&details, &buttons)) } };
    Ok(page.frame(visitor, "/topologies", name, params, Vec::new(), &content).await)
}

fn buttons(visitor: &Visitor, details: &Details) -> Markup {
    let name = details.summary.name.as_str();
    let back = format!("/topologies/{}", encoded(name));
    let fields = [("name", name)];
    html! {
        @for action in Action::on(details) {
            @let path = format!("/topologies/{}", action.as_str());
            @if action == Action::Activate { (asking_button(visitor, &path, &fields, action.verb(), action.class(), &back)) }
            @else { (button(visitor, &path, &fields, action.verb(), action.class(), &back)) }
        }
        @if !details.rebalanced().is_empty() && !details.summary.status.is_over() {
            form.inline method="post" action="/topologies/rebalance" {
                (form_start(visitor, &back))
                input type="hidden" name="name" value=(name);
                (rebalance_fields(details, visitor.may_act()))
            }
            form.inline method="post" action="/topologies/autoscale" {
                (form_start(visitor, &back))
                input type="hidden" name="name" value=(name);
                (autoscale_fields(details, visitor.may_act()))
            }
        }
    }
}

fn problem(error: &ControlError) -> Problem {
    let text = error.to_string();
    match error {
        ControlError::Unknown(_) => Problem::Unknown(text),
        ControlError::Ending { .. } => Problem::Conflict(text),
        ControlError::Checkpoint { .. } => Problem::Unavailable(text),
        _ => Problem::Invalid(text),
    }
}

fn here(page: &Page) -> Result<&Topologies, Problem> {
    let elsewhere = "this topology runs in another process; change it at the API of that";
    page.parts.topologies.here().ok_or_else(|| Problem::Conflict(elsewhere.to_owned()))
}

/// One topology, by its name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByName {
    name: String,
    reason: Option<String>,
}

impl Request for ByName {
    fn target(&self) -> String {
        self.name.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// What is done to a topology and needs nothing but its name.
#[async_trait]
pub(super) trait Change: Send + Sync + 'static {
    /// In the audit log.
    const AUDITED: Audited;
    /// On the page.
    const ACTION: Action;

    /// Does it; answers what it made.
    async fn change(topologies: &Topologies, name: &str) -> Result<Value, ControlError>;
}

#[async_trait]
impl<C: Change> ActOn for C {
    const NAME: &'static str = C::AUDITED.name();
    type Request = ByName;

    fn question(request: &ByName) -> Option<Question> {
        let (action, name) = (C::ACTION, request.name.as_str());
        // Nothing is stopped by activating it.
        (action != Action::Activate).then(|| Question {
            title: format!("{}: {name}?", action.verb()),
            text: action.question(name),
            verb: action.verb(),
        })
    }

    fn back(request: &ByName) -> String {
        format!("/topologies/{}", encoded(&request.name))
    }

    async fn run(request: &ByName, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let answer = C::change(here(page)?, &request.name).await.map_err(|error| problem(&error))?;
        Ok(Done::with(C::AUDITED.outcome(&request.name, &answer), answer))
    }
}

/// Lets its spouts emit.
pub(super) struct Activate;

#[async_trait]
impl Change for Activate {
    const AUDITED: Audited = Audited::ActivateTopology;
    const ACTION: Action = Action::Activate;

    async fn change(topologies: &Topologies, name: &str) -> Result<Value, ControlError> {
        topologies.activate(name).map(|()| json!({}))
    }
}

/// Has its spouts stop emitting.
pub(super) struct Deactivate;

#[async_trait]
impl Change for Deactivate {
    const AUDITED: Audited = Audited::DeactivateTopology;
    const ACTION: Action = Action::Deactivate;

    async fn change(topologies: &Topologies, name: &str) -> Result<Value, ControlError> {
        topologies.deactivate(name).map(|()| json!({}))
    }
}

/// Takes a checkpoint.
pub(super) struct Checkpoint;

#[async_trait]
impl Change for Checkpoint {
    const AUDITED: Audited = Audited::CheckpointTopology;
    const ACTION: Action = Action::Checkpoint;

    async fn change(topologies: &Topologies, name: &str) -> Result<Value, ControlError> {
        topologies.checkpoint(name).await.map(|taken| json!({ "id": taken.id }))
    }
}

/// Ends it after a checkpoint, so that another program goes on from there.
pub(super) struct Upgrade;

#[async_trait]
impl Change for Upgrade {
    const AUDITED: Audited = Audited::UpgradeTopology;
    const ACTION: Action = Action::Upgrade;

    async fn change(topologies: &Topologies, name: &str) -> Result<Value, ControlError> {
        let begun = topologies.upgrade(name, galerna_control::Upgrade::default()).await;
        begun.map(|begun| json!({ "status": "ending", "checkpoint": begun.checkpoint.id.0 }))
    }
}

/// Ends it.
pub(super) struct Kill;

#[async_trait]
impl Change for Kill {
    const AUDITED: Audited = Audited::KillTopology;
    const ACTION: Action = Action::Kill;

    async fn change(topologies: &Topologies, name: &str) -> Result<Value, ControlError> {
        topologies.begin_kill(name, None).map(|()| json!({}))
    }
}

/// Other executors for a component.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rebalance {
    name: String,
    component: String,
    executors: usize,
    reason: Option<String>,
}

#[async_trait]
impl Act for Rebalance {
    const NAME: &'static str = Audited::RebalanceTopology.name();

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let executors = fields.text("executors").trim().parse();
        Ok(Self {
            name: fields.text("name").to_owned(),
            component: fields.text("component").to_owned(),
            executors: executors
                .map_err(|_| Problem::Invalid("write the executors as a whole number".to_owned()))?,
            reason: fields.given("reason").map(str::to_owned),
        })
    }

    fn target(&self) -> String {
        self.name.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        let Self { name, component, executors, .. } = self;
        Some(Question {
            title: format!("Rebalance: {name}?"),
            text: format!(
                "From now on {executors} {} of `{component}` may execute at the same time. Keys stay where they are.",
                format::plural(*executors as u64, "task", "tasks")
            ),
            verb: "Rebalance",
        })
    }

    fn back(&self) -> String {
        format!("/topologies/{}", encoded(&self.name))
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let done = here(page)?.rebalance(&self.name, &self.component, self.executors).await;
        let done = done.map_err(|error| problem(&error))?;
        let pause_ms = done.pause.as_secs_f64() * 1e3;
        let answer = json!({
            "component": &*done.component, "from": done.from, "to": done.to, "pause_ms": pause_ms,
        });
        let outcome = Audited::RebalanceTopology.outcome(&self.name, &answer);
        Ok(Done::with(format!("{outcome}; that took {}", format::millis(pause_ms)), answer))
    }
}

/// Executors that follow the load of a component between bounds, or not any more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Autoscale {
    name: String,
    component: String,
    min: usize,
    max: usize,
    #[serde(default)]
    stop: bool,
    reason: Option<String>,
}

#[async_trait]
impl Act for Autoscale {
    const NAME: &'static str = Audited::AutoscaleTopology.name();

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let number = |name: &str| {
            let number = fields.text(name).trim().parse();
            number.map_err(|_| Problem::Invalid(format!("write `{name}` as a whole number of executors")))
        };
        Ok(Self {
            name: fields.text("name").to_owned(),
            component: fields.text("component").to_owned(),
            min: number("min")?,
            max: number("max")?,
            stop: fields.given("stop").is_some(),
            reason: fields.given("reason").map(str::to_owned),
        })
    }

    fn target(&self) -> String {
        self.name.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        let Self { name, component, min, max, .. } = self;
        Some(match self.stop {
            true => Question {
                title: format!("Stop autoscaling: {name}?"),
                text: format!("The executors of `{component}` stay as they are from now on."),
                verb: "Stop autoscaling",
            },
            false => Question {
                title: format!("Autoscale: {name}?"),
                text: format!(
                    "From now on `{component}` has {min} to {max} executors: more while they are busy, fewer while they are not."
                ),
                verb: "Autoscale",
            },
        })
    }

    fn back(&self) -> String {
        format!("/topologies/{}", encoded(&self.name))
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let topologies = here(page)?;
        let done = match self.stop {
            true => topologies.stop_autoscale(&self.name, &self.component),
            false => {
                topologies.autoscale(&self.name, &self.component, Bounds::between(self.min..=self.max)).await
            }
        };
        done.map_err(|error| problem(&error))?;
        let autoscaled = topologies.get(&self.name).map_err(|error| problem(&error))?.autoscaled;
        let answer = serde_json::json!({ "name": self.name, "autoscaled": autoscaled });
        Ok(Done::with(Audited::AutoscaleTopology.outcome(&self.name, &answer), answer))
    }
}

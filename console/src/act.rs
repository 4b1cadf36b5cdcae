//! Actions: each one type, with a form and a JSON call that do the same.

use std::borrow::Cow;
use std::collections::HashMap;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use galerna_audit as audit;
use galerna_storage::AuditEntry;
use maud::html;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use utoipa::openapi::{OpenApi, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::access::{Visitor, local_path};
use super::fields::Fields;
use super::problem::Problem;
use super::{
    Feedback, Page, alerts, body, consumption, dead_letter_actions, deliveries, dispatching, endpoints,
    format, observer, openapi, queue_actions, rules, schedule_actions, silences, source_actions, topologies,
};

/// What an action did.
pub(super) struct Done {
    /// For people.
    pub(super) message: String,
    /// For programs, beside the message.
    pub(super) more: Value,
    /// For whoever did it, shown once and written down nowhere.
    pub(super) secret: Option<String>,
}

impl Done {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), more: json!({}), secret: None }
    }

    pub(super) fn with(message: impl Into<String>, more: Value) -> Self {
        Self { message: message.into(), more, secret: None }
    }
}

/// What to ask before something is destroyed.
pub(super) struct Question {
    pub(super) title: String,
    /// What will be gone.
    pub(super) text: String,
    /// Of the button that does it.
    pub(super) verb: &'static str,
}

/// What can be done at once and is asked about only where the button had no room for a reason (see [`layout::asking_button`]).
const ASKED: [&str; 6] = ["Activate", "Pause", "Unpause", "Test-fire", "Resend", "New token"];

/// Something that operators do.
#[async_trait]
pub(super) trait Act: DeserializeOwned + ToSchema + Send + Sync + 'static {
    /// Its name in the audit log.
    const NAME: &'static str;

    /// Reads the form; by default its fields are those of the JSON call.
    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        serde_json::from_value(fields.to_json())
            .map_err(|e| Problem::Invalid(format!("the form is not understood: {e}")))
    }

    /// What it is done to.
    fn target(&self) -> String;
    /// Why, if a reason was given.
    fn why(&self) -> Option<&str>;
    /// What to ask first.
    fn question(&self) -> Option<Question> {
        None
    }
    /// The page to go on with.
    fn back(&self) -> String;
    /// Does it.
    async fn run(&self, page: &Page, visitor: &Visitor) -> Result<Done, Problem>;
}

/// What something is to be done to, where several actions ask for the same.
pub(super) trait Request: DeserializeOwned + ToSchema + Send + Sync + 'static {
    /// As [`Act::from_form`].
    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        serde_json::from_value(fields.to_json())
            .map_err(|e| Problem::Invalid(format!("the form is not understood: {e}")))
    }

    /// What it names.
    fn target(&self) -> String;
    /// Why, if a reason was given.
    fn why(&self) -> Option<&str>;
}

/// An action on what a [`Request`] names.
#[async_trait]
pub(super) trait ActOn: Send + Sync + 'static {
    /// Its name in the audit log.
    const NAME: &'static str;
    /// What it is done to.
    type Request: Request;

    /// What to ask first.
    fn question(_: &Self::Request) -> Option<Question> {
        None
    }
    /// The page to go on with.
    fn back(request: &Self::Request) -> String;
    /// Does it.
    async fn run(request: &Self::Request, page: &Page, visitor: &Visitor) -> Result<Done, Problem>;
}

/// The [`Act`] that an [`ActOn`] is.
pub(super) struct On<A: ActOn>(A::Request);

impl<'de, A: ActOn> Deserialize<'de> for On<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        A::Request::deserialize(deserializer).map(Self)
    }
}

impl<A: ActOn> PartialSchema for On<A> {
    fn schema() -> RefOr<Schema> {
        A::Request::schema()
    }
}

impl<A: ActOn> ToSchema for On<A> {
    fn name() -> Cow<'static, str> {
        A::Request::name()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        A::Request::schemas(schemas);
    }
}

#[async_trait]
impl<A: ActOn> Act for On<A> {
    const NAME: &'static str = A::NAME;

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        A::Request::from_form(fields).map(Self)
    }

    fn target(&self) -> String {
        self.0.target()
    }

    fn why(&self) -> Option<&str> {
        self.0.why()
    }

    fn question(&self) -> Option<Question> {
        A::question(&self.0)
    }

    fn back(&self) -> String {
        A::back(&self.0)
    }

    async fn run(&self, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        A::run(&self.0, page, visitor).await
    }
}

/// One thing, by its id.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ById {
    pub(super) id: String,
    reason: Option<String>,
}

impl Request for ById {
    fn target(&self) -> String {
        self.id.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// What an action on several things did not do, as the end of a sentence: at most so much of it as one reads.
pub(super) fn not_done(failed: &[String]) -> String {
    if failed.is_empty() {
        return String::new();
    }
    format!("; not done: {}", format::shortened(&failed.join("; "), 400))
}

/// The routes of actions, and the description of those under `/api`.
struct Both<'a> {
    router: Router<Page>,
    description: &'a mut OpenApi,
}

impl Both<'_> {
    /// An action as a form at this path, and as a JSON call at the same under `/api`.
    fn add<A: Act>(&mut self, path: &str, about: &str) {
        let api = format!("/api{path}");
        openapi::add_action::<A>(self.description, &api, about);
        let router = std::mem::take(&mut self.router);
        self.router = router.route(path, post(form::<A>)).route(&api, post(call::<A>));
    }
}

/// The routes of all actions, added to these: forms, and the same under `/api`, which are described.
pub(super) fn routes(router: Router<Page>, description: &mut OpenApi) -> Router<Page> {
    let mut both = Both { router, description };
    both.add::<On<queue_actions::Pause>>(
        "/queues/pause",
        "Blocks queues until they are unpaused: `queue`, `queues`, or all that are `matching`.",
    );
    both.add::<On<queue_actions::Unpause>>("/queues/unpause", "Lets queues be leased again.");
    both.add::<dispatching::Stop>(
        "/dispatcher/stop",
        "Has the dispatcher lease no more queues; leases that are held go on.",
    );
    both.add::<dispatching::Start>("/dispatcher/start", "Has the dispatcher lease queues again.");
    both.add::<dispatching::SetStrategy>("/dispatcher/strategy", "Chooses how the next queue is chosen.");
    both.add::<On<dead_letter_actions::Replay>>("/dead-letters/replay", "Puts dead letters back into their queues: `queue` with `ids` or `all`, `letters`, or all that are `matching`.");
    both.add::<On<dead_letter_actions::Discard>>(
        "/dead-letters/discard",
        "Deletes dead letters, chosen as for a replay.",
    );
    both.add::<alerts::Close>(
        "/alerts/close",
        "Resolves an alert that fires; it fires again only after its condition has cleared.",
    );
    both.add::<rules::Save>("/rules/save", "Makes or replaces an alert rule.");
    both.add::<On<rules::Delete>>("/rules/delete", "Deletes an alert rule.");
    both.add::<On<rules::Test>>("/rules/test", "Sends a test alert to a rule's endpoints.");
    both.add::<endpoints::Save>(
        "/endpoints/save",
        "Makes or replaces an endpoint; a secret sent as `***` stays.",
    );
    both.add::<On<endpoints::Delete>>("/endpoints/delete", "Deletes an endpoint.");
    both.add::<On<endpoints::Test>>("/endpoints/test", "Sends a test alert to an endpoint.");
    both.add::<On<deliveries::Resend>>("/deliveries/resend", "Sends a delivery again.");
    both.add::<silences::Create>(
        "/silences/create",
        "Has alerts told to nobody until a time: `until`, `minutes` or `lasts`.",
    );
    both.add::<source_actions::Add>(
        "/sources/add",
        "Adds a source; without a `token` a random one is made and answered, this once.",
    );
    both.add::<source_actions::Rotate>("/sources/rotate", "Replaces a source's token.");
    both.add::<source_actions::Remove>("/sources/remove", "Removes a source.");
    both.add::<consumption::Recount>(
        "/sources/recount",
        "Counts all stored readings of a source anew, by hour, day and month.",
    );
    both.add::<schedule_actions::Save>(
        "/schedules/save",
        "Makes or replaces a schedule; with `revision` only one that is still at that.",
    );
    both.add::<schedule_actions::Pause>(
        "/schedules/pause",
        "Has occurrences of a schedule skipped until it is resumed.",
    );
    both.add::<On<schedule_actions::Resume>>("/schedules/resume", "Ends the pause of a schedule.");
    both.add::<schedule_actions::Trigger>("/schedules/trigger", "Fires a schedule now.");
    both.add::<schedule_actions::Backfill>(
        "/schedules/backfill",
        "Fires what a schedule had in a time that is past.",
    );
    both.add::<On<schedule_actions::Remove>>("/schedules/remove", "Removes a schedule.");
    both.add::<On<topologies::Activate>>("/topologies/activate", "Lets a topology's spouts emit.");
    both.add::<On<topologies::Deactivate>>(
        "/topologies/deactivate",
        "Has a topology's spouts stop emitting.",
    );
    both.add::<topologies::Rebalance>(
        "/topologies/rebalance",
        "Changes how many tasks of a bolt execute at the same time.",
    );
    both.add::<topologies::Autoscale>(
        "/topologies/autoscale",
        "Has the executors of a bolt follow its load between bounds, or with `stop` not any more.",
    );
    both.add::<On<topologies::Upgrade>>(
        "/topologies/upgrade",
        "Takes a checkpoint and ends a topology, so that a new program goes on from there.",
    );
    both.add::<On<topologies::Checkpoint>>(
        "/topologies/checkpoint",
        "Takes a checkpoint of a topology, and answers when it is committed.",
    );
    both.add::<On<topologies::Kill>>("/topologies/kill", "Ends a topology when what is pending is done.");
    both.add::<On<silences::End>>("/silences/end", "Ends a silence.");
    both.router
}

async fn form<A: Act>(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let fields = Fields::parse(&body);
    if let Err(problem) = visitor.check_form(&fields) {
        return problem.answer(false);
    }
    let back = fields.given("back").map(|path| local_path(path).to_owned());
    let action = match A::from_form(&fields) {
        Ok(action) => action,
        Err(problem) => match back {
            // Back to the form, which says what was wrong.
            Some(back) => return go_back(&page, &back, refused(&problem, fields)),
            None => return problem.answer(false),
        },
    };
    let back = back.unwrap_or_else(|| action.back());
    if fields.text("confirmed") != "yes" {
        if let Some(question) = action.question() {
            return confirm(&page, &visitor, uri.path(), &fields, &back, &question, "danger").await;
        }
        if let Some(verb) = ASKED.into_iter().find(|verb| *verb == fields.text("ask")) {
            let title = format!("{verb}: {}", action.target());
            let text = "Say why, if somebody may ask later.".to_owned();
            let question = Question { title, text, verb };
            return confirm(&page, &visitor, uri.path(), &fields, &back, &question, "primary").await;
        }
    }
    match perform(&page, &visitor, &action).await {
        Ok(done) => {
            // A form that was taken leads on from itself.
            let next = fields.given("next").map_or(back, |path| local_path(path).to_owned());
            let told =
                Feedback { well: true, text: done.message, secret: done.secret, fields: Fields::default() };
            go_back(&page, &next, told)
        }
        Err(problem) => go_back(&page, &back, refused(&problem, fields)),
    }
}

fn refused(problem: &Problem, fields: Fields) -> Feedback {
    Feedback { well: false, text: problem.to_string(), secret: None, fields }
}

fn go_back(page: &Page, back: &str, told: Feedback) -> Response {
    let key = page.keep_feedback(told);
    // What an earlier action told is over.
    let (path, query) = back.split_once('?').unwrap_or((back, ""));
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("told=")).collect();
    let told = format!("told={key}");
    let query = kept.into_iter().chain([told.as_str()]).collect::<Vec<_>>().join("&");
    Redirect::to(&format!("{path}?{query}")).into_response()
}

async fn call<A: Act>(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = body.map_err(|e| Problem::Body(e.status(), e.body_text()));
    let body = match visitor.check_call(&headers).and(body) {
        Ok(body) => body,
        Err(problem) => return problem.answer(true),
    };
    let action = match body::read::<A>(&body) {
        Ok(action) => action,
        Err(problem) => return problem.answer(true),
    };
    match perform(&page, &visitor, &action).await {
        Ok(done) => {
            let mut answer = done.more;
            answer["done"] = Value::String(done.message);
            Json(answer).into_response()
        }
        Err(problem) => problem.answer(true),
    }
}

async fn perform<A: Act>(page: &Page, visitor: &Visitor, action: &A) -> Result<Done, Problem> {
    let result = action.run(page, visitor).await;
    page.observer.forget().await;
    page.letters.forget().await;
    let (outcome, done) = match &result {
        Ok(done) => (done.message.clone(), true),
        Err(problem) => (problem.to_string(), false),
    };
    page.metrics.acted(A::NAME, done);
    let entry = AuditEntry {
        id: audit::entry_id(),
        at: page.now(),
        role: visitor.role.as_str().to_owned(),
        who: visitor.name.clone(),
        action: A::NAME.to_owned(),
        target: action.target(),
        why: action.why().map(str::to_owned).filter(|why| !why.is_empty()),
        outcome,
        done,
    };
    match audit::record(&*page.parts.store.audit, &entry, observer::TIMEOUT).await {
        Ok(()) => result,
        Err(e) => result.map(|done| Done {
            message: format!("{} – but the audit log could not be written: {e}", done.message),
            ..done
        }),
    }
}

/// Asks, on a page of its own, so that it works without script; the form is sent again with the answer.
async fn confirm(
    page: &Page,
    visitor: &Visitor,
    path: &str,
    fields: &Fields,
    back: &str,
    question: &Question,
    tone: &str,
) -> Response {
    let content = html! {
        div.card.confirm {
            h1 { (question.title) }
            p { (question.text) }
            form.stack method="post" action=(path) {
                @for (name, value) in fields.iter().filter(|(name, _)| *name != "reason") {
                    input type="hidden" name=(name) value=(value);
                }
                input type="hidden" name="confirmed" value="yes";
                label { "Reason " small { "optional; stands in the audit log" }
                    input type="text" name="reason" value=(fields.text("reason")) maxlength="200" autofocus; }
                div.buttons {
                    button.(tone) type="submit" { (question.verb) }
                    a.button href=(back) { "Cancel" }
                }
            }
        }
    };
    let here = back.split(['?', '#']).next().unwrap_or("/");
    page.frame(visitor, here, &question.title, &HashMap::new(), Vec::new(), &content).await
}

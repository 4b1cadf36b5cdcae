//! Actions: each one type, with a form and a JSON call that do the same.

use std::collections::HashMap;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::State;
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

use super::access::{Visitor, local_path};
use super::fields::Fields;
use super::problem::Problem;
use super::{
    Feedback, Page, alerts, body, dead_letter_actions, deliveries, dispatching, endpoints, format, observer,
    queue_actions, rules, schedule_actions, silences, source_actions, topologies,
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
pub(super) trait Act: DeserializeOwned + Send + Sync + 'static {
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
pub(super) trait Request: DeserializeOwned + Send + Sync + 'static {
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
#[derive(Deserialize)]
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

/// The routes of all actions: forms, and the same under `/api`.
pub(super) fn routes(router: Router<Page>) -> Router<Page> {
    fn both<A: Act>(router: Router<Page>, path: &str) -> Router<Page> {
        router.route(path, post(form::<A>)).route(&format!("/api{path}"), post(call::<A>))
    }
    let router = both::<On<queue_actions::Pause>>(router, "/queues/pause");
    let router = both::<On<queue_actions::Unpause>>(router, "/queues/unpause");
    let router = both::<dispatching::Stop>(router, "/dispatcher/stop");
    let router = both::<dispatching::Start>(router, "/dispatcher/start");
    let router = both::<dispatching::SetStrategy>(router, "/dispatcher/strategy");
    let router = both::<On<dead_letter_actions::Replay>>(router, "/dead-letters/replay");
    let router = both::<On<dead_letter_actions::Discard>>(router, "/dead-letters/discard");
    let router = both::<alerts::Close>(router, "/alerts/close");
    let router = both::<rules::Save>(router, "/rules/save");
    let router = both::<On<rules::Delete>>(router, "/rules/delete");
    let router = both::<On<rules::Test>>(router, "/rules/test");
    let router = both::<endpoints::Save>(router, "/endpoints/save");
    let router = both::<On<endpoints::Delete>>(router, "/endpoints/delete");
    let router = both::<On<endpoints::Test>>(router, "/endpoints/test");
    let router = both::<On<deliveries::Resend>>(router, "/deliveries/resend");
    let router = both::<silences::Create>(router, "/silences/create");
    let router = both::<source_actions::Add>(router, "/sources/add");
    let router = both::<source_actions::Rotate>(router, "/sources/rotate");
    let router = both::<source_actions::Remove>(router, "/sources/remove");
    let router = both::<schedule_actions::Save>(router, "/schedules/save");
    let router = both::<schedule_actions::Pause>(router, "/schedules/pause");
    let router = both::<On<schedule_actions::Resume>>(router, "/schedules/resume");
    let router = both::<schedule_actions::Trigger>(router, "/schedules/trigger");
    let router = both::<schedule_actions::Backfill>(router, "/schedules/backfill");
    let router = both::<On<schedule_actions::Remove>>(router, "/schedules/remove");
    let router = both::<topologies::Activate>(router, "/topologies/activate");
    let router = both::<topologies::Deactivate>(router, "/topologies/deactivate");
    let router = both::<topologies::Rebalance>(router, "/topologies/rebalance");
    let router = both::<topologies::Checkpoint>(router, "/topologies/checkpoint");
    let router = both::<topologies::Kill>(router, "/topologies/kill");
    both::<On<silences::End>>(router, "/silences/end")
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
    body: Bytes,
) -> Response {
    if let Err(problem) = visitor.check_call(&headers) {
        return problem.answer(true);
    }
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

//! Letting sources post, giving them other tokens, and letting them post no more.

use async_trait::async_trait;
use galerna_audit::Action;
use galerna_directory::{AddedSource, RegistryError, SourceRegistry};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::layout::{asking_button, button, form_start};
use super::problem::Problem;
use super::{Page, SourceChanges, layout};

impl From<RegistryError> for Problem {
    fn from(e: RegistryError) -> Self {
        match e {
            RegistryError::Name(_) | RegistryError::Token => Self::Invalid(e.to_string()),
            RegistryError::OtherAccount { .. } | RegistryError::InactiveAccount(_) => {
                Self::Conflict(e.to_string())
            }
            RegistryError::UnknownSource(_) => Self::Unknown(e.to_string()),
            _ => Self::Unavailable(e.to_string()),
        }
    }
}

/// The registry, unless what is changed in it would have no effect.
fn registry(page: &Page) -> Result<(SourceRegistry, &dyn SourceChanges), Problem> {
    let store = &page.parts.store;
    match page.parts.sources.as_deref() {
        Some(changes) => Ok((SourceRegistry::new(store.accounts.clone(), store.sources.clone()), changes)),
        None => Err(Problem::Conflict(
            "sources are read from elsewhere (`maintainer.accounts` and `frontend.sources` are not `store`); change them there"
                .to_owned(),
        )),
    }
}

/// The form that adds a source.
pub(super) fn adding(visitor: &Visitor, page: &Page) -> Markup {
    html! {
        @if page.parts.sources.is_some() {
            details.card {
                summary { "Add a source" }
                form.grid method="post" action="/sources/add" {
                    (form_start(visitor, "/sources"))
                    label { "Source " small { "its id" } input type="text" name="source" required maxlength="120"; }
                    label { "Account " small { "made with its queue when it is new" } input type="text" name="account" required maxlength="120"; }
                    label { "Token " small { "empty: a random one, shown once" } input type="text" name="token" maxlength="200" autocomplete="off"; }
                    label { "Reason " small { "optional" } input type="text" name="reason" maxlength="200"; }
                    div.buttons { button.primary type="submit" disabled[!visitor.may_act()] { "Add" } }
                }
            }
        } @else { p.hint { "Who may post is kept elsewhere: " code { "maintainer.accounts" } " and " code { "frontend.sources" } " say where." } }
    }
}

/// What can be done with a source.
pub(super) fn buttons(visitor: &Visitor, page: &Page, source: &str, active: bool, back: &str) -> Markup {
    html! {
        @if page.parts.sources.is_some() && active {
            (asking_button(visitor, "/sources/rotate", &[("source", source)], "New token", "small", back))
            (button(visitor, "/sources/remove", &[("source", source)], "Remove", "small danger", back))
        }
    }
}

async fn told(changes: &dyn SourceChanges, added: AddedSource) -> Done {
    changes.take(added.new_account).await;
    let AddedSource { source, account, queue, token, new_account, replaced } = added;
    let mut message = match replaced {
        true => format!("source {source} has a new token; the one before is no longer taken"),
        false => format!("source {source} may post for account {account}"),
    };
    if new_account {
        message.push_str(&format!("; the account and its queue {queue} are made"));
    }
    let more = json!({"source": source, "account": account, "queue": queue, "token": token, "new_account": new_account,
        "replaced": replaced});
    let secret = token.map(|token| format!("Its token, shown this once: {token}"));
    Done { secret, ..Done::with(message, more) }
}

/// Lets a source post.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    source: String,
    account: String,
    token: Option<String>,
    reason: Option<String>,
}

#[async_trait]
impl Act for Add {
    const NAME: &'static str = Action::AddSource.name();

    fn target(&self) -> String {
        galerna_audit::short(&self.source)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/sources".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let (registry, changes) = registry(page)?;
        let added = registry.add(self.source.trim(), self.account.trim(), self.token.as_deref()).await?;
        Ok(told(changes, added).await)
    }
}

/// Gives a source another token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    source: String,
    token: Option<String>,
    reason: Option<String>,
}

#[async_trait]
impl Act for Rotate {
    const NAME: &'static str = Action::RotateSource.name();

    fn target(&self) -> String {
        galerna_audit::short(&self.source)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        format!("/sources/{}", layout::encoded(&self.source))
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let (registry, changes) = registry(page)?;
        let rotated = registry.rotate(&self.source, self.token.as_deref()).await?;
        Ok(told(changes, rotated).await)
    }
}

/// Lets a source post no more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    source: String,
    reason: Option<String>,
}

#[async_trait]
impl Act for Remove {
    const NAME: &'static str = Action::RemoveSource.name();

    fn target(&self) -> String {
        galerna_audit::short(&self.source)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            title: format!("Remove source {}?", self.source),
            text: "Its token is forgotten and its readings are refused from now on. What it has sent stays."
                .to_owned(),
            verb: "Remove",
        })
    }

    fn back(&self) -> String {
        "/sources".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let (registry, changes) = registry(page)?;
        let removed = registry.remove(&self.source).await?;
        changes.take(false).await;
        Ok(Done::with(
            format!("source {} may post no more", removed.source),
            json!({ "source": removed.source }),
        ))
    }
}

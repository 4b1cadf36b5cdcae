//! The page: channels, what they logged, posts, accounts and notices. It works without script; sections renew themselves with it.

mod lists;

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use galerna_html::frame::Menu;
use galerna_html::query::encoded;
use galerna_html::{format, frame};
use galerna_http::{ApiError, Params};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use crate::channel::{Account, Channel};
use crate::progress::Phase;
use crate::service::{ChannelView, Channels, ChannelsError};
use crate::store::LogQuery;
use crate::web;

type Shared = State<Arc<Channels>>;

/// Channels on one page of the list.
const SHOWN: usize = 50;

/// The page of notices.
const NOTICES: &str = "/channels/notices";

/// Entries on one page of the log.
const LOGGED: usize = 50;

/// The pages, and what is done on them.
pub fn routes(channels: Arc<Channels>) -> Router {
    Router::new()
        .route("/channels", get(list))
        .route("/channels/one/{name}", get(one).post(edit))
        .route("/channels/one/{name}/{action}", post(switch))
        .route("/channels/new", get(new))
        .route("/channels/log", get(log))
        .route("/channels/posts", get(posts).post(change_post))
        .route("/channels/accounts", get(accounts).post(edit_account))
        .route(NOTICES, get(notices).post(read_notices))
        .with_state(channels)
}

/// What a page could not do.
struct NotDone(StatusCode, String);

impl From<ChannelsError> for NotDone {
    fn from(error: ChannelsError) -> Self {
        let error = ApiError::from(error);
        Self(error.status(), error.message().to_owned())
    }
}

impl From<ApiError> for NotDone {
    fn from(error: ApiError) -> Self {
        Self(error.status(), error.message().to_owned())
    }
}

impl IntoResponse for NotDone {
    fn into_response(self) -> Response {
        let content = html! {
            h1 { "That cannot be done" }
            div.notice data-tone="bad" role="alert" { (self.1) }
            p { a href="/channels" { "All channels" } }
        };
        (self.0, frame::document("Not done", None, &html! { main #content { (content) } })).into_response()
    }
}

fn bad(reason: String) -> NotDone {
    NotDone(StatusCode::UNPROCESSABLE_ENTITY, reason)
}

/// The menu of all pages, those of schedules and topologies among them.
pub(crate) fn menu() -> Menu {
    Menu::new("Channels")
        .entry("Channels", "/channels")
        .entry("Log", "/channels/log")
        .entry("Posts", "/channels/posts")
        .entry("Schedules", "/schedules")
        .entry("Accounts", "/channels/accounts")
        .entry("Notices", NOTICES)
        .entry("Topology", "/topologies")
}

/// A page with the menu.
async fn framed(channels: &Channels, title: &str, here: &str, content: Markup) -> Result<Markup, NotDone> {
    let (_, unread) = channels.context().store.notices(0).await.map_err(ChannelsError::from)?;
    Ok(frame::document(title, None, &menu().counted(NOTICES, unread).body(here, &content)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListQuery {
    text: String,
    phase: String,
    page: usize,
}

async fn list(State(channels): Shared, Params(query): Params<ListQuery>) -> Result<Markup, NotDone> {
    let found = web::find(&channels, &query.text, Some(&query.phase));
    let page = query.page.max(1);
    let shown: Vec<&ChannelView> = found.matching.iter().skip((page - 1) * SHOWN).take(SHOWN).collect();
    let content = html! {
        div.title { h1 { "Channels" } a.button.primary href="/channels/new" { "Add a channel" } }
        section #channels data-refresh="2" { (lists::channels(&found, &shown, &query.text, &query.phase, page, SHOWN)) }
    };
    framed(&channels, "Channels", "/channels", content).await
}

fn view_of(channels: &Channels, name: &str) -> Result<ChannelView, NotDone> {
    let view = channels.view().into_iter().find(|view| view.channel.name == name);
    view.ok_or_else(|| NotDone(StatusCode::NOT_FOUND, format!("there is no channel `{name}`")))
}

async fn one(State(channels): Shared, Path(name): Path<String>) -> Result<Markup, NotDone> {
    let view = view_of(&channels, &name)?;
    let query = LogQuery { channel: Some(name.clone()), limit: Some(20), ..LogQuery::default() };
    let entries = channels.context().store.log(query).await.map_err(ChannelsError::from)?;
    let definition = serde_json::to_string_pretty(&view.channel).unwrap_or_default();
    let content = html! {
        p.crumbs { a href="/channels" { "Channels" } }
        div.title { h1 { (name) } (lists::switches(&view)) }
        section #progress data-refresh="2" { (lists::progress(&view)) }
        section #log data-refresh="2" { h2 { "Last statuses" } (lists::log(&entries, false)) }
        div.card {
            h2 { "Definition" }
            form.stack method="post" {
                label for="definition" { "What it follows, lets through and posts, as JSON; a channel that is on goes on with it" }
                textarea #definition name="definition" rows="22" spellcheck="false" { (definition) }
                div.buttons { button.primary type="submit" { "Save" } }
            }
        }
        form method="post" action={ "/channels/one/" (encoded(&name)) "/remove" } {
            button.danger type="submit" { "Remove the channel" }
        }
    };
    framed(&channels, &name, "/channels", content).await
}

const EXAMPLE: &str = r##"{
  "name": "rust-news",
  "account": "main",
  "source": { "stream": "hashtag", "of": "rust" },
  "filters": {
    "words_wanted": [],
    "words_blocked": ["crypto"],
    "users_wanted": [],
    "users_blocked": ["@spam.example"],
    "replies": false,
    "boosts": true
  },
  "repost": { "account": "main", "form": "copy", "hashtags": ["rust", "news"], "visibility": "unlisted" },
  "begin": "now"
}"##;

async fn new(State(channels): Shared) -> Result<Markup, NotDone> {
    let content = html! {
        p.crumbs { a href="/channels" { "Channels" } }
        h1 { "Add a channel" }
        form.stack method="post" action="/channels/one/new" {
            label for="definition" { "What it follows, lets through and posts, as JSON" }
            textarea #definition name="definition" rows="22" spellcheck="false" { (EXAMPLE) }
            div.buttons { button.primary type="submit" { "Add" } a.button href="/channels" { "Cancel" } }
        }
    };
    framed(&channels, "Add a channel", "/channels", content).await
}

#[derive(Debug, Deserialize)]
struct Written {
    definition: String,
}

async fn edit(
    State(channels): Shared,
    Path(_): Path<String>,
    Form(written): Form<Written>,
) -> Result<Redirect, NotDone> {
    let channel: Channel =
        serde_json::from_str(&written.definition).map_err(|error| bad(error.to_string()))?;
    let name = channel.name.clone();
    channels.put(channel).await?;
    Ok(Redirect::to(&format!("/channels/one/{}", encoded(&name))))
}

async fn switch(
    State(channels): Shared,
    Path((name, action)): Path<(String, String)>,
) -> Result<Redirect, NotDone> {
    match action.as_str() {
        "start" => channels.switch(&name, true).await?,
        "stop" => channels.switch(&name, false).await?,
        "remove" => {
            channels.remove(&name).await?;
            return Ok(Redirect::to("/channels"));
        }
        _ => return Err(NotDone(StatusCode::NOT_FOUND, format!("`{action}` is not done to channels"))),
    }
    Ok(Redirect::to(&format!("/channels/one/{}", encoded(&name))))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SearchQuery {
    channel: String,
    outcome: String,
    text: String,
    before: Option<i64>,
}

async fn log(State(channels): Shared, Params(query): Params<SearchQuery>) -> Result<Markup, NotDone> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let asked = LogQuery {
        channel: given(&query.channel),
        outcome: given(&query.outcome),
        text: given(&query.text),
        before: query.before,
        limit: Some(LOGGED),
    };
    let entries = channels.context().store.log(asked).await.map_err(ChannelsError::from)?;
    let content = html! {
        div.title { h1 { "Log" } }
        (lists::search(&query.channel, &query.outcome, &query.text))
        section #log data-refresh="5" {
            (lists::log(&entries, true))
            (lists::older(&entries, LOGGED, &query.channel, &query.outcome, &query.text))
        }
    };
    framed(&channels, "Log", "/channels/log", content).await
}

async fn posts(State(channels): Shared) -> Result<Markup, NotDone> {
    let Json(all) = web::posts(State(Arc::clone(&channels))).await?;
    let content = html! {
        div.title { h1 { "Posts" } p.dim { (format::count(all.waiting)) " on their way" } }
        section #posts data-refresh="2" { (lists::posts(&all)) }
    };
    framed(&channels, "Posts", "/channels/posts", content).await
}

#[derive(Debug, Deserialize)]
struct PostChange {
    key: String,
    what: String,
}

async fn change_post(State(channels): Shared, Form(change): Form<PostChange>) -> Result<Redirect, NotDone> {
    match change.what.as_str() {
        "retry" => channels.retry_post(&change.key).await?,
        "resume" => {
            channels.context().posts.resume(&change.key).await.map_err(ChannelsError::from)?;
        }
        _ => channels.drop_post(&change.key).await?,
    }
    Ok(Redirect::to("/channels/posts"))
}

async fn accounts(State(channels): Shared) -> Result<Markup, NotDone> {
    let content = html! {
        div.title { h1 { "Accounts" } }
        section #accounts data-refresh="2" { (lists::accounts(&channels.accounts())) }
        div.card {
            h2 { "Add an account, or give one another token" }
            form.stack method="post" {
                label for="name" { "Name" }
                input #name name="name" required;
                label for="server" { "Server" }
                input #server name="server" type="url" placeholder="https://mastodon.example" required;
                label for="token" { "Access token, with the scopes read and write:statuses" }
                input #token name="token" type="password" autocomplete="off" required;
                div.buttons { button.primary type="submit" { "Save" } }
            }
        }
    };
    framed(&channels, "Accounts", "/channels/accounts", content).await
}

async fn edit_account(State(channels): Shared, Form(account): Form<Account>) -> Result<Redirect, NotDone> {
    channels.put_account(account).await?;
    Ok(Redirect::to("/channels/accounts"))
}

async fn notices(State(channels): Shared) -> Result<Markup, NotDone> {
    let (all, unread) = channels.context().store.notices(200).await.map_err(ChannelsError::from)?;
    let content = html! {
        div.title { h1 { "Notices" } p.dim { (format::count(unread)) " not read" } }
        @if let (Some(last), true) = (all.first(), unread > 0) {
            form method="post" {
                input type="hidden" name="up_to" value=(last.number);
                button type="submit" { "Mark all as read" }
            }
        }
        section #notices data-refresh="5" { (lists::notices(&all)) }
    };
    framed(&channels, "Notices", NOTICES, content).await
}

#[derive(Debug, Deserialize)]
struct UpTo {
    up_to: i64,
}

async fn read_notices(State(channels): Shared, Form(read): Form<UpTo>) -> Result<Redirect, NotDone> {
    channels.context().store.read_notices(read.up_to).await.map_err(ChannelsError::from)?;
    Ok(Redirect::to("/channels/notices"))
}

/// What is said of a phase beside its name.
fn detail(phase: &Phase) -> String {
    match phase {
        Phase::Limited { until } => format!("the server wants no call before {}", clock(*until)),
        Phase::Retrying { cause, at } => format!("{cause}; again at {}", clock(*at)),
        Phase::Failed { reason } => reason.clone(),
        Phase::Revoked => "its account needs another token".to_owned(),
        _ => String::new(),
    }
}

/// A time to the second, in UTC.
fn clock(time: galerna_model::Timestamp) -> String {
    let text = time.to_string();
    text.get(..19).map_or_else(|| text.clone(), |seconds| seconds.replace('T', " "))
}

/// A JSON value in one line.
fn line(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap_or(Value::Null).to_string()
}

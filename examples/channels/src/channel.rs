//! What a channel and an account are told to be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::filter::Filters;
use crate::status::{Status, StatusId, Visibility};

/// Longest name of a channel or an account, in bytes.
const LONGEST_NAME: usize = 64;

/// Why a definition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadDefinition {
    /// The field, as it is written.
    pub field: &'static str,
    /// What is wrong, and what to write instead.
    pub reason: String,
}

fn bad(field: &'static str, reason: impl Into<String>) -> BadDefinition {
    BadDefinition { field, reason: reason.into() }
}

fn check_name(name: &str) -> Result<(), BadDefinition> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(allowed) {
        return Err(bad("name", format!("write 1 to {LONGEST_NAME} letters, digits, `.`, `_` or `-`")));
    }
    Ok(())
}

/// An account on a server, and the token that its API is used with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// What it is called here.
    pub name: String,
    /// The server: `https://mastodon.example`.
    pub server: String,
    /// Its access token, with the scopes `read` and `write:statuses`.
    pub token: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("name", &self.name)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// Checks what was written.
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn check(&self) -> Result<(), BadDefinition> {
        check_name(&self.name)?;
        let server = url::Url::parse(&self.server)
            .map_err(|e| bad("server", format!("{e}; write a URL such as https://mastodon.example")))?;
        if !matches!(server.scheme(), "https" | "http") || server.path() != "/" || server.host_str().is_none()
        {
            return Err(bad("server", "write scheme and host only, such as https://mastodon.example"));
        }
        if self.token.is_empty() || !self.token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(bad("token", "write the account's access token"));
        }
        Ok(())
    }
}

/// The stream that a channel follows, as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stream", content = "of", deny_unknown_fields)]
pub enum Source {
    /// What the accounts write that this one follows.
    Home,
    /// All public statuses that the server knows.
    Public,
    /// Public statuses of the server's own accounts.
    Local,
    /// Public statuses with this hashtag.
    Hashtag(String),
    /// What the accounts of a list of this one write, by the list's id.
    List(String),
    /// What one account writes, by `name` or `name@host`. There is no such stream: it is asked for again and again.
    User(String),
    /// The same, by the account's id on the server.
    Id(String),
}

impl Source {
    /// Whether late statuses may come that have ids before those that were seen: where servers fetch from others.
    pub fn has_late_statuses(&self) -> bool {
        !matches!(self, Self::User(_) | Self::Id(_))
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Home => f.write_str("home"),
            Self::Public => f.write_str("public"),
            Self::Local => f.write_str("local"),
            Self::Hashtag(tag) => write!(f, "#{tag}"),
            Self::List(list) => write!(f, "list {list}"),
            Self::User(user) => write!(f, "@{user}"),
            Self::Id(id) => write!(f, "account {id}"),
        }
    }
}

/// How what passes is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As a boost: the status itself, with its author.
    #[default]
    Boost,
    /// As a status of its own: the text, a link to the original, and hashtags.
    Copy,
}

/// Where what passes is repeated, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repost {
    /// The account that it is posted with.
    pub account: String,
    /// As a boost or a copy.
    #[serde(default)]
    pub form: Form,
    /// Hashtags of a copy, as many as fit.
    #[serde(default)]
    pub hashtags: Vec<String>,
    /// Who may see a copy.
    #[serde(default)]
    pub visibility: Visibility,
}

/// Where a channel begins when it is on for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// With what comes from then on.
    #[default]
    Now,
    /// With the oldest status that the server has.
    Oldest,
}

/// A channel: a stream that is followed, what is let through, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// What it is called.
    pub name: String,
    /// The account whose eyes it sees with.
    pub account: String,
    /// What it follows.
    pub source: Source,
    /// What it lets through.
    #[serde(default)]
    pub filters: Filters,
    /// What becomes of what passes; without it, it is only logged.
    #[serde(default)]
    pub repost: Option<Repost>,
    /// Where it begins.
    #[serde(default)]
    pub begin: Begin,
}

impl Channel {
    /// Checks what was written.
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn check(&self) -> Result<(), BadDefinition> {
        check_name(&self.name)?;
        match &self.source {
            Source::Hashtag(tag) if tag.trim_start_matches('#').is_empty() => {
                Err(bad("source.of", "name the hashtag"))
            }
            Source::List(id) | Source::Id(id) if id.is_empty() => Err(bad("source.of", "write the id")),
            Source::User(user) if user.trim_start_matches('@').is_empty() => {
                Err(bad("source.of", "name the user: `name` or `name@host`"))
            }
            _ => Ok(()),
        }
    }

    /// How far before the last status that was seen a channel looks again after a break, for those that came late.
    pub fn lookback(&self) -> Duration {
        if self.source.has_late_statuses() { Duration::from_secs(300) } else { Duration::ZERO }
    }

    /// What is to be posted for a status that passed.
    pub fn draft(&self, status: &Status) -> Option<(&str, Draft)> {
        let repost = self.repost.as_ref()?;
        let original = status.original();
        let draft = match repost.form {
            Form::Boost => Draft::Boost {
                id: original.id.clone(),
                from: self.account.clone(),
                uri: original.uri.clone(),
            },
            Form::Copy => Draft::Status(Text {
                text: original.text(),
                warning: original.spoiler_text.clone(),
                link: Some(original.link().to_owned()),
                hashtags: repost.hashtags.clone(),
                visibility: repost.visibility,
                language: original.language.clone(),
                sensitive: original.sensitive,
            }),
        };
        Some((&repost.account, draft))
    }
}

/// A status to write; what is sent is made of it for the limits of its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text.
    pub text: String,
    /// A warning before it.
    #[serde(default)]
    pub warning: String,
    /// A link behind it, which stays when the text is cut.
    #[serde(default)]
    pub link: Option<String>,
    /// Hashtags behind it, as many as fit.
    #[serde(default)]
    pub hashtags: Vec<String>,
    /// Who may see it.
    #[serde(default)]
    pub visibility: Visibility,
    /// What language it is in.
    #[serde(default)]
    pub language: Option<String>,
    /// Whether its pictures are hidden at first.
    #[serde(default)]
    pub sensitive: bool,
}

/// Something to post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draft {
    /// A status.
    Status(Text),
    /// A boost of a status.
    Boost {
        /// Its id, on the server of the account `from`.
        id: StatusId,
        /// The account that saw it.
        from: String,
        /// Its identity among all servers.
        uri: String,
    },
}

//! What is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::keywords::{KeywordError, KeywordGroup, Keywords};
use crate::reading;

/// Settings that make no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{0} cannot be read: {1}")]
    Read(String, std::io::Error),
    /// It is no TOML of this form.
    #[error("{0}: {1}")]
    Parse(String, toml::de::Error),
    /// A name or a value is wrong.
    #[error("{field}: {reason}")]
    Wrong {
        /// Which.
        field: String,
        /// Why, and what to write.
        reason: String,
    },
    /// The keywords make no sense.
    #[error(transparent)]
    Keywords(#[from] KeywordError),
}

/// How a source lists its posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// HTML pages, read by [`Select`].
    Html,
    /// An API in the form of JSON Feed 1.1.
    Api,
}

/// Where in an HTML page the posts are, as CSS selectors; those of parts are within a post.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Select {
    /// A post; its `id` is the post's.
    pub post: String,
    /// Its time: an element with `datetime`.
    pub time: String,
    /// Its author.
    pub author: String,
    /// What it says.
    pub text: String,
    /// The link to the next page.
    pub next: String,
}

impl Default for Select {
    /// As many sites have it: `article[id]`, `time[datetime]`, `.author`, `.text`, `a[rel=next]`.
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            post: text("article[id]"),
            time: text("time[datetime]"),
            author: text(".author"),
            text: text(".text"),
            next: text("a[rel=next]"),
        }
    }
}

/// A source of posts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name: letters, digits, `-`, `_`.
    pub name: String,
    /// How it lists its posts.
    pub kind: SourceKind,
    /// Whose posts they are.
    pub group: String,
    /// The first page.
    #[serde(with = "address")]
    pub url: Url,
    /// How often it is crawled: `10m`.
    #[serde(with = "duration", default = "ten_minutes")]
    pub every: Duration,
    /// Pages of a crawl, at most.
    #[serde(default = "hundred")]
    pub pages: u32,
    /// For HTML.
    #[serde(default)]
    pub select: Select,
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn hundred() -> u32 {
    100
}

/// When who watches is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name: letters, digits, `-`, `_`.
    pub name: String,
    /// Which group of words.
    pub keyword: String,
    /// Whose posts; all groups, each by itself, unless set.
    #[serde(default)]
    pub group: Option<String>,
    /// At least so many in a day; with `grown`, in a week.
    pub at_least: u64,
    /// At least so many times what the week before had.
    #[serde(default)]
    pub grown: Option<f64>,
}

/// What is watched, as a TOML file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where posts are from.
    pub sources: Vec<Source>,
    /// Groups of words, by their names.
    pub keywords: BTreeMap<String, KeywordGroup>,
    /// When who watches is told.
    #[serde(default)]
    pub alerts: Vec<Rule>,
    /// Where alerts are posted to; they are only listed unless set.
    #[serde(default, deserialize_with = "address::optional")]
    pub webhook: Option<Url>,
    /// Requests to one host in a minute.
    #[serde(default = "sixty")]
    pub per_minute: u32,
}

fn sixty() -> u32 {
    60
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read(shown.clone(), error))?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Parse(shown, error))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what one field does not tell by itself.
    ///
    /// # Errors
    /// [`ConfigError`] names what is wrong.
    pub fn check(&self) -> Result<Keywords, ConfigError> {
        let wrong = |field: String, reason: String| Err(ConfigError::Wrong { field, reason });
        let mut names = BTreeSet::new();
        for name in self.sources.iter().map(|s| &s.name).chain(self.alerts.iter().map(|rule| &rule.name)) {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
                return wrong(format!("name `{name}`"), "write letters, digits, `-` or `_`".to_owned());
            }
            if !names.insert(name) {
                return wrong(format!("name `{name}`"), "it is there twice".to_owned());
            }
        }
        for source in &self.sources {
            if !matches!(source.url.scheme(), "http" | "https") {
                return wrong(format!("url of {}", source.name), format!("{} is no web address", source.url));
            }
            if source.every < Duration::from_secs(1) || source.pages == 0 {
                let reason = "it is crawled once a second at most, and at least one page".to_owned();
                return wrong(format!("every of {}", source.name), reason);
            }
            if let Err(error) = reading::check(&source.select) {
                return wrong(format!("select of {}", source.name), error.to_string());
            }
        }
        if let Some(webhook) = self.webhook.as_ref().filter(|url| !matches!(url.scheme(), "http" | "https")) {
            return wrong("webhook".to_owned(), format!("{webhook} is no web address"));
        }
        for rule in &self.alerts {
            if !self.keywords.contains_key(&rule.keyword) {
                let known: Vec<&str> = self.keywords.keys().map(String::as_str).collect();
                let reason = format!("`{}` is none of {}", rule.keyword, known.join(", "));
                return wrong(format!("keyword of {}", rule.name), reason);
            }
            if rule.at_least == 0 || rule.grown.is_some_and(|grown| !(grown > 0.0 && grown.is_finite())) {
                return wrong(format!("thresholds of {}", rule.name), "they are more than 0".to_owned());
            }
        }
        if self.per_minute == 0 {
            return wrong("per_minute".to_owned(), "0 requests fetch nothing; write at least 1".to_owned());
        }
        Ok(Keywords::new(&self.keywords)?)
    }
}

mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Addresses as text.
pub(crate) mod address {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use url::Url;

    pub(crate) fn serialize<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
        let text = String::deserialize(deserializer)?;
        Url::parse(&text).map_err(|error| D::Error::custom(format!("`{text}` is no address: {error}")))
    }

    pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
        deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str =
        "[[sources]]\nname = \"a\"\nkind = \"html\"\ngroup = \"g\"\nurl = \"https://example.org/\"\n";
    const KEYWORDS: &str = "[keywords.security]\nwords = [\"CVE\"]\n";

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field_before_anything_is_fetched() {
        for (text, field) in [
            (format!("{SOUND}{KEYWORDS}"), None),
            (format!("{SOUND}select = {{ post = \"a[[\" }}\n{KEYWORDS}"), Some("select of a")),
            (format!("{SOUND}select = {{ next = \"\" }}\n{KEYWORDS}"), Some("select of a")),
            (format!("webhook = \"ftp://example.org/\"\n{SOUND}{KEYWORDS}"), Some("webhook")),
            (format!("per_minute = 0\n{SOUND}{KEYWORDS}"), Some("per_minute")),
            (format!("{SOUND}pages = 0\n{KEYWORDS}"), Some("every of a")),
            (format!("{SOUND}{SOUND}{KEYWORDS}"), Some("name `a`")),
        ] {
            let config: Config = toml::from_str(&text).expect("TOML of this form");
            match (config.check(), field) {
                (Ok(_), None) => {}
                (Err(ConfigError::Wrong { field: found, .. }), Some(field)) => {
                    assert_eq!(found, field, "{text}")
                }
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }
}

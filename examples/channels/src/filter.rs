//! What a channel lets through.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use crate::status::{Status, Visibility};

/// What is let through and what is not, both ways. Who is in both lists is not let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// If any are named, a status needs one of these words. A word is one or more whole words in whatever case, or a `#hashtag`.
    pub words_wanted: Vec<String>,
    /// A status with one of these words is blocked.
    pub words_blocked: Vec<String>,
    /// If any are named, only these authors are let through: `name` on the channel's own server, `name@host` elsewhere.
    pub users_wanted: Vec<String>,
    /// Authors that are blocked; `@host` blocks a whole server.
    pub users_blocked: Vec<String>,
    /// Whether answers to others are let through.
    pub replies: bool,
    /// Whether what somebody boosted is let through.
    pub boosts: bool,
}

impl Default for Filters {
    /// Everything but answers.
    fn default() -> Self {
        Self {
            words_wanted: Vec::new(),
            words_blocked: Vec::new(),
            users_wanted: Vec::new(),
            users_blocked: Vec::new(),
            replies: false,
            boosts: true,
        }
    }
}

/// Why a status was blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", content = "by", rename_all = "snake_case")]
pub enum Blocked {
    /// It has this word.
    Word(String),
    /// It has none of the words that are wanted.
    NoWord,
    /// Its author, or the author of what it boosts, is blocked by this name.
    User(String),
    /// Its author is none of those who are wanted.
    NoUser,
    /// It answers another.
    Reply,
    /// It boosts another.
    Boost,
    /// It is by the account that the channel posts with: it would be repeated without an end.
    Own,
    /// Not everybody may see it, so it must not be repeated.
    NotPublic,
}

impl Blocked {
    /// The reason in a word, as it is stored and counted.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Word(_) => "word",
            Self::NoWord => "no_word",
            Self::User(_) => "user",
            Self::NoUser => "no_user",
            Self::Reply => "reply",
            Self::Boost => "boost",
            Self::Own => "own",
            Self::NotPublic => "not_public",
        }
    }

    /// By which entry of the filters.
    pub fn by(&self) -> &str {
        match self {
            Self::Word(by) | Self::User(by) => by,
            _ => "",
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "it has the word `{word}`"),
            Self::NoWord => f.write_str("it has none of the wanted words"),
            Self::User(user) => write!(f, "`{user}` is blocked"),
            Self::NoUser => f.write_str("its author is none of the wanted"),
            Self::Reply => f.write_str("it answers another status"),
            Self::Boost => f.write_str("it is a boost"),
            Self::Own => f.write_str("it is by the channel's own account"),
            Self::NotPublic => f.write_str("not everybody may see it"),
        }
    }
}

/// Filters made ready to be applied.
#[derive(Debug, Clone)]
pub struct Judge {
    filters: Filters,
    wanted: Vec<Word>,
    blocked: Vec<Word>,
}

#[derive(Debug, Clone)]
struct Word {
    as_written: String,
    /// As [`words`] writes them, or a hashtag without `#`.
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Words(String),
    Hashtag(String),
}

impl Word {
    fn new(word: &str) -> Self {
        let form = match word.trim().strip_prefix('#') {
            Some(tag) => Form::Hashtag(tag.to_lowercase()),
            None => Form::Words(words(word)),
        };
        Self { as_written: word.to_owned(), form }
    }

    fn is_in(&self, words: &str, tags: &[String]) -> bool {
        match &self.form {
            Form::Words(wanted) => wanted.len() > 1 && words.contains(wanted.as_str()),
            Form::Hashtag(wanted) => tags.contains(wanted),
        }
    }
}

/// The words of a text in lower case, each between two spaces, so that whole words are found by plain search.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len() + 2);
    words.push(' ');
    for word in text.unicode_words() {
        words.push_str(&word.to_lowercase());
        words.push(' ');
    }
    words
}

impl Judge {
    /// Makes filters ready.
    pub fn new(filters: Filters) -> Self {
        let ready = |list: &[String]| list.iter().map(|word| Word::new(word)).collect();
        Self { wanted: ready(&filters.words_wanted), blocked: ready(&filters.words_blocked), filters }
    }

    /// Whether a status passes; `own` is the id, on the server that was asked, of the account that the channel posts with.
    ///
    /// # Errors
    /// Why it does not.
    pub fn judge(&self, status: &Status, own: Option<&str>) -> Result<(), Blocked> {
        let original = status.original();
        if own.is_some_and(|own| own == status.account.id || own == original.account.id) {
            return Err(Blocked::Own);
        }
        if !matches!(original.visibility, Visibility::Public | Visibility::Unlisted) {
            return Err(Blocked::NotPublic);
        }
        if status.reblog.is_some() && !self.filters.boosts {
            return Err(Blocked::Boost);
        }
        if original.in_reply_to_id.is_some() && !self.filters.replies {
            return Err(Blocked::Reply);
        }
        let authors = [&original.account.acct, &status.account.acct];
        let named = |list: &[String], acct: &str| list.iter().find(|user| is_user(user, acct)).cloned();
        if let Some(user) = authors.iter().find_map(|acct| named(&self.filters.users_blocked, acct)) {
            return Err(Blocked::User(user));
        }
        let wanted = &self.filters.users_wanted;
        if !wanted.is_empty() && !authors.iter().any(|acct| named(wanted, acct).is_some()) {
            return Err(Blocked::NoUser);
        }
        if self.wanted.is_empty() && self.blocked.is_empty() {
            return Ok(());
        }
        let text = words(&format!("{}\n{}", original.spoiler_text, original.text()));
        let tags: Vec<String> = original.tags.iter().map(|tag| tag.name.to_lowercase()).collect();
        if let Some(word) = self.blocked.iter().find(|word| word.is_in(&text, &tags)) {
            return Err(Blocked::Word(word.as_written.clone()));
        }
        if !self.wanted.is_empty() && !self.wanted.iter().any(|word| word.is_in(&text, &tags)) {
            return Err(Blocked::NoWord);
        }
        Ok(())
    }
}

/// Whether an entry of a list names an account: `name`, `name@host`, or `@host` for all of a server. In whatever case.
fn is_user(entry: &str, acct: &str) -> bool {
    let (entry, acct) = (entry.trim().to_lowercase(), acct.to_lowercase());
    if entry == acct {
        return true;
    }
    match entry.strip_prefix('@') {
        // `@name@host` is how people write accounts; `@name` is one of the channel's own server, `@host` a server.
        Some(rest) => rest == acct || (!rest.contains('@') && rest.contains('.') && acct.ends_with(&entry)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Vec<Status> {
        serde_json::from_str(include_str!("../data/statuses.json")).unwrap()
    }

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn verdicts(filters: Filters) -> Vec<&'static str> {
        let judge = Judge::new(filters);
        recorded()
            .iter()
            .map(|status| judge.judge(status, None).map_or_else(|b| b.name(), |()| "-"))
            .collect()
    }

    #[test]
    fn words_and_users_are_wanted_and_blocked() {
        let replies = || Filters { replies: true, ..Filters::default() };
        let passing = |filters| {
            let verdicts = verdicts(filters);
            (0..12).filter(|at| verdicts[*at] == "-").collect::<Vec<usize>>()
        };
        assert_eq!(passing(Filters::default()), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], "3 is an answer");
        assert_eq!(
            passing(Filters { words_blocked: list(&["ham"]), ..replies() }),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        );
        // Whole words only, in whatever case, and several as one.
        assert_eq!(passing(Filters { words_wanted: list(&["KATE", "hoo"]), ..replies() }), [4]);
        assert_eq!(passing(Filters { words_wanted: list(&["advanced text"]), ..replies() }), [4]);
        assert_eq!(passing(Filters { words_wanted: list(&["text advanced", "  "]), ..replies() }), [0; 0]);
        assert_eq!(passing(Filters { words_wanted: list(&["#HOOT"]), ..replies() }), [10]);
        assert_eq!(passing(Filters { words_wanted: list(&["you're", "can't"]), ..replies() }), [6, 8]);
        assert_eq!(
            passing(Filters { users_wanted: list(&["Mastodonpy_test_2"]), ..replies() }),
            [2, 4, 9, 10]
        );
        assert_eq!(
            passing(Filters { users_blocked: list(&["@mastodonpy_test_2"]), ..replies() }),
            [0, 1, 3, 5, 6, 7, 8, 11]
        );
        let both = Filters { users_wanted: list(&["admin"]), users_blocked: list(&["admin"]), ..replies() };
        assert_eq!(passing(both), [0; 0]);
    }

    #[test]
    fn entries_name_accounts_and_whole_servers() {
        for (entry, acct, is) in [
            ("a", "a", true),
            ("@a", "a", true),
            ("a@x.example", "A@x.example", true),
            ("@a@x.example", "a@x.example", true),
            ("@x.example", "a@x.example", true),
            ("@x.example", "a@y.x.example", false),
            ("@x.example", "x.example", true),
            ("a", "a@x.example", false),
        ] {
            assert_eq!(is_user(entry, acct), is, "{entry} {acct}");
        }
    }

    #[test]
    fn what_is_private_own_or_boosted_is_told_apart() {
        let mut status = recorded().swap_remove(0);
        let judge = Judge::new(Filters { boosts: false, ..Filters::default() });
        assert_eq!(judge.judge(&status, Some(&status.account.id)), Err(Blocked::Own));
        let boost = Status { reblog: Some(Box::new(status.clone())), ..recorded().swap_remove(4) };
        assert_eq!(judge.judge(&boost, None), Err(Blocked::Boost));
        assert_eq!(judge.judge(&boost, Some(&status.account.id)), Err(Blocked::Own));
        status.visibility = Visibility::Private;
        assert_eq!(judge.judge(&status, None), Err(Blocked::NotPublic));
    }
}

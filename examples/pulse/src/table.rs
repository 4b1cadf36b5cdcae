//! What a round compares.

use std::collections::BTreeMap;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Post, Round};

/// A post as the CSV has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Whose it is.
    pub account: String,
    /// Its id on the server.
    pub id: String,
    /// When it was posted.
    pub at: Timestamp,
    /// How many words it has.
    pub words: usize,
    /// Replies, boosts and favourites.
    pub reactions: u64,
}

/// An account in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Posts that were compared.
    pub posts: usize,
    /// Posts a day, from the first to the last of them; none of fewer than two.
    pub per_day: Option<f64>,
    /// Words in the middle post.
    pub words: usize,
    /// Reactions in all.
    pub reactions: u64,
}

/// What a round compares: the posts of the accounts that were fetched, and why the others were not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The round.
    pub round: Round,
    /// By account, then the latest first.
    pub rows: Vec<Row>,
    /// Accounts that were fetched, also those without posts.
    pub fetched: Vec<String>,
    /// Accounts that were not, with the reason.
    pub missing: Vec<(String, String)>,
}

impl Table {
    /// An empty one.
    pub fn new(round: Round) -> Self {
        Self { round, rows: Vec::new(), fetched: Vec::new(), missing: Vec::new() }
    }

    /// Adds an account's posts.
    pub fn add(&mut self, account: &str, posts: &[Post]) {
        self.fetched.push(account.to_owned());
        self.rows.extend(posts.iter().map(|post| Row {
            account: account.to_owned(),
            id: post.id.clone(),
            at: post.at,
            words: post.words(),
            reactions: post.reactions,
        }));
    }

    /// Each account in numbers.
    pub fn figures(&self) -> BTreeMap<&str, Figures> {
        let mut by_account: BTreeMap<&str, Vec<&Row>> =
            self.fetched.iter().map(|name| (name.as_str(), Vec::new())).collect();
        for row in &self.rows {
            by_account.entry(&row.account).or_default().push(row);
        }
        by_account.into_iter().map(|(account, rows)| (account, figures(&rows))).collect()
    }

    /// The posts as CSV, with a line of headings.
    ///
    /// # Errors
    /// When a row cannot be written, which no content of a row causes.
    pub fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(["account", "id", "at", "words", "reactions"])?;
        for row in &self.rows {
            writer.serialize(row)?;
        }
        writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
    }
}

fn figures(rows: &[&Row]) -> Figures {
    let mut words: Vec<usize> = rows.iter().map(|row| row.words).collect();
    words.sort_unstable();
    let first = rows.iter().map(|row| row.at).min();
    let last = rows.iter().map(|row| row.at).max();
    let days = first.zip(last).map(|(first, last)| last.millis_since(first) as f64 / 86_400_000.0);
    Figures {
        posts: rows.len(),
        per_day: days.filter(|days| *days > 0.0).map(|days| (rows.len() - 1) as f64 / days),
        words: words.get(words.len() / 2).copied().unwrap_or(0),
        reactions: rows.iter().map(|row| row.reactions).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(id: &str, at: &str, text: &str) -> Post {
        Post { id: id.to_owned(), at: Timestamp::parse(at).unwrap(), reactions: 2, text: text.to_owned() }
    }

    #[test]
    fn an_account_is_compared_by_posts_a_day_words_and_reactions() {
        let mut table = Table::new(Round::named("r"));
        table.add(
            "a",
            &[
                post("3", "2026-05-03T00:00:00Z", "one two three"),
                post("2", "2026-05-02T00:00:00Z", "one"),
                post("1", "2026-05-01T00:00:00Z", "one, two"),
            ],
        );
        table.add("alone", &[post("9", "2026-05-01T00:00:00Z", "x")]);
        table.add("empty", &[]);
        let figures = table.figures();
        assert_eq!(figures["a"], Figures { posts: 3, per_day: Some(1.0), words: 2, reactions: 6 });
        assert_eq!(figures["alone"].per_day, None);
        assert_eq!(figures["empty"], Figures { posts: 0, per_day: None, words: 0, reactions: 0 });
        let csv = String::from_utf8(table.csv().unwrap()).unwrap();
        assert_eq!(csv.lines().next(), Some("account,id,at,words,reactions"));
        assert_eq!(csv.lines().nth(1), Some("a,3,2026-05-03T00:00:00Z,3,2"));
        assert_eq!(csv.lines().count(), 5);
    }
}

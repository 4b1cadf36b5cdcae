//! Finding keywords.
//!
//! Text and words are brought to one form (NFKC, then lower case), so that `ﬁx`, `FIX` and full-width `ＦＩＸ` are `fix`. A word is found where
//! it stands between boundaries: `cve` is in `CVE-2026-1` and not in `receive`. What lies within an exclusion does not count.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization as _;

/// Words that mean the same to who watches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeywordGroup {
    /// Words and phrases.
    pub words: Vec<String>,
    /// Phrases in which they do not count.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// Keywords that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("keywords of {group}: {reason}")]
pub struct KeywordError {
    group: String,
    reason: String,
}

#[derive(Debug, Clone, Copy)]
struct Pattern {
    group: usize,
    excludes: bool,
}

/// Groups of words, ready to be found.
#[derive(Debug, Clone)]
pub struct Keywords {
    groups: Vec<String>,
    patterns: Vec<Pattern>,
    automaton: AhoCorasick,
}

/// The form in which text is compared. White space is one space.
pub fn normalized(text: &str) -> String {
    let lower = text.nfkc().collect::<String>().to_lowercase();
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Keywords {
    /// Takes groups of words.
    ///
    /// # Errors
    /// When a group has no words, or an empty one.
    pub fn new(groups: &BTreeMap<String, KeywordGroup>) -> Result<Self, KeywordError> {
        let mut texts = Vec::new();
        let mut patterns = Vec::new();
        for (number, (name, group)) in groups.iter().enumerate() {
            let wrong = |reason: &str| KeywordError { group: name.clone(), reason: reason.to_owned() };
            if group.words.is_empty() {
                return Err(wrong("there are none; write at least one word"));
            }
            let words = group.words.iter().map(|word| (word, false));
            for (word, excludes) in words.chain(group.exclude.iter().map(|phrase| (phrase, true))) {
                let text = normalized(word);
                if text.is_empty() {
                    return Err(wrong("an empty word is in every text; remove it"));
                }
                texts.push(text);
                patterns.push(Pattern { group: number, excludes });
            }
        }
        let automaton =
            AhoCorasick::builder().match_kind(MatchKind::Standard).build(&texts).map_err(|error| {
                KeywordError { group: "all".to_owned(), reason: format!("they are too many: {error}") }
            })?;
        Ok(Self { groups: groups.keys().cloned().collect(), patterns, automaton })
    }

    /// How often each group is in a text. Where words of a group overlap, the one that begins first counts, the longest of those; groups
    /// without a word in it are left out.
    pub fn count(&self, text: &str) -> BTreeMap<String, u64> {
        let text = normalized(text);
        let mut words: Vec<(usize, usize, usize)> = Vec::new();
        let mut excluded: Vec<(usize, usize, usize)> = Vec::new();
        for found in self.automaton.find_overlapping_iter(&text) {
            let (start, end) = (found.start(), found.end());
            if !stands_alone(&text, start, end) {
                continue;
            }
            let pattern = self.patterns[found.pattern().as_usize()];
            let list = if pattern.excludes { &mut excluded } else { &mut words };
            list.push((pattern.group, start, end));
        }
        words.retain(|(group, start, end)| {
            !excluded.iter().any(|(of, from, to)| of == group && from <= start && end <= to)
        });
        words.sort_unstable_by_key(|(group, start, end)| (*group, *start, std::cmp::Reverse(*end)));
        let mut counts = BTreeMap::new();
        let mut last: Option<(usize, usize)> = None;
        for (group, start, end) in words {
            if last.is_some_and(|(of, until)| of == group && start < until) {
                continue;
            }
            last = Some((group, end));
            *counts.entry(self.groups[group].clone()).or_default() += 1;
        }
        counts
    }
}

/// Whether what is found is a word by itself, or several.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    let inner = |inside: Option<char>, outside: Option<char>| {
        inside.is_some_and(of_a_word) && outside.is_some_and(of_a_word)
    };
    let found = &text[start..end];
    !inner(found.chars().next(), text[..start].chars().next_back())
        && !inner(found.chars().next_back(), text[end..].chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keywords() -> Keywords {
        let group = |words: &[&str], exclude: &[&str]| KeywordGroup {
            words: words.iter().map(|&word| word.to_owned()).collect(),
            exclude: exclude.iter().map(|&word| word.to_owned()).collect(),
        };
        let groups = [
            ("security", group(&["CVE", "security", "security hole", "buffer overflow"], &["security team"])),
            ("fix", group(&["fix", "fixes"], &[])),
            ("straße", group(&["Straße", "c++"], &[])),
        ];
        Keywords::new(&groups.map(|(name, group)| (name.to_owned(), group)).into()).unwrap()
    }

    #[test]
    fn words_are_found_in_any_form_between_boundaries_and_not_in_exclusions() {
        let keywords = keywords();
        for (text, found) in [
            ("nothing here", &[][..]),
            ("Fixes CVE-2026-1 and cve-2026-2", &[("fix", 1), ("security", 2)]),
            ("receives a prefix, suffixes and fixed", &[]),
            // A ligature, full width, and a decomposed letter.
            ("ﬁx ＦＩＸ", &[("fix", 2)]),
            ("STRASSE straße STRAẞE", &[("straße", 2)]),
            ("the security team", &[]),
            ("the Security\n  Team has a security hole", &[("security", 1)]),
            ("buffer\toverflow", &[("security", 1)]),
            ("buffer_overflow", &[]),
            ("(fix)", &[("fix", 1)]),
            ("c++, c++11", &[("straße", 2)]),
            ("", &[]),
        ] {
            let expected: BTreeMap<String, u64> =
                found.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            assert_eq!(keywords.count(text), expected, "{text}");
        }
    }

    #[test]
    fn groups_without_words_and_empty_words_are_refused() {
        for words in [vec![], vec![" ".to_owned()]] {
            let group = KeywordGroup { words, exclude: vec![] };
            let error = Keywords::new(&[("x".to_owned(), group)].into()).unwrap_err();
            assert!(error.to_string().starts_with("keywords of x: "), "{error}");
        }
    }
}

//! How long a text is for a server, and what fits.
//!
//! Mastodon counts what people see as characters (grapheme clusters of UAX #29, so an emoji with its modifiers is one), after two
//! replacements: a URL with its scheme counts as a fixed number, 23 unless the server says otherwise, and of a mention
//! `@name@host` only `@name` counts. A warning before the text counts, too.

use unicode_segmentation::UnicodeSegmentation;

/// What a server says of the length of statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LengthLimits {
    /// Characters of a status.
    pub max_characters: usize,
    /// Characters that each URL counts as.
    pub characters_reserved_per_url: usize,
}

impl Default for LengthLimits {
    /// What Mastodon has unless it is changed: 500, and 23.
    fn default() -> Self {
        Self { max_characters: 500, characters_reserved_per_url: 23 }
    }
}

/// How many characters a text counts as.
pub fn count(text: &str, limits: LengthLimits) -> usize {
    pieces(text).map(|piece| piece.count(limits)).sum()
}

/// A part of a text that is counted as a whole, and cut nowhere within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Url(&'a str),
    Mention { whole: &'a str, name: &'a str },
    Other(&'a str),
}

impl<'a> Piece<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Url(text) | Self::Other(text) | Self::Mention { whole: text, .. } => text,
        }
    }

    fn count(self, limits: LengthLimits) -> usize {
        match self {
            Self::Url(_) => limits.characters_reserved_per_url,
            Self::Mention { name, .. } => graphemes(name),
            Self::Other(text) => graphemes(text),
        }
    }
}

fn graphemes(text: &str) -> usize {
    text.graphemes(true).count()
}

/// A text as its URLs, its mentions and single characters of the rest.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    let mut inside_a_word = false;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = if inside_a_word { None } else { url(rest).or_else(|| mention(rest)) };
        let piece = piece.or_else(|| rest.graphemes(true).next().map(Piece::Other))?;
        let text = piece.text();
        inside_a_word = text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        rest = &rest[text.len()..];
        Some(piece)
    })
}

/// The URL that a text begins with. Only one with a scheme is given the concession by Mastodon.
fn url(text: &str) -> Option<Piece<'_>> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| starts_with(text, scheme))?;
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"')).unwrap_or(text.len());
    // What closes a sentence is not part of it, nor is a bracket that was opened before it.
    let mut url = &text[..end];
    while let Some(last) = url.chars().next_back() {
        let closes = matches!(last, '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '…' | '。' | '、')
            || (last == ')' && url.matches(')').count() > url.matches('(').count());
        if !closes {
            break;
        }
        url = &url[..url.len() - last.len_utf8()];
    }
    let host = url.get(scheme.len()..)?.split(['/', '?', '#']).next()?;
    (host.contains('.') || host.starts_with("localhost")).then_some(Piece::Url(url))
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// The mention that a text begins with.
fn mention(text: &str) -> Option<Piece<'_>> {
    let name_of =
        |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let name = name_of(text.strip_prefix('@')?);
    if name == 0 {
        return None;
    }
    let (name, rest) = text.split_at(name + 1);
    let host = rest.strip_prefix('@').map_or(0, |host| {
        let end = host.find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-'))).unwrap_or(host.len());
        host[..end].trim_end_matches(['.', '-']).len()
    });
    let whole = if host == 0 { name } else { &text[..name.len() + 1 + host] };
    Some(Piece::Mention { whole, name })
}

/// A text with a link behind it and as many of the hashtags, in their order, as fit. Hashtags that the text has are not added again.
/// A text that is too long beside the link is cut between two characters, never within a URL or a mention, and ends with `…`.
///
/// With limits that leave no room for the link it is only the cut text.
pub fn compose(
    text: &str,
    warning: &str,
    link: Option<&str>,
    hashtags: &[String],
    limits: LengthLimits,
) -> String {
    let room = limits.max_characters.saturating_sub(graphemes(warning));
    // An empty line before the link.
    let link = link.filter(|link| count(link, limits) + 2 <= room);
    let room_for_text = room - link.map_or(0, |link| count(link, limits) + 2);
    let mut composed = cut(text, room_for_text, limits);
    if let Some(link) = link {
        if !composed.is_empty() {
            composed.push_str("\n\n");
        }
        composed.push_str(link);
    }
    let mut left = room.saturating_sub(count(&composed, limits));
    let mut first = true;
    for tag in hashtags {
        let (tag, before) = (tag.trim_start_matches('#'), if first { "\n\n" } else { " " });
        let needed = graphemes(tag) + 1 + if composed.is_empty() { 0 } else { before.len() };
        if tag.is_empty() || needed > left || has_hashtag(&composed, tag) {
            continue;
        }
        if !composed.is_empty() {
            composed.push_str(before);
        }
        composed.push('#');
        composed.push_str(tag);
        left -= needed;
        first = false;
    }
    composed
}

/// Whether a text has this hashtag, in whatever case.
pub fn has_hashtag(text: &str, tag: &str) -> bool {
    let tag = tag.to_lowercase();
    text.split('#').skip(1).any(|after| {
        let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(after.len());
        after[..end].to_lowercase() == tag
    })
}

fn cut(text: &str, room: usize, limits: LengthLimits) -> String {
    if count(text, limits) <= room {
        return text.to_owned();
    }
    let Some(room) = room.checked_sub(1) else { return String::new() };
    let mut kept = String::new();
    let mut used = 0;
    for piece in pieces(text) {
        used += piece.count(limits);
        if used > room {
            break;
        }
        kept.push_str(piece.text());
    }
    // A cut URL or mention would be another one.
    let mut kept = kept.trim_end().to_owned();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LengthLimits = LengthLimits { max_characters: 500, characters_reserved_per_url: 23 };

    #[test]
    fn texts_are_counted_as_mastodon_counts_them() {
        for (text, expected) in [
            ("", 0),
            ("héllo", 5),
            // One character to who reads it, in two, seven and five scalar values.
            ("e\u{301}", 1),
            ("👨‍👩‍👧‍👦", 1),
            ("👍🏽🇪🇺", 2),
            ("日本語", 3),
            ("https://example.org/a/very/long/path?with=a&query=that-is-longer-than-23", 23),
            ("http://a.example", 23),
            ("HTTPS://A.EXAMPLE/x", 23),
            // Without a scheme, or within a word, no concession is made.
            ("example.org/abc", 15),
            ("xhttps://example.org", 20),
            ("https://", 8),
            ("see (https://a.example/b_(c)), or https://a.example.", 5 + 23 + 6 + 23 + 1),
            ("@name", 5),
            ("@name@a.very.long.host.example hi", 8),
            ("@name@a.example.", 6),
            ("mail@host.example", 17),
            ("a @ b", 5),
        ] {
            assert_eq!(count(text, LIMITS), expected, "{text}");
        }
    }

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn hashtags_are_added_as_long_as_they_fit_and_are_not_there_already() {
        let limits = |max_characters| LengthLimits { max_characters, ..LIMITS };
        let all = tags(&["Storm", "#rust", "streams"]);
        assert_eq!(compose("hello", "", None, &all, limits(100)), "hello\n\n#Storm #rust #streams");
        assert_eq!(compose("a #storm", "", None, &all, limits(100)), "a #storm\n\n#rust #streams");
        assert_eq!(compose("a #stormy", "", None, &all[..1], limits(100)), "a #stormy\n\n#Storm");
        // 5 + 2 + 6 + 1 + 5 are 19: the third does not fit, a shorter one behind it does.
        assert_eq!(compose("hello", "", None, &all, limits(19)), "hello\n\n#Storm #rust");
        assert_eq!(compose("hello", "", None, &all, limits(18)), "hello\n\n#Storm");
        assert_eq!(compose("hello", "", None, &tags(&["streams", "a"]), limits(12)), "hello\n\n#a");
        assert_eq!(compose("", "", None, &all, limits(6)), "#Storm");
        // A warning counts.
        assert_eq!(compose("hello", "warning", None, &all, limits(19)), "hello\n\n#rust");
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters_and_keeps_its_link() {
        let limits = |max_characters| LengthLimits { max_characters, ..LIMITS };
        let link = "https://social.example/@somebody/117020574694606796";
        assert_eq!(compose("12345", "", Some(link), &[], limits(30)), format!("12345\n\n{link}"));
        assert_eq!(compose("123456", "", Some(link), &[], limits(30)), format!("1234…\n\n{link}"));
        assert_eq!(compose("👨‍👩‍👧‍👦👨‍👩‍👧‍👦👨‍👩‍👧‍👦", "", None, &[], limits(2)), "👨‍👩‍👧‍👦…");
        assert_eq!(compose("ab @name@host.example", "", None, &[], limits(7)), "ab…");
        assert_eq!(compose("ab https://a.example/b", "", None, &[], limits(25)), "ab…");
        assert_eq!(compose("hello", "", Some(link), &[], limits(24)), "hello");
        for max in 0..60 {
            let text = compose(
                "one @two@three.example https://four.example five",
                "",
                Some(link),
                &tags(&["six"]),
                limits(max),
            );
            assert!(count(&text, limits(max)) <= max, "{max}: {text}");
        }
    }
}

//! Reading posts off a page.

use galerna_model::Timestamp;
use scraper::{ElementRef, Html, Node, Selector};
use serde::Deserialize;
use url::Url;

use crate::config::{Select, SourceKind};
use crate::store::Post;

/// What a page lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The posts.
    pub posts: Vec<Post>,
    /// The next page.
    pub next: Option<Url>,
}

/// A page that is not what its source says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A selector is none.
    #[error("`{0}` is no CSS selector: {1}")]
    Selector(String, String),
    /// A post lacks something.
    #[error("post {post} has no {part}; the site may have changed: see `select` of its source")]
    Part {
        /// Which post, by its id or its number on the page.
        post: String,
        /// What it lacks.
        part: &'static str,
    },
    /// A time is none.
    #[error("post {post}: {reason}")]
    Time {
        /// Which post.
        post: String,
        /// Why.
        reason: String,
    },
    /// It is not what JSON Feed is.
    #[error("it is no JSON Feed: {0}")]
    Json(String),
    /// The link to the next page is none.
    #[error("the next page, `{0}`, is no address")]
    Next(String),
}

/// Reads a page of this kind.
///
/// # Errors
/// [`ReadError`]; nothing is read of a page that cannot be read whole, for nobody would notice what is missing.
pub fn read(kind: SourceKind, select: &Select, url: &Url, body: &[u8]) -> Result<Listing, ReadError> {
    match kind {
        SourceKind::Html => html(select, url, &String::from_utf8_lossy(body)),
        SourceKind::Api => api(url, body),
    }
}

fn next_of(url: &Url, next: Option<&str>) -> Result<Option<Url>, ReadError> {
    let joined = |next: &str| url.join(next).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    next.map(|next| joined(next).ok_or_else(|| ReadError::Next(next.to_owned()))).transpose()
}

fn selector(text: &str) -> Result<Selector, ReadError> {
    Selector::parse(text).map_err(|error| ReadError::Selector(text.to_owned(), error.to_string()))
}

/// Whether all selectors are some.
pub(crate) fn check(select: &Select) -> Result<(), ReadError> {
    let Select { post, time, author, text, next } = select;
    [post, time, author, text, next].into_iter().try_for_each(|text| selector(text).map(drop))
}

fn html(select: &Select, url: &Url, body: &str) -> Result<Listing, ReadError> {
    let (post, time, author) = (selector(&select.post)?, selector(&select.time)?, selector(&select.author)?);
    let (text, next) = (selector(&select.text)?, selector(&select.next)?);
    let page = Html::parse_document(body);
    let mut posts = Vec::new();
    for (number, found) in page.select(&post).enumerate() {
        let part = |selector: &Selector| found.select(selector).next();
        let id = found
            .value()
            .id()
            .ok_or_else(|| ReadError::Part { post: format!("{}", number + 1), part: "id" })?;
        let lacks = |part| ReadError::Part { post: id.to_owned(), part };
        let at = part(&time).and_then(|time| time.value().attr("datetime")).ok_or_else(|| lacks("time"))?;
        posts.push(Post {
            id: id.to_owned(),
            at: Timestamp::parse(at)
                .map_err(|error| ReadError::Time { post: id.to_owned(), reason: error.to_string() })?,
            author: part(&author).map(words).unwrap_or_default(),
            text: part(&text).map(words).ok_or_else(|| lacks("text"))?,
        });
    }
    let next = page.select(&next).next().and_then(|link| link.value().attr("href"));
    Ok(Listing { posts, next: next_of(url, next)? })
}

/// What breaks no word: text in it goes on where that before it ended.
const INLINE: &[&str] = &[
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd",
    "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
];
/// How many elements around a text are looked at: nobody nests more of those that break no word.
const AROUND: usize = 64;

/// The text of an element, its white space as one space. Words that markup runs through stay whole, those of different paragraphs apart.
fn words(element: ElementRef<'_>) -> String {
    let (mut text, mut paragraph) = (String::new(), None);
    for node in element.descendants() {
        let name = |node: &Node| node.as_element().map(|element| element.name().to_owned());
        match node.value() {
            Node::Element(element) if matches!(element.name(), "br" | "hr" | "img") => text.push(' '),
            Node::Text(part) => {
                let around = || node.ancestors().take(AROUND);
                if around()
                    .filter_map(|node| name(node.value()))
                    .any(|name| matches!(&*name, "script" | "style"))
                {
                    continue;
                }
                let is_in = around()
                    .find(|node| name(node.value()).is_none_or(|name| !INLINE.contains(&&*name)))
                    .map(|node| node.id());
                if is_in != paragraph {
                    text.push(' ');
                    paragraph = is_in;
                }
                text.push_str(part);
            }
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
struct Feed {
    items: Vec<Item>,
    next_url: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    id: Id,
    date_published: Option<Timestamp>,
    content_text: Option<String>,
    content_html: Option<String>,
    #[serde(default)]
    authors: Vec<Author>,
}

/// JSON Feed has readers take a number for its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(serde_json::Number),
}

#[derive(Deserialize)]
struct Author {
    name: Option<String>,
}

fn api(url: &Url, body: &[u8]) -> Result<Listing, ReadError> {
    let feed: Feed = serde_json::from_slice(body).map_err(|error| ReadError::Json(error.to_string()))?;
    let mut posts = Vec::with_capacity(feed.items.len());
    for item in feed.items {
        let id = match item.id {
            Id::Text(text) => text,
            Id::Number(number) => number.to_string(),
        };
        let at = item
            .date_published
            .ok_or_else(|| ReadError::Part { post: id.clone(), part: "date_published" })?;
        let text = match (item.content_text, item.content_html) {
            (Some(text), _) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            (None, Some(html)) => words(Html::parse_fragment(&html).root_element()),
            (None, None) => return Err(ReadError::Part { post: id, part: "text" }),
        };
        let author = item.authors.into_iter().find_map(|author| author.name).unwrap_or_default();
        posts.push(Post { id, at, author, text });
    }
    Ok(Listing { posts, next: next_of(url, feed.next_url.as_deref())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_html(body: &str) -> Result<Listing, ReadError> {
        let url = Url::parse("http://site/groups/a?page=1").unwrap();
        read(SourceKind::Html, &Select::default(), &url, body.as_bytes())
    }

    #[test]
    fn posts_and_the_next_page_are_read_off_html() {
        let page = r#"<article id="7"><time datetime="2026-05-01T12:00:00Z">1 May</time><p class="author">A</p>
            <div class="text">one <b>two</b>
              &amp; three</div></article><a rel="next" href="?page=2">older</a>"#;
        let listing = read_html(page).unwrap();
        assert_eq!(listing.next.unwrap().as_str(), "http://site/groups/a?page=2");
        assert_eq!((listing.posts[0].id.as_str(), listing.posts[0].text.as_str()), ("7", "one two & three"));
    }

    #[test]
    fn words_are_where_a_reader_sees_them_whatever_the_markup() {
        for (html, text) in [
            ("secu<b>ri</b>ty <i>CVE</i>-2026", "security CVE-2026"),
            ("<p>one</p><p>two</p>three", "one two three"),
            ("one<br>two<hr>three<img src=x>four", "one two three four"),
            ("a<script>var cve = 1</script>b<style>cve {}</style>c", "abc"),
            ("<ul><li>one<li>two</ul>", "one two"),
            (
                "broken <b>bold <p>and</b> on </div></div> & &lt;tag&gt; &nosuch; <",
                "broken bold and on & <tag> &nosuch; <",
            ),
            ("<a href='x'><span>https://</span><span>example.org</span></a>", "https://example.org"),
            ("<!-- cve -->nothing", "nothing"),
            ("", ""),
        ] {
            let page = format!(
                "<article id=7><time datetime='2026-05-01T12:00:00Z'></time><section class=text>{html}</section></article>"
            );
            assert_eq!(read_html(&page).unwrap().posts[0].text, text, "{html}");
        }
        // Nobody writes so, and it takes no more than its length.
        let deep = format!("{}cve", "<b>".repeat(50_000));
        let page = format!("<article id=7><time datetime='2026-05-01T12:00:00Z'></time><p class=text>{deep}");
        assert_eq!(read_html(&page).unwrap().posts[0].text, "cve");
    }

    #[test]
    fn a_link_that_leads_out_of_the_web_is_an_error() {
        for href in ["file:///etc/passwd", "javascript:void(0)", "http://"] {
            let page = format!("<a rel=next href='{href}'>older</a>");
            assert!(matches!(read_html(&page), Err(ReadError::Next(next)) if next == href));
        }
        assert_eq!(read_html("<a rel=next>older</a>").unwrap().next, None);
    }

    #[test]
    fn a_page_that_cannot_be_read_whole_is_an_error_that_says_what_is_missing() {
        for (page, said) in [
            (
                r#"<article id="7"><p class="text">x</p></article>"#,
                "post 7 has no time; the site may have changed: see `select` of its source",
            ),
            (
                r#"<article id="7"><time datetime="yesterday"></time><p class="text">x</p></article>"#,
                "post 7: time `yesterday` is not RFC 3339; write for instance 2015-04-21T23:15:00+00:00",
            ),
            (
                r#"<article id="7"><time datetime="2026-05-01T12:00:00Z"></time></article>"#,
                "post 7 has no text; the site may have changed: see `select` of its source",
            ),
        ] {
            assert_eq!(read_html(page).unwrap_err().to_string(), said);
        }
        let url = Url::parse("http://site/").unwrap();
        let select = Select { post: "article[".to_owned(), ..Select::default() };
        assert!(matches!(read(SourceKind::Html, &select, &url, b""), Err(ReadError::Selector(..))));
        assert!(matches!(read(SourceKind::Api, &select, &url, b"<html>"), Err(ReadError::Json(_))));
    }

    #[test]
    fn posts_and_the_next_page_are_read_off_a_feed() {
        let feed = br#"{"version": "https://jsonfeed.org/version/1.1", "next_url": "/feed?page=2", "items": [
            {"id": "1", "date_published": "2026-05-01T12:00:00Z", "content_html": "<p>a <i>b</i></p>", "authors": [{"name": "A"}]},
            {"id": "2", "date_published": "2026-05-01T12:00:00Z", "content_text": "c\n d"}]}"#;
        let url = Url::parse("http://site/feed").unwrap();
        let listing = read(SourceKind::Api, &Select::default(), &url, feed).unwrap();
        let texts: Vec<&str> = listing.posts.iter().map(|post| post.text.as_str()).collect();
        assert_eq!((texts, listing.next.unwrap().as_str()), (vec!["a b", "c d"], "http://site/feed?page=2"));
    }
}

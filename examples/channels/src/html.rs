//! The text of a status, which servers give as HTML of a few elements.

/// The text of such HTML: paragraphs apart by an empty line, breaks as new lines, character references as characters.
pub fn plain_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = if rest.starts_with('<') { element(rest, &mut text) } else { reference(rest, &mut text) };
    }
    text.push_str(rest);
    text.trim().to_owned()
}

/// Passes over an element's tag at the start; what follows it.
fn element<'a>(html: &'a str, text: &mut String) -> &'a str {
    let Some(end) = html.find('>') else {
        // Not closed: it is no tag.
        text.push('<');
        return &html[1..];
    };
    let name = html[1..end].trim_end_matches('/').trim().to_ascii_lowercase();
    match name.split_ascii_whitespace().next() {
        Some("br") => text.push('\n'),
        Some("/p" | "/blockquote" | "/pre" | "/ul" | "/ol") => text.push_str("\n\n"),
        Some("/li") => text.push('\n'),
        _ => {}
    }
    &html[end + 1..]
}

/// Takes a character reference at the start; what follows it.
fn reference<'a>(html: &'a str, text: &mut String) -> &'a str {
    let end = html.bytes().take(12).position(|byte| byte == b';');
    let named = end.and_then(|end| Some((character(&html[1..end])?, &html[end + 1..])));
    let (character, rest) = named.unwrap_or(('&', &html[1..]));
    text.push(character);
    rest
}

fn character(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_becomes_the_text_that_its_author_wrote() {
        for (html, text) in [
            ("<p>I have never stolen a ham in my life.</p>", "I have never stolen a ham in my life."),
            ("<p>one<br>two<br/>three</p><p>four</p>", "one\ntwo\nthree\n\nfour"),
            ("<p>you&#39;re &lt;b&gt; &amp;amp; &#x1F600;</p>", "you're <b> &amp; 😀"),
            ("a & b &unknown; &#xD800; &", "a & b &unknown; &#xD800; &"),
            ("5 < 6", "5 < 6"),
            (
                "<a href=\"https://a.example/b\"><span class=\"invisible\">https://</span>a.example/b</a>",
                "https://a.example/b",
            ),
            ("&🙂🙂🙂;", "&🙂🙂🙂;"),
            ("", ""),
        ] {
            assert_eq!(plain_text(html), text, "{html}");
        }
    }
}

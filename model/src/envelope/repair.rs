//! What other publishers write where JSON has a number or a text, and what JSON does not have: it is made JSON, so that it costs its
//! reading and not the whole message.

use std::borrow::Cow;

/// The words for numbers that are none, as C, Python and JavaScript write them, in lower case without a sign.
const NOT_FINITE: [(&str, &str); 3] = [("nan", "NaN"), ("infinity", "Infinity"), ("inf", "Infinity")];

/// Fields of a reading, and of the oldest form of one, that hold a number. Their value may be any word: it cannot be taken for text, as
/// it could be in a device id.
const NUMBERS: [&[u8]; 8] =
    [b"v", b"p", b"sqn", b"ts", b"value", b"seqNum", b"serviceNetworkId", b"timeStamp"];

/// Makes JSON of what is none within one value. Borrowed when there is nothing to do.
///
/// - Words for numbers that are none (`NaN`, `nan`, `Infinity`, `-inf`, …) become the texts `"NaN"`, `"Infinity"` and `"-Infinity"`.
/// - What else stands in place of a number (`.5`, `5.`, `01`, `+1`, `1.#QNAN`, `None`, …) in a field for one becomes text, and where nothing
///   stands, `null`.
/// - In a text, bytes that are not UTF-8 and escapes that JSON does not have become U+FFFD, which no device id may hold; control
///   characters are escaped.
pub fn isolate_bad_values(body: &[u8]) -> Cow<'_, [u8]> {
    let (body, lossy) = match String::from_utf8_lossy(body) {
        Cow::Borrowed(_) => (Cow::Borrowed(body), false),
        Cow::Owned(text) => (Cow::Owned(text.into_bytes()), true),
    };
    match rewritten(&body) {
        Some(rewritten) => Cow::Owned(rewritten),
        None if lossy => Cow::Owned(body.into_owned()),
        None => body,
    }
}

/// The body with each bad value rewritten; nothing when there is none.
fn rewritten(body: &[u8]) -> Option<Vec<u8>> {
    let mut made = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    // The name of the field whose value comes next.
    let mut field: Option<&[u8]> = None;
    let mut last_text: &[u8] = b"";
    let mut replace = |range: std::ops::Range<usize>, by: &[u8]| {
        made.extend_from_slice(&body[copied..range.start]);
        made.extend_from_slice(by);
        copied = range.end;
    };
    while at < body.len() {
        match body[at] {
            b'"' => {
                let begun = at + 1;
                at = text(body, begun, &mut replace);
                last_text = &body[begun..at.saturating_sub(1).max(begun)];
                field = None;
                continue;
            }
            b':' => {
                field = Some(last_text).filter(|name| NUMBERS.contains(name));
                at += 1;
                continue;
            }
            b',' | b'}' => {
                // Nothing stands where a number should.
                if field.take().is_some() {
                    replace(at..at, b"null");
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            b'{' | b'[' | b']' => field = None,
            _ => {
                let length = word_length(&body[at..]);
                let word = &body[at..at + length];
                let of_number = field.take().is_some();
                if let Some(usual) = not_finite(word) {
                    replace(at..at + length, format!("\"{usual}\"").as_bytes());
                } else if of_number && serde_json::from_slice::<serde::de::IgnoredAny>(word).is_err() {
                    // A number out of range is none for the parser either, and is told as such by whoever takes the reading apart.
                    let word = String::from_utf8_lossy(word);
                    if !super::fields::is_out_of_range(&word) {
                        replace(at..at + length, serde_json::Value::from(word).to_string().as_bytes());
                    }
                }
                at += length;
                continue;
            }
        }
        at += 1;
    }
    if copied == 0 && made.is_empty() {
        return None;
    }
    made.extend_from_slice(&body[copied..]);
    Some(made)
}

/// Goes through a text to behind its closing quote.
fn text(body: &[u8], begun: usize, replace: &mut impl FnMut(std::ops::Range<usize>, &[u8])) -> usize {
    let mut at = begun;
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => match body.get(at + 1) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 1,
                Some(b'u')
                    if body
                        .get(at + 2..at + 6)
                        .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) => {}
                _ => replace(at..at + 1, "\u{fffd}".as_bytes()),
            },
            0..0x20 => replace(at..at + 1, format!("\\u{byte:04x}").as_bytes()),
            _ => {}
        }
        at += 1;
    }
    at
}

/// How far what stands in place of a value reaches; at least one byte.
fn word_length(text: &[u8]) -> usize {
    let ends = |byte: &u8| {
        matches!(byte, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"') || byte.is_ascii_whitespace()
    };
    text.iter().position(ends).unwrap_or(text.len()).max(1)
}

/// The usual form of a word that stands for a number that is none.
fn not_finite(word: &[u8]) -> Option<String> {
    let (sign, name) = match word {
        [b'-', name @ ..] => ("-", name),
        [b'+', name @ ..] => ("", name),
        name => ("", name),
    };
    let (_, usual) = NOT_FINITE.iter().find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))?;
    Some(format!("{}{usual}", if *usual == "NaN" { "" } else { sign }))
}

//! From the bytes of a file to text.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::error::ImportError;

/// A file's text, which is UTF-8 but for what was broken in it already.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) bytes: Vec<u8>,
    pub(crate) encoding: &'static str,
}

const SAVE_AS_TEXT: &str = "export it as CSV from the program that made it";

/// What files that are no text begin with.
const MAGIC: [(&[u8], &str, &str); 8] = [
    (b"\x89PNG\r\n\x1a\n", "a PNG image", "give the table that it shows"),
    (b"\x89PNG\r\r\n\x1a\r\n", "a PNG image", "give the table that it shows"),
    (b"\xff\xd8\xff", "a JPEG image", "give the table that it shows"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the older form", "save the sheet as CSV"),
    (b"%PDF", "a PDF document", SAVE_AS_TEXT),
    (b"SQLite format 3\0", "an SQLite database", SAVE_AS_TEXT),
    (b"\x1f\x8b", "a gzip archive within another", "unpack it once"),
];

/// Whether a file with this beginning is no text, whatever it is called.
pub(crate) fn is_no_text(beginning: &[u8]) -> bool {
    MAGIC.iter().any(|(start, ..)| beginning.starts_with(start))
}

/// Finds the encoding: as told, by a byte order mark, by the zero bytes that UTF-16 has in ASCII text, or UTF-8.
pub(crate) fn decode(bytes: Vec<u8>, told: Option<&str>) -> Result<Text, ImportError> {
    if let Some((_, found, remedy)) = MAGIC.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return Err(ImportError::NotText { found: (*found).to_owned(), remedy });
    }
    if let Some(label) = told {
        let encoding = Encoding::for_label(label.trim().as_bytes()).ok_or_else(|| ImportError::Option {
            what: "--encoding",
            value: label.to_owned(),
            problem: "no encoding of that name; write for instance utf-8, utf-16le, windows-1252".to_owned(),
        })?;
        // A byte order mark of the same encoding is left out; one of another says more than who told.
        let encoding = Encoding::for_bom(&bytes).map_or(encoding, |(found, _)| found);
        return decoded(bytes, encoding);
    }
    if bytes.starts_with(&[0xff, 0xfe, 0, 0]) || bytes.starts_with(&[0, 0, 0xfe, 0xff]) {
        return Err(ImportError::Encoding {
            encoding: "UTF-32".to_owned(),
            problem: "that is not read".to_owned(),
            remedy: "save it as UTF-8",
        });
    }
    if let Some((encoding, _)) = Encoding::for_bom(&bytes) {
        return decoded(bytes, encoding);
    }
    match utf_16_without_mark(&bytes) {
        Some(encoding) => decoded(bytes, encoding),
        None if bytes.contains(&0) => Err(ImportError::NotText {
            found: "binary: it holds zero bytes".to_owned(),
            remedy: SAVE_AS_TEXT,
        }),
        None => Ok(Text { bytes, encoding: "UTF-8" }),
    }
}

/// Text in UTF-16 has a zero in every other byte but for letters that are not ASCII, and nearly none in the others: no text of
/// another encoding has.
fn utf_16_without_mark(bytes: &[u8]) -> Option<&'static Encoding> {
    const LOOKED_AT: usize = 4096;
    let start = &bytes[..bytes.len().min(LOOKED_AT) & !1];
    if start.len() < 4 {
        return None;
    }
    let zeros = |offset: usize| start.iter().skip(offset).step_by(2).filter(|b| **b == 0).count();
    let (first, second, pairs) = (zeros(0), zeros(1), start.len() / 2);
    let most = |count: usize, other: usize| count * 2 > pairs && other * 50 < count;
    match (most(first, second), most(second, first)) {
        (true, false) => Some(UTF_16BE),
        (false, true) => Some(UTF_16LE),
        _ => None,
    }
}

fn decoded(bytes: Vec<u8>, encoding: &'static Encoding) -> Result<Text, ImportError> {
    if encoding == UTF_8 {
        let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) => rest.to_vec(),
            None => bytes,
        };
        return Ok(Text { bytes, encoding: "UTF-8" });
    }
    let (text, broken) = encoding.decode_with_bom_removal(&bytes);
    if broken {
        let line = text.split('\u{fffd}').next().map_or(1, |before| before.matches('\n').count() + 1);
        return Err(ImportError::Encoding {
            encoding: encoding.name().to_owned(),
            problem: format!("line {line} has bytes that are not"),
            remedy: "it may be cut off; export it again, or say --encoding",
        });
    }
    Ok(Text { bytes: text.into_owned().into_bytes(), encoding: encoding.name() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf_16(text: &str, little: bool, mark: bool) -> Vec<u8> {
        let mark = if mark { "\u{feff}" } else { "" };
        let units = mark.encode_utf16().chain(text.encode_utf16()).collect::<Vec<_>>();
        units.into_iter().flat_map(|u| if little { u.to_le_bytes() } else { u.to_be_bytes() }).collect()
    }

    #[test]
    fn utf_8_and_utf_16_are_told_apart() {
        let text = "ts;value\r\n2026;1,5 é\r\n";
        for (bytes, encoding) in [
            (text.as_bytes().to_vec(), "UTF-8"),
            ([b"\xef\xbb\xbf", text.as_bytes()].concat(), "UTF-8"),
            (utf_16(text, true, true), "UTF-16LE"),
            (utf_16(text, false, true), "UTF-16BE"),
            (utf_16(text, true, false), "UTF-16LE"),
            (utf_16(text, false, false), "UTF-16BE"),
        ] {
            let read = decode(bytes, None).unwrap();
            assert_eq!((String::from_utf8(read.bytes).unwrap().as_str(), read.encoding), (text, encoding));
        }
        // Letters that are not ASCII in front, and so no zero beside them.
        let text = "– Zählpunkte – Übersicht €\nts,value\n2026,1\n";
        for (little, encoding) in [(true, "UTF-16LE"), (false, "UTF-16BE")] {
            let read = decode(utf_16(text, little, false), None).unwrap();
            assert_eq!((String::from_utf8(read.bytes).unwrap().as_str(), read.encoding), (text, encoding));
        }
        let latin = decode(b"caf\xe9".to_vec(), Some("latin1")).unwrap();
        assert_eq!(latin.bytes, "café".as_bytes());
    }

    #[test]
    fn what_is_no_text_is_named() {
        let mut cut = utf_16("value\n1\u{1f600}", true, true);
        cut.truncate(cut.len() - 2);
        for (bytes, told, parts) in [
            (b"\x89PNG\r\n\x1a\n\0\0".to_vec(), None, &["PNG"][..]),
            (b"PK\x03\x04rest".to_vec(), None, &["Excel", "CSV"]),
            (b"a,b\n\0\x01\x02,1".to_vec(), None, &["zero bytes"]),
            (cut, None, &["UTF-16LE", "line 2", "cut off"]),
            (vec![0xff, 0xfe, 0, 0, 65, 0, 0, 0], None, &["UTF-32", "UTF-8"]),
            (b"a".to_vec(), Some("utf-9"), &["--encoding", "utf-9"]),
        ] {
            let error = decode(bytes, told).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error} {parts:?}");
        }
    }
}

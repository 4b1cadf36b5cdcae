//! Which characters people can see.

/// The first character of a text that nobody sees or that changes how its neighbours are shown: white space, control characters, zero-width
/// and directional ones, fillers, selectors of variants, those for private use and those that Unicode has not assigned. Two
/// names that differ only in such characters look the same.
pub fn first_invisible(text: &str) -> Option<char> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    text.chars().find(|c| is_invisible(*c))
}

/// The same, but spaces between visible characters are seen.
pub fn first_invisible_but_spaces(text: &str) -> Option<char> {
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return None;
    }
    text.chars().find(|c| *c != ' ' && is_invisible(*c))
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            // What steers the text, and what stands in place of characters (Unicode's categories Cf, Co and its noncharacters).
            '\u{ad}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{ffff}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
            | '\u{f0000}'..='\u{10ffff}'
            // Letters, marks and symbols that are shown as nothing.
            | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_found() {
        for c in "\t\n\u{7f}\u{85}\u{a0}\u{ad}\u{34f}\u{61c}\u{115f}\u{1680}\u{180e}\u{2003}\u{200b}\u{200d}\u{200f}\u{2028}\u{202e}\u{2060}\
                  \u{2066}\u{2800}\u{3000}\u{3164}\u{e000}\u{fe0f}\u{feff}\u{ffa0}\u{fff9}\u{fffd}\u{ffff}\u{e0041}\u{e0101}\u{10ffff}"
            .chars()
        {
            assert_eq!(first_invisible(&format!("a{c}b")), Some(c), "{:x}", u32::from(c));
            assert_eq!(first_invisible_but_spaces(&format!("a {c}b")), Some(c), "{:x}", u32::from(c));
        }
        for text in [
            "D0000591",
            "BC:6A:29:D0:F5:C8",
            "Strom-Zähler",
            "電力",
            "счётчик",
            "عداد",
            "a\u{301}",
            "…",
            "🔌",
        ] {
            assert_eq!(first_invisible(text), None, "{text}");
        }
        assert_eq!((first_invisible("a b"), first_invisible_but_spaces("a b")), (Some(' '), None));
    }
}

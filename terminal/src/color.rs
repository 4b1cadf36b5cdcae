//! Colours: where the output is a terminal that shows them, and `NO_COLOR` is not set.

use std::fmt::Write as _;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// What a colour says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// It is well.
    Good,
    /// Somebody should look.
    Warn,
    /// It is not well.
    Bad,
}

/// Characters that take no width and mean nothing outside of formulas: they stand for the colours while a table is laid out.
const MARKS: [(Tone, char, AnsiColor); 3] = [
    (Tone::Good, '\u{2061}', AnsiColor::Green),
    (Tone::Warn, '\u{2062}', AnsiColor::Yellow),
    (Tone::Bad, '\u{2063}', AnsiColor::Red),
];
/// Where a colour ends.
const END: char = '\u{2064}';

/// A text in a colour, to be laid out and then [`painted`].
pub(crate) fn marked(text: &str, tone: Tone) -> String {
    match MARKS.iter().find(|(its, ..)| *its == tone) {
        Some((_, mark, _)) => format!("{mark}{text}{END}"),
        None => text.to_owned(),
    }
}

/// Takes out the marks, and those that somebody wrote into a name.
pub(crate) fn unmarked(text: &str) -> String {
    text.replace(['\u{2061}', '\u{2062}', '\u{2063}', END], "")
}

/// Puts colours in the place of the marks where standard output shows them.
pub(crate) fn painted(text: &str) -> String {
    if AutoStream::choice(&std::io::stdout()) == ColorChoice::Never {
        return unmarked(text);
    }
    with_colors(text)
}

fn with_colors(text: &str) -> String {
    let mut colored = String::with_capacity(text.len());
    let mut style = Style::new();
    for c in text.chars() {
        if let Some((.., color)) = MARKS.iter().find(|(_, mark, _)| *mark == c) {
            style = Style::new().fg_color(Some((*color).into()));
            // Writing into a string does not fail.
            let _ = write!(colored, "{style}");
        } else if c == END {
            let _ = write!(colored, "{style:#}");
        } else {
            colored.push(c);
        }
    }
    colored
}

/// The word before a message on standard error, such as `error`, in a colour where it shows them.
pub fn label(word: &str, tone: Tone) -> String {
    let color = MARKS.iter().find(|(its, ..)| *its == tone).map(|(.., color)| *color);
    match color {
        Some(color) if AutoStream::choice(&std::io::stderr()) != ColorChoice::Never => {
            let style = Style::new().fg_color(Some(color.into())).bold();
            format!("{style}{word}:{style:#}")
        }
        _ => format!("{word}:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_colours_or_nothing() {
        let text = format!("a {} b", marked("stopped", Tone::Bad));
        assert_eq!(unmarked(&text), "a stopped b");
        assert_eq!(with_colors(&text), "a \u{1b}[31mstopped\u{1b}[0m b");
        assert_eq!(marked("idle", Tone::Plain), "idle");
        // Nobody reads standard output of a test on a terminal with colours.
        assert_eq!(
            unmarked(&painted(&text)).replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""),
            "a stopped b"
        );
    }
}

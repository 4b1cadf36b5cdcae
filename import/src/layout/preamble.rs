//! The lines before the header.

use super::normalized;
use crate::error::{ImportError, shown};
use crate::mapping::{Conditions, Label, Mapping, OneOrMore, ValueMapping};

/// The cells of the lines before the header.
pub(super) struct Preamble<'b>(pub(super) &'b [Vec<String>]);

/// What stands for bytes that are no text.
const BROKEN: char = '\u{fffd}';

impl Preamble<'_> {
    /// What stands beside a label, if it is there and says something.
    pub(super) fn text(&self, label: &Label) -> Result<Option<String>, ImportError> {
        let wanted = normalized(label.text());
        let place = |line: &[String]| line.iter().position(|cell| normalized(cell) == wanted);
        let found = match label {
            Label::After(_) => self.0.iter().find_map(|line| line.get(place(line)? + 1)),
            Label::Below(_) => self.0.windows(2).find_map(|lines| lines[1].get(place(&lines[0])?)),
        };
        let found = found.filter(|text| !text.is_empty());
        let broken = match found {
            Some(text) => text.contains(BROKEN),
            // The label may be one of those.
            None => self.0.iter().flatten().any(|cell| cell.contains(BROKEN)),
        };
        if broken {
            return Err(ImportError::Encoding {
                encoding: "read as UTF-8".to_owned(),
                problem: "a line before its header has bytes that are not".to_owned(),
                remedy: "save it as UTF-8, or say its --encoding, such as windows-1252",
            });
        }
        Ok(found.cloned())
    }

    /// The values of a mapping that are those of this file.
    pub(super) fn chosen<'m>(&self, mapping: &'m Mapping) -> Result<Vec<&'m ValueMapping>, ImportError> {
        let mut chosen = Vec::new();
        // What was asked, what was found, and how many questions before it were answered as asked.
        let mut refused: Vec<(&Label, &OneOrMore, Option<String>, usize)> = Vec::new();
        for value in &mapping.value {
            let mut fits = true;
            for (met, when) in value.when.iter().flat_map(Conditions::files).enumerate() {
                let found = self.text(&when.label)?;
                let is = |text: &String| when.equals.iter().any(|one| normalized(one) == normalized(text));
                if !found.as_ref().is_some_and(is) {
                    refused.push((&when.label, &when.equals, found, met));
                    fits = false;
                    break;
                }
            }
            if fits {
                chosen.push(value);
            }
        }
        // The last question that any value came to.
        let (true, Some((label, _, found, met))) =
            (chosen.is_empty(), refused.iter().rev().max_by_key(|(.., met)| *met))
        else {
            return Ok(chosen);
        };
        let mut known: Vec<String> = Vec::new();
        for (_, equals, ..) in refused.iter().filter(|(other, .., m)| other == label && m == met) {
            known.extend(
                equals
                    .iter()
                    .map(|one| format!("`{one}`"))
                    .filter(|one| !known.contains(one))
                    .collect::<Vec<_>>(),
            );
        }
        let known = known.join(", ");
        let (label, name) = (label.text(), mapping.name());
        let found = match found {
            Some(found) => format!(
                "the lines before the header say that `{label}` is `{}`, of which `{name}` reads {known}",
                shown(found)
            ),
            None => {
                format!("the lines before the header do not say `{label}`, of which `{name}` reads {known}")
            }
        };
        let remedy =
            "export another kind of data, or say with a mapping of your own what these values are".to_owned();
        Err(ImportError::Header { found, remedy })
    }
}

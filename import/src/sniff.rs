//! What a file is: its delimiter, its header, and the mapping that reads it.

use crate::error::{ImportError, shown};
use crate::layout::{Header, Layout};
use crate::mapping::{CANONICAL, MappedForm, Mapping};
use crate::options::Options;
use crate::table::{Lines, cells};

/// Lines among which a header is looked for.
const LOOKED_AT: u64 = 200;
const DELIMITERS: [(u8, &str); 4] = [(b',', "`,`"), (b';', "`;`"), (b'\t', "a tab"), (b'|', "`|`")];

/// What a file turned out to be.
#[derive(Debug)]
pub(crate) struct Sniffed {
    pub(crate) layout: Layout,
    pub(crate) delimiter: u8,
    /// The line of the header, from 1.
    pub(crate) header: u64,
}

/// How a delimiter is named.
pub(crate) fn named(delimiter: u8) -> String {
    let known = DELIMITERS.iter().find(|(known, _)| *known == delimiter);
    known.map_or_else(|| format!("`{}`", delimiter as char), |(_, name)| (*name).to_owned())
}

/// The delimiter of a first line such as `sep=;`.
fn sep_line(line: &[u8]) -> Option<u8> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (key, rest) = line.split_at_checked(4)?;
    match (key.eq_ignore_ascii_case(b"sep="), rest) {
        (true, [delimiter]) if delimiter.is_ascii() => Some(*delimiter),
        // A tab was trimmed.
        (true, []) => Some(b'\t'),
        _ => None,
    }
}

/// The columns of a line, split in one way.
struct Candidate {
    line: u64,
    delimiter: u8,
    cells: Vec<String>,
}

/// Looks for the header. It is the first line that has all columns of a mapping, by their names: no other line of a file
/// has, which is what makes this certain.
pub(crate) fn sniff(text: &[u8], lines: &Lines, options: &Options) -> Result<Sniffed, ImportError> {
    let first = (1..=lines.count()).find(|line| !lines.text(text, *line).is_empty());
    let Some(first) = first else {
        return Err(ImportError::Header {
            found: "the file is empty".to_owned(),
            remedy: "export it again".to_owned(),
        });
    };
    let told = sep_line(lines.text(text, first));
    let from = if told.is_some() { first + 1 } else { first };
    let delimiters = delimiters(told, options)?;
    let mappings: Vec<Mapping> = match &options.mapping {
        Some(mapping) => vec![mapping.clone()],
        None => Mapping::names().filter_map(Mapping::named).filter(|m| m.form == MappedForm::Table).collect(),
    };
    let mut seen: Vec<Candidate> = Vec::new();
    let filled = (from..=lines.count()).filter(|line| !lines.text(text, *line).trim_ascii().is_empty());
    for line in filled.take(usize::try_from(LOOKED_AT).unwrap_or(usize::MAX)) {
        let mut found: Vec<(&Mapping, usize)> = Vec::new();
        for (delimiter, _) in &delimiters {
            let cells = cells(lines.text(text, line), *delimiter);
            let header = Header::new(&cells);
            let fits = mappings.iter().filter(|mapping| fits(mapping, &header, *delimiter, options));
            found.extend(fits.map(|mapping| (mapping, seen.len())));
            seen.push(Candidate { line, delimiter: *delimiter, cells });
        }
        // A mapping whose columns are all among another's is not the one that is meant.
        let most = found.iter().map(|(mapping, _)| mapping.required().count()).max();
        found.retain(|(mapping, _)| Some(mapping.required().count()) == most);
        match found[..] {
            [] => {}
            [(mapping, at)] => {
                let Candidate { cells: header, delimiter, .. } = &seen[at];
                let preamble: Vec<Vec<String>> =
                    (from..line).map(|before| cells(lines.text(text, before), *delimiter)).collect();
                let layout = Layout::bind(mapping, header, &preamble, options)?;
                return Ok(Sniffed { layout, delimiter: *delimiter, header: line });
            }
            [(first, a), (second, b), ..] => {
                return Err(ImportError::Ambiguous {
                    found: format!(
                        "line {line} is the header of `{}` (separated by {}) and of `{}` (separated by {})",
                        first.name(),
                        named(seen[a].delimiter),
                        second.name(),
                        named(seen[b].delimiter)
                    ),
                    remedy: "say which with --mapping".to_owned(),
                });
            }
        }
    }
    Err(unknown(&seen, &mappings))
}

fn delimiters(told: Option<u8>, options: &Options) -> Result<Vec<(u8, &'static str)>, ImportError> {
    let mapped = options.mapping.as_ref().and_then(|mapping| mapping.delimiter);
    match (options.delimiter, told, mapped) {
        (Some(c), ..) | (None, None, Some(c)) => match u8::try_from(c) {
            Ok(delimiter) if delimiter.is_ascii() && !matches!(delimiter, b'"' | b'\r' | b'\n') => {
                Ok(vec![(delimiter, "")])
            }
            _ => Err(ImportError::Option {
                what: "the delimiter",
                value: c.to_string(),
                problem: "it must be an ASCII character that is no quote".to_owned(),
            }),
        },
        (None, Some(delimiter), _) => Ok(vec![(delimiter, "")]),
        (None, None, None) => Ok(DELIMITERS.to_vec()),
    }
}

fn fits(mapping: &Mapping, header: &Header<'_>, delimiter: u8, options: &Options) -> bool {
    // A shipped mapping knows the delimiter of its form.
    let separated =
        options.mapping.is_some() || mapping.delimiter.is_none_or(|d| u8::try_from(d) == Ok(delimiter));
    separated
        && (options.mapping.is_some() || !mapping.has_meter_columns())
        && mapping.fits_fields(header)
        && mapping.grid.iter().all(|grid| grid.optional || has_grid(&grid.columns, header))
}

fn has_grid(columns: &str, header: &Header<'_>) -> bool {
    let first = ["1", "01", "00:30", "0:30", "00:15", "00:00", "0:00", "01:00", "1:00"];
    first.iter().any(|label| header.has(&columns.replace("{n}", label).replace("{time}", label)))
}

/// Says what the line looks like that is most like a header, and what it lacks.
fn unknown(seen: &[Candidate], mappings: &[Mapping]) -> ImportError {
    let lacking = |mapping: &Mapping, cells: &[String]| -> Vec<String> {
        let header = Header::new(cells);
        let mut lacks: Vec<String> = mapping
            .required()
            .filter(|column| !header.has(column))
            .map(|column| format!("`{column}`"))
            .collect();
        // Of values that it may lack one must be there.
        if lacks.is_empty() && !mapping.fits_fields(&header) {
            let values = mapping.value.iter().map(|value| format!("`{}`", value.column));
            lacks.push(format!("one of {}", values.collect::<Vec<_>>().join(" or ")));
        }
        lacks
    };
    // The first of the lines that have the most columns.
    let best = seen.iter().rev().max_by_key(|candidate| candidate.cells.len());
    let Some(best) = best else {
        return ImportError::Header {
            found: "the file has no line after `sep=`".to_owned(),
            remedy: "export it again".to_owned(),
        };
    };
    let shown_cells: Vec<String> =
        best.cells.iter().take(12).map(|cell| format!("`{}`", shown(cell))).collect();
    let more =
        if best.cells.len() > 12 { format!(" and {} more", best.cells.len() - 12) } else { String::new() };
    let looks = match best.cells.len() {
        1 if DELIMITERS.iter().any(|(delimiter, _)| best.cells[0].as_bytes().contains(delimiter)) => {
            format!(
                "line {} stands in quotes as a whole, so that nothing separates its columns; export it without those: {}",
                best.line,
                shown_cells.concat()
            )
        }
        1 => {
            format!("line {} is not separated by `,`, `;`, a tab or `|`: {}", best.line, shown_cells.concat())
        }
        n => format!(
            "line {} has {n} columns, separated by {}: {}{more}",
            best.line,
            named(best.delimiter),
            shown_cells.join(", ")
        ),
    };
    if let [mapping] = mappings {
        let lacks = lacking(mapping, &best.cells);
        let lacks = if lacks.is_empty() { "its grid".to_owned() } else { lacks.join(", ") };
        return ImportError::Header {
            found: format!(
                "no line of the file is a header of `{}`: {looks}; missing: {lacks}",
                mapping.name()
            ),
            remedy: "choose another --mapping, or correct it".to_owned(),
        };
    }
    let near = mappings
        .iter()
        .filter(|mapping| mapping.name() != CANONICAL && !mapping.has_meter_columns())
        .map(|mapping| (lacking(mapping, &best.cells), mapping))
        .filter(|(lacks, mapping)| !lacks.is_empty() && lacks.len() * 2 <= mapping.required().count())
        .min_by_key(|(lacks, _)| lacks.len());
    let near = near.map_or_else(String::new, |(lacks, mapping)| {
        format!("; it is nearest to `{}`, which has {} too", mapping.name(), lacks.join(", "))
    });
    let mut canonical: Vec<&str> = vec!["account", "meter_id", "utility", "ts", "value", "unit"];
    let header = Header::new(&best.cells);
    canonical.retain(|column| !header.has(column));
    let canonical: Vec<String> = canonical.iter().map(|column| format!("`{column}`")).collect();
    let by_meter = if header.has("timestamp") && best.cells.len() > 2 {
        "; if every other column is a meter of its own, that is --mapping meter-columns"
    } else {
        ""
    };
    ImportError::Header {
        found: format!(
            "no line of the file is a header that is known: {looks}; of the columns account, meter_id, utility, ts, value, unit {} {} missing{near}",
            canonical.join(", "),
            if canonical.len() == 1 { "is" } else { "are" },
        ),
        remedy: format!(
            "say which column is what with --mapping: one of {}, or a file of your own{by_meter}",
            mappings.iter().map(Mapping::name).collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_may_say_the_delimiter() {
        for (line, delimiter) in [
            (&b"sep=;"[..], Some(b';')),
            (b"SEP=,", Some(b',')),
            (b"\"sep=|\"", Some(b'|')),
            (b"sep=", Some(b'\t')),
            (b"sep=ab", None),
            (b"separator", None),
            (b"a", None),
        ] {
            assert_eq!(sep_line(line), delimiter, "{}", String::from_utf8_lossy(line));
        }
    }
}

//! Rows that are JSON objects, by a mapping.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::error::{ImportError, RowError, RowFault, shown};
use crate::layout::{Header, Layout};
use crate::mapping::{MappedForm, Mapping};
use crate::number::DecimalMark;
use crate::options::Options;
use crate::row::Row;

type Object<'t> = BTreeMap<String, &'t RawValue>;
type Read = (String, Vec<Result<Row, RowError>>);

/// Reads a JSON object a line, or an array of them.
pub(crate) fn read(text: &[u8], options: &Options) -> Result<Read, ImportError> {
    let mut objects: Vec<(u64, Result<Object<'_>, String>)> = Vec::new();
    let text = std::str::from_utf8(text).map_err(|e| ImportError::Encoding {
        encoding: "UTF-8".to_owned(),
        problem: format!("byte {} is not", e.valid_up_to() + 1),
        remedy: "save it as UTF-8, or say its --encoding",
    })?;
    if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text)
            .map_err(|e| ImportError::Broken { found: format!("the file is not JSON: {e}") })?;
        for item in items {
            // The item is a part of the text.
            let offset = item.get().as_ptr() as usize - text.as_ptr() as usize;
            let line = text[..offset].matches('\n').count() as u64 + 1;
            objects.push((line, serde_json::from_str(item.get()).map_err(|e| e.to_string())));
        }
    } else {
        for (line, number) in text.lines().zip(1..) {
            if !line.trim().is_empty() {
                objects.push((number, serde_json::from_str(line).map_err(|e| e.to_string())));
            }
        }
    }
    let Some((_, first)) = objects.iter().find_map(|(line, o)| o.as_ref().ok().map(|o| (line, o))) else {
        let problem = objects.first().and_then(|(_, object)| object.as_ref().err());
        let problem = problem.map_or("it is empty", String::as_str);
        return Err(ImportError::Broken { found: format!("no row of the file is a JSON object: {problem}") });
    };
    let names: Vec<String> = first.keys().cloned().collect();
    let mapping = mapping(&names, options)?;
    // Objects may lack what others have: the columns are all that the mapping names.
    let mut header: Vec<String> = mapping.required().map(str::to_owned).collect();
    header.extend(mapping.value.iter().map(|value| value.column.clone()));
    header.extend(names);
    let mut seen = std::collections::HashSet::new();
    header.retain(|name| seen.insert(crate::layout::normalized(name)));
    let mut layout = Layout::bind(&mapping, &header, &[], options)?;
    layout.mark = DecimalMark::Point;
    if mapping.decimal == Some(',') {
        layout.mark = DecimalMark::Comma;
    }
    let records: Vec<_> = objects
        .into_iter()
        .map(|(line, object)| (line, object.map(|object| record(&object, &header))))
        .collect();
    if layout.takes_order() {
        let times: Vec<_> =
            records.iter().filter_map(|(_, r)| r.as_ref().ok().and_then(|r| layout.local_time(r))).collect();
        layout.newest_first = times.first().zip(times.last()).is_some_and(|(first, last)| first > last);
    }
    let mut rows = Vec::new();
    for (line, record) in records {
        match record {
            Ok(record) => layout.read(line, &record, &mut rows),
            Err(problem) => {
                let full = problem.split(" at line ").next().unwrap_or(&problem).to_owned();
                rows.push(Err(RowError::new(
                    line,
                    RowFault::Reading,
                    format!("it is not a JSON object: {full}"),
                )));
            }
        }
    }
    Ok((mapping.name().to_owned(), rows))
}

fn record(object: &Object<'_>, header: &[String]) -> csv::StringRecord {
    header
        .iter()
        .map(|name| match object.get(name) {
            None => String::new(),
            Some(raw) => match raw.get() {
                "null" => String::new(),
                text if text.starts_with('"') => serde_json::from_str(text).unwrap_or_default(),
                // A number's own digits.
                text => text.to_owned(),
            },
        })
        .collect::<Vec<String>>()
        .into()
}

/// Whether an object with these fields is a row of a shipped mapping.
pub(crate) fn mapping(names: &[String], options: &Options) -> Result<Mapping, ImportError> {
    if let Some(mapping) = &options.mapping {
        return Ok(mapping.clone());
    }
    let header = Header::new(names);
    if ["did", "readings", "body"].iter().any(|field| header.has(field)) {
        return Err(ImportError::Header {
            found: "the file holds readings in JSON, not rows of an export".to_owned(),
            remedy: "say --form ndjson (or json)".to_owned(),
        });
    }
    let json = Mapping::names().filter_map(Mapping::named).filter(|mapping| mapping.form == MappedForm::Json);
    let mut fitting = json.filter(|mapping| mapping.required().all(|column| header.has(column)));
    fitting.next().ok_or_else(|| {
        let shown: Vec<String> = names.iter().take(12).map(|name| format!("`{}`", shown(name))).collect();
        let known: Vec<&str> = Mapping::names().collect();
        ImportError::Header {
            found: format!("the objects of the file have the fields {}, which are neither a reading's (did, values, sqn, ts) nor known", shown.join(", ")),
            remedy: format!("say which field is what with --mapping: one of {}, or a file of your own", known.join(", ")),
        }
    })
}

/// Whether a JSON document begins with an object, or an array of objects, that a shipped mapping reads.
pub(crate) fn is_export(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    let text = text.strip_prefix(b"[").unwrap_or(text);
    let mut objects = serde_json::Deserializer::from_slice(text).into_iter::<Object<'_>>();
    let Some(Ok(object)) = objects.next() else { return false };
    let names: Vec<String> = object.into_keys().collect();
    mapping(&names, &Options::default()).is_ok()
}

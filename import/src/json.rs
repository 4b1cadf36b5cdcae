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
type Objects<'t> = Vec<(u64, Result<Object<'t>, String>)>;
type Read = (String, Vec<Result<Row, RowError>>);

/// Reads a JSON object a line, or an array of them.
pub(crate) fn read(text: &[u8], options: &Options) -> Result<Read, ImportError> {
    let text = std::str::from_utf8(text).map_err(|e| ImportError::Encoding {
        encoding: "UTF-8".to_owned(),
        problem: format!("byte {} is not", e.valid_up_to() + 1),
        remedy: "save it as UTF-8, or say its --encoding",
    })?;
    if let Some((mapping, objects)) = document(text, options)? {
        return read_objects(objects, &mapping, options);
    }
    let mut objects: Objects<'_> = Vec::new();
    if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text)
            .map_err(|e| ImportError::Broken { found: format!("the file is not JSON: {e}") })?;
        for item in items {
            let object = serde_json::from_str(item.get()).map_err(|e| e.to_string());
            objects.push((line_of(text, item), object));
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
    read_objects(objects, &mapping, options)
}

/// The line of a part of the text.
fn line_of(text: &str, part: &RawValue) -> u64 {
    let offset = (part.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() as u64 + 1
}

/// The rows of a document that has them in a list within it, as a mapping says.
fn document<'t>(text: &'t str, options: &Options) -> Result<Option<(Mapping, Objects<'t>)>, ImportError> {
    let candidates: Vec<Mapping> = match &options.mapping {
        Some(mapping) => vec![mapping.clone()],
        None => Mapping::names().filter_map(Mapping::named).collect(),
    };
    let mut candidates = candidates.into_iter().filter(|mapping| mapping.rows.is_some()).peekable();
    if candidates.peek().is_none() || !text.trim_start().starts_with('{') {
        return Ok(None);
    }
    // Several documents may follow each other.
    let documents: Result<Vec<&RawValue>, _> =
        serde_json::Deserializer::from_str(text).into_iter::<&RawValue>().collect();
    let Ok(documents) = documents else { return Ok(None) };
    for mapping in candidates {
        let path: Vec<&str> = mapping.rows.iter().flat_map(|rows| rows.split('.')).collect();
        let mut items: Vec<&RawValue> = Vec::new();
        documents.iter().for_each(|document| collect(document, &path, &mut items));
        let objects: Objects<'_> = items
            .into_iter()
            .map(|item| (line_of(text, item), serde_json::from_str(item.get()).map_err(|e| e.to_string())))
            .collect();
        let fits = |object: &Object<'_>| {
            let names: Vec<String> = object.keys().cloned().collect();
            mapping.fits_fields(&Header::new(&names))
        };
        match objects.first() {
            None if options.mapping.is_some() => {
                return Err(ImportError::Header {
                    found: format!(
                        "the file has no rows at `{}`, where `{}` has them",
                        path.join("."),
                        mapping.name()
                    ),
                    remedy: "choose another --mapping, or correct it".to_owned(),
                });
            }
            Some((_, Ok(first))) if options.mapping.is_some() || fits(first) => {
                return Ok(Some((mapping, objects)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Collects the items of the lists at a path; lists on the way are gone through.
fn collect<'t>(value: &'t RawValue, path: &[&str], into: &mut Vec<&'t RawValue>) {
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        if path.is_empty() {
            into.extend(items);
        } else {
            items.into_iter().for_each(|item| collect(item, path, into));
        }
        return;
    }
    let Some((name, rest)) = path.split_first() else { return };
    let object = serde_json::from_str::<Object<'_>>(value.get()).ok();
    if let Some(inner) = object.and_then(|object| object.get(*name).copied()) {
        collect(inner, rest, into);
    }
}

fn read_objects(objects: Objects<'_>, mapping: &Mapping, options: &Options) -> Result<Read, ImportError> {
    let names = objects.iter().find_map(|(_, object)| object.as_ref().ok());
    let names: Vec<String> = names.map(|first| first.keys().cloned().collect()).unwrap_or_default();
    // Objects may lack what others have: the columns are all that the mapping names.
    let mut header: Vec<String> = mapping.required().map(str::to_owned).collect();
    header.extend(mapping.value.iter().map(|value| value.column.clone()));
    header.extend(names);
    let mut seen = std::collections::HashSet::new();
    header.retain(|name| seen.insert(crate::layout::normalized(name)));
    let mut layout = Layout::bind(mapping, &header, &[], options)?;
    layout.mark = DecimalMark::Point;
    if mapping.decimal == Some(',') {
        layout.mark = DecimalMark::Comma;
    }
    let records: Vec<_> = objects
        .into_iter()
        .map(|(line, object)| (line, object.map(|object| record(&object, &header))))
        .collect();
    layout.settle(|| records.iter().filter_map(|(line, r)| Some((*line, r.as_ref().ok()?.clone()))))?;
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
    let mut fitting = json.filter(|mapping| mapping.rows.is_none() && mapping.fits_fields(&header));
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
    if let Some(Ok(object)) = objects.next() {
        let names: Vec<String> = object.into_keys().collect();
        if mapping(&names, &Options::default()).is_ok() {
            return true;
        }
    }
    // Rows within a document, of which this may be no more than the beginning.
    Mapping::names().filter_map(Mapping::named).any(|mapping| {
        let list = mapping.rows.as_deref().and_then(|rows| rows.rsplit('.').next());
        let row = list.and_then(|list| first_of(text, list));
        row.is_some_and(|names| mapping.fits_fields(&Header::new(&names)))
    })
}

/// The fields of the first object of the list that a field holds, wherever it is.
fn first_of(text: &[u8], list: &str) -> Option<Vec<String>> {
    let name = format!("\"{list}\"");
    let at = text.windows(name.len()).position(|part| part == name.as_bytes())?;
    let rest = text[at + name.len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"[")?;
    let first = serde_json::Deserializer::from_slice(rest).into_iter::<Object<'_>>().next()?.ok()?;
    Some(first.into_keys().collect())
}

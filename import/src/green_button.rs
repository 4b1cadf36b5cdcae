//! Green Button XML: the intervals of an ESPI feed.

use std::collections::HashMap;

use galerna_model::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event;
use rust_decimal::Decimal;

use crate::error::{ImportError, Lack, RowError, RowFault, shown};
use crate::layout::amount;
use crate::mapping::Direction;
use crate::number::DecimalMark;
use crate::options::Options;
use crate::row::{self, MeterValue, Row};
use crate::units::{Kind, Measure, measure};

/// What an entry of the feed holds, as far as it is read.
#[derive(Default)]
struct Entry {
    own: String,
    up: String,
    related: Vec<String>,
    kind: Option<ReadingType>,
    usage_point: bool,
    meter_reading: bool,
    readings: Vec<IntervalReading>,
}

#[derive(Default, Clone)]
struct ReadingType {
    unit: Option<u32>,
    power_of_ten: i32,
    direction: Option<u32>,
    commodity: Option<u32>,
}

#[derive(Default)]
struct IntervalReading {
    line: u64,
    start: String,
    duration: String,
    value: String,
    power_of_ten: Option<i32>,
}

fn broken(line: u64, problem: impl std::fmt::Display) -> ImportError {
    ImportError::Broken { found: format!("line {line}: the XML is broken: {problem}") }
}

/// Reads a feed.
pub(crate) fn read(text: &[u8], options: &Options) -> Result<Vec<Result<Row, RowError>>, ImportError> {
    let beginning = text[..text.len().min(200)].trim_ascii_start().to_ascii_lowercase();
    if beginning.starts_with(b"<!doctype html") || beginning.starts_with(b"<html") {
        return Err(ImportError::NotText {
            found: "a web page, perhaps one that asks to log in".to_owned(),
            remedy: "download the export again",
        });
    }
    let entries = entries(text)?;
    let readings: usize = entries.iter().map(|entry| entry.readings.len()).sum();
    if readings == 0 {
        return Err(ImportError::Broken {
            found: "the file is XML, but no Green Button feed: it has no ESPI `IntervalReading`; export CSV, or a Green Button file with usage"
                .to_owned(),
        });
    }
    let Some(account) = &options.account else {
        return Err(lacks(Lack { what: "whose the readings are", remedy: "--account NAME" }));
    };
    let kinds = Kinds::of(&entries);
    let meters = entries.iter().filter(|entry| entry.usage_point).count();
    if let (Some(meter), 2..) = (&options.meter, meters) {
        return Err(ImportError::Ambiguous {
            found: format!("the file has {meters} usage points, and --meter {meter} names one meter"),
            remedy: "leave --meter out: each is then named by its id in the file".to_owned(),
        });
    }
    let mut rows = Vec::with_capacity(readings);
    for entry in entries.iter().filter(|entry| !entry.readings.is_empty()) {
        let kind = kinds.find(entry)?;
        let meter = match &options.meter {
            Some(meter) => meter.clone(),
            None => usage_point(&entry.own)
                .or_else(|| usage_point(&entry.up))
                .ok_or_else(|| lacks(Lack { what: "which meter", remedy: "--meter ID" }))?,
        };
        row::meter(&meter)
            .map_err(|problem| ImportError::Broken { found: format!("the usage point's id {problem}") })?;
        let (measure, direction) = meaning(kind, options)?;
        for reading in &entry.readings {
            rows.push(
                value(reading, measure, direction, kind.map_or(0, |k| k.power_of_ten)).map(|value| Row {
                    account: account.clone(),
                    meter: meter.clone(),
                    value,
                }),
            );
        }
    }
    Ok(rows)
}

fn lacks(lack: Lack) -> ImportError {
    ImportError::Lacks { shape: "the Green Button file".to_owned(), lacks: vec![lack] }
}

/// The types of readings, by the addresses of what refers to them.
struct Kinds<'e> {
    by_address: HashMap<&'e str, &'e ReadingType>,
    meter_readings: Vec<&'e Entry>,
}

impl<'e> Kinds<'e> {
    fn of(entries: &'e [Entry]) -> Self {
        let by_address = entries.iter().filter_map(|e| Some((e.own.as_str(), e.kind.as_ref()?))).collect();
        Self { by_address, meter_readings: entries.iter().filter(|entry| entry.meter_reading).collect() }
    }

    /// The type of an entry's readings; `None` when the file has none at all.
    fn find(&self, entry: &Entry) -> Result<Option<&'e ReadingType>, ImportError> {
        let mut kinds = self.by_address.values();
        match (kinds.next(), kinds.next()) {
            (None, _) => return Ok(None),
            (Some(only), None) => return Ok(Some(only)),
            _ => {}
        }
        let belongs = |address: &str, to: &str| {
            !to.is_empty()
                && address.strip_prefix(to).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let of = self
            .meter_readings
            .iter()
            .filter(|reading| belongs(&entry.up, &reading.own) || belongs(&entry.own, &reading.own));
        let kind =
            of.flat_map(|reading| &reading.related).find_map(|address| self.by_address.get(address.as_str()));
        kind.copied().map(Some).ok_or_else(|| ImportError::Ambiguous {
            found: format!(
                "the file has {} reading types, and no link says which is that of the block `{}`",
                self.by_address.len(),
                shown(&entry.own)
            ),
            remedy: "export each meter by itself".to_owned(),
        })
    }
}

/// The id that an address has behind `UsagePoint/`.
fn usage_point(address: &str) -> Option<String> {
    let id = address.split("UsagePoint/").nth(1)?.split('/').next()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// What the values are. Codes of units, directions and commodities are those of ESPI.
fn meaning(kind: Option<&ReadingType>, options: &Options) -> Result<(Measure, Direction), ImportError> {
    let code = kind.and_then(|kind| kind.unit);
    let unit = match (code, options.unit.as_deref()) {
        (Some(72), _) => "Wh",
        (Some(38), _) => "W",
        (Some(73), _) => "varh",
        (Some(42 | 125 | 166), _) => "m3",
        (Some(119), _) => "ft3",
        (Some(134), _) => "l",
        (Some(other), _) => {
            return Err(ImportError::Option {
                what: "the feed's unit (`uom`)",
                value: other.to_string(),
                problem:
                    "it is not read; those that are: 72 (Wh), 38 (W), 73 (varh), 42 (m3), 119 (ft3), 134 (l)"
                        .to_owned(),
            });
        }
        (None, Some(unit)) => unit,
        (None, None) => {
            return Err(lacks(Lack {
                what: "which unit its values have (it has no `ReadingType` with `uom`)",
                remedy: "--unit Wh (or another)",
            }));
        }
    };
    let utility = match (kind.and_then(|kind| kind.commodity), options.utility.as_deref()) {
        (_, Some(utility)) => utility,
        (Some(7), None) => "gas",
        (Some(9), None) => "water",
        (Some(0..=2) | None, None) => "electricity",
        (Some(other), None) => {
            return Err(ImportError::Option {
                what: "the feed's commodity",
                value: other.to_string(),
                problem: "it is not known; say --utility".to_owned(),
            });
        }
    };
    let direction = match kind.and_then(|kind| kind.direction) {
        Some(1) => Direction::Import,
        Some(19) => Direction::Export,
        _ => Direction::Net,
    };
    let measure = measure(utility, unit, Kind::Interval).map_err(|problem| ImportError::Option {
        what: "the unit",
        value: unit.to_owned(),
        problem,
    })?;
    Ok((measure, direction))
}

fn value(
    reading: &IntervalReading,
    measure: Measure,
    direction: Direction,
    power_of_ten: i32,
) -> Result<MeterValue, RowError> {
    let line = reading.line;
    let wrong = |fault, problem: String| RowError::new(line, fault, problem);
    let seconds = |what: &str, text: &str| {
        text.trim().parse::<i64>().ok().filter(|seconds| (0..=1 << 40).contains(seconds)).ok_or_else(|| {
            wrong(RowFault::Time, format!("{what} `{}` is not a whole number of seconds", shown(text)))
        })
    };
    let start = seconds("start", &reading.start)?;
    let length = seconds("duration", &reading.duration)?;
    let power = reading.power_of_ten.unwrap_or(power_of_ten);
    let factor = power_of_ten_factor(power)
        .and_then(|ten| ten.checked_mul(measure.factor))
        .ok_or_else(|| wrong(RowFault::Unit, format!("powerOfTenMultiplier {power} is out of range")))?;
    let amount = amount(reading.value.trim(), DecimalMark::Point, Measure { factor, ..measure }, direction)
        .map_err(|problem| wrong(RowFault::Value, format!("value {problem}")))?;
    let (refused_since, is_mean) = (None, false);
    Ok(MeterValue {
        refused_since,
        is_mean,
        line,
        ts: Timestamp((start + length) * 1000),
        amount,
        length_ms: (length > 0).then_some(length * 1000),
        usual_ms: None,
        utility: measure.utility,
    })
}

fn power_of_ten_factor(power: i32) -> Option<Decimal> {
    let size = power.unsigned_abs();
    if size > 12 {
        return None;
    }
    if power < 0 { Some(Decimal::new(1, size)) } else { Some(Decimal::from(10_i64.pow(size))) }
}

/// Reads the entries of a feed.
fn entries(text: &[u8]) -> Result<Vec<Entry>, ImportError> {
    let text = std::str::from_utf8(text).map_err(|e| {
        let line = text[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64 + 1;
        broken(line, "it is not UTF-8; say its --encoding")
    })?;
    let mut reader = Reader::from_str(text);
    let mut entries = vec![Entry::default()];
    let mut path: Vec<String> = Vec::new();
    let (mut seen, mut line) = (0, 1);
    loop {
        let event = reader.read_event();
        let at = usize::try_from(reader.buffer_position()).unwrap_or(text.len()).min(text.len());
        let here = line;
        line += text.as_bytes()[seen..at].iter().filter(|b| **b == b'\n').count() as u64;
        seen = at;
        match event.map_err(|e| broken(line, e))? {
            Event::Start(start) => {
                let name = start.local_name().as_ref().to_owned();
                open(&mut entries, &path, &name, here);
                if name == "link" {
                    link(&mut entries, &start, line)?;
                }
                path.push(name);
            }
            Event::Empty(start) => {
                let name = start.local_name().as_ref().to_owned();
                open(&mut entries, &path, &name, here);
                if name == "link" {
                    link(&mut entries, &start, line)?;
                }
            }
            Event::End(_) => {
                let closed = path.pop();
                if closed.as_deref() == Some("entry") {
                    entries.push(Entry::default());
                }
            }
            Event::Text(part) => {
                let part = part.xml10_content();
                if !part.trim().is_empty() {
                    put(&mut entries, &path, part.trim()).map_err(|problem| broken(line, problem))?;
                }
            }
            Event::Eof if path.is_empty() => return Ok(entries),
            Event::Eof => {
                return Err(broken(
                    line,
                    format!("`{}` is not closed; the file may be cut off", path.join("/")),
                ));
            }
            _ => {}
        }
    }
}

fn open(entries: &mut [Entry], path: &[String], name: &str, line: u64) {
    let Some(entry) = entries.last_mut() else { return };
    match name {
        "UsagePoint" => entry.usage_point = true,
        "MeterReading" => entry.meter_reading = true,
        "ReadingType" => entry.kind = Some(ReadingType::default()),
        "IntervalReading" if path.iter().any(|outer| outer == "IntervalBlock") => {
            entry.readings.push(IntervalReading { line, ..IntervalReading::default() });
        }
        _ => {}
    }
}

fn link(
    entries: &mut [Entry],
    start: &quick_xml::events::BytesStart<'_>,
    line: u64,
) -> Result<(), ImportError> {
    let Some(entry) = entries.last_mut() else { return Ok(()) };
    let (mut rel, mut href) = (String::new(), String::new());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| broken(line, e))?;
        let key = attribute.key.as_ref();
        let value = attribute.value.into_owned();
        match key {
            "rel" => rel = value,
            "href" => href = value,
            _ => {}
        }
    }
    match rel.as_str() {
        "self" => entry.own = href,
        "up" => entry.up = href,
        "related" => entry.related.push(href),
        _ => {}
    }
    Ok(())
}

/// Takes the text of an element.
fn put(entries: &mut [Entry], path: &[String], text: &str) -> Result<(), String> {
    let (Some(entry), [.., parent, name]) = (entries.last_mut(), path) else { return Ok(()) };
    fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, String> {
        text.parse().map(Some).map_err(|_| format!("{name} `{}` is not a whole number", shown(text)))
    }
    if let (Some(kind), "ReadingType") = (&mut entry.kind, parent.as_str()) {
        match name.as_str() {
            "uom" => kind.unit = number(name, text)?,
            "powerOfTenMultiplier" => kind.power_of_ten = number(name, text)?.unwrap_or(0),
            "flowDirection" => kind.direction = number(name, text)?,
            "commodity" => kind.commodity = number(name, text)?,
            _ => {}
        }
    }
    let Some(reading) = entry.readings.last_mut() else { return Ok(()) };
    match (parent.as_str(), name.as_str()) {
        ("timePeriod", "start") => text.clone_into(&mut reading.start),
        ("timePeriod", "duration") => text.clone_into(&mut reading.duration),
        ("IntervalReading", "value") => text.clone_into(&mut reading.value),
        ("IntervalReading", "powerOfTenMultiplier") => reading.power_of_ten = number(name, text)?,
        _ => {}
    }
    Ok(())
}

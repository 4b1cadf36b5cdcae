//! A mapping bound to the header of a file: from records to values.

use std::collections::HashMap;

use galerna_model::{AccountId, ParameterCode, Timestamp};
use jiff::civil::{Date, DateTime};
use rust_decimal::Decimal;

use crate::error::{ImportError, Lack, RowError, RowFault, shown};
use crate::grid::Grid;
use crate::mapping::{CANONICAL, Direction, Edge, Field, METER as METER_PLACE, Mapping, OneOrMore, When};
use crate::number::{DecimalMark, Number};
use crate::options::Options;
use crate::row::{self, Amount, MeterValue, Row};
use crate::times::{self, Occurrence, Overlap, Stamp, TimeFormat, Zone, parse_length};
use crate::units::{Kind, Measure, Target, measure};

/// A column's name without what is only writing: case, and what stands between words.
pub(crate) fn normalized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(|c: char| c.is_whitespace() || matches!(c, '_' | '-')).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push('_');
        }
        out.extend(word.chars().flat_map(char::to_lowercase));
    }
    out
}

/// Where a text comes from.
#[derive(Debug, Clone)]
enum Source {
    Fixed(String),
    /// A column; what is empty there is this.
    Column(usize, Option<String>),
    Nowhere,
}

impl Source {
    fn of<'r>(&'r self, record: &'r csv::StringRecord) -> Option<&'r str> {
        match self {
            Self::Fixed(text) => Some(text),
            Self::Column(at, otherwise) => {
                let text = record.get(*at).unwrap_or_default().trim();
                if text.is_empty() { otherwise.as_deref() } else { Some(text) }
            }
            Self::Nowhere => None,
        }
    }
}

/// What the values of a column or grid are.
#[derive(Debug, Clone)]
pub(crate) struct Meaning {
    utility: Source,
    unit: Source,
    direction: Direction,
    kind: Kind,
    /// Known at the beginning where neither utility nor unit is a column.
    measure: Option<Measure>,
}

#[derive(Debug, Clone)]
struct Value {
    at: usize,
    /// The meter that the column is named after.
    meter: Option<String>,
    meaning: Meaning,
    when: Option<(usize, OneOrMore)>,
}

#[derive(Debug, Clone)]
enum Times {
    /// Date and time in one column, and perhaps the end in another.
    One {
        at: usize,
        format: TimeFormat,
        end: Option<usize>,
    },
    Clock {
        date: usize,
        date_format: TimeFormat,
        clock: usize,
        clock_format: String,
        end: Option<usize>,
    },
    Hour {
        date: usize,
        date_format: TimeFormat,
        hour: usize,
    },
    Grid {
        date: usize,
        date_format: TimeFormat,
    },
}

/// Where the times of a row are.
struct Placed {
    stamp: Stamp,
    edge: Edge,
    length: Option<i64>,
}

/// How the rows of a file are read.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) shape: String,
    header: Vec<String>,
    /// Fields that a record must have.
    needed: usize,
    account: Source,
    meter: Source,
    interval: Source,
    usual_ms: Option<i64>,
    times: Times,
    edge: Edge,
    end_inclusive_ms: i64,
    pub(crate) zone: Zone,
    pub(crate) mark: DecimalMark,
    values: Vec<Value>,
    grids: Vec<Grid>,
    skip: Vec<(usize, OneOrMore)>,
    /// The newest row of a meter stands first.
    pub(crate) newest_first: bool,
    account_before: Option<AccountId>,
    /// How often a local time that occurs twice was read of a meter.
    occurrences: HashMap<(String, usize, DateTime), u8>,
    measures: HashMap<(usize, String, String), Result<Measure, String>>,
    /// Rows that the mapping leaves out.
    pub(crate) skipped: u64,
}

/// The columns of a header, by their normalized names.
pub(crate) struct Header<'h> {
    names: &'h [String],
    normalized: Vec<String>,
}

impl<'h> Header<'h> {
    pub(crate) fn new(names: &'h [String]) -> Self {
        Self { names, normalized: names.iter().map(|name| normalized(name)).collect() }
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        let column = normalized(column);
        self.normalized.contains(&column)
    }

    pub(crate) fn normalized(&self) -> &[String] {
        &self.normalized
    }

    /// The place of a column; the error says that two have its name.
    fn place(&self, column: &str) -> Result<Option<usize>, ImportError> {
        let wanted = normalized(column);
        let mut places =
            self.normalized.iter().enumerate().filter(|(_, name)| **name == wanted).map(|(at, _)| at);
        let first = places.next();
        match (first, places.next()) {
            (Some(a), Some(b)) => Err(ImportError::Ambiguous {
                found: format!(
                    "columns {} and {} of the header are both `{}`",
                    a + 1,
                    b + 1,
                    shown(&self.names[a])
                ),
                remedy: "rename one of them".to_owned(),
            }),
            _ => Ok(first),
        }
    }

    fn must(&self, column: &str) -> Result<usize, ImportError> {
        self.place(column)?.ok_or_else(|| ImportError::Header {
            found: format!("column `{column}` is missing in the header"),
            remedy: "choose another --mapping, or correct it".to_owned(),
        })
    }

    fn must_all(&self, when: Option<&When>) -> Result<Option<(usize, OneOrMore)>, ImportError> {
        when.map(|when| Ok((self.must(&when.column)?, when.equals.clone()))).transpose()
    }
}

/// Looks up what a mapping names, in the header, the lines before it and the options.
struct Binding<'b> {
    header: &'b Header<'b>,
    preamble: &'b [Vec<String>],
}

impl Binding<'_> {
    fn source(&self, field: Option<&Field>, option: Option<&str>) -> Result<Source, ImportError> {
        let told = option.map(str::to_owned);
        let fixed = |text: Option<String>| text.map_or(Source::Nowhere, Source::Fixed);
        Ok(match field {
            None => fixed(told),
            Some(Field::Fixed(text)) => Source::Fixed(told.unwrap_or_else(|| text.clone())),
            Some(Field::Column(field)) => match self.header.place(&field.column)? {
                Some(at) => Source::Column(at, told),
                None => fixed(told),
            },
            Some(Field::Preamble(field)) => fixed(told.or_else(|| self.after(&field.preamble))),
            Some(Field::PreambleBelow(field)) => fixed(told.or_else(|| self.below(&field.preamble_below))),
        })
    }

    fn after(&self, label: &str) -> Option<String> {
        let label = normalized(label);
        self.preamble.iter().find_map(|line| {
            let at = line.iter().position(|cell| normalized(cell) == label)?;
            line.get(at + 1).filter(|text| !text.is_empty()).cloned()
        })
    }

    fn below(&self, label: &str) -> Option<String> {
        let label = normalized(label);
        self.preamble.windows(2).find_map(|lines| {
            let at = lines[0].iter().position(|cell| normalized(cell) == label)?;
            lines[1].get(at).filter(|text| !text.is_empty()).cloned()
        })
    }
}

const ACCOUNT: Lack = Lack { what: "whose the readings are", remedy: "--account NAME" };
const METER: Lack = Lack { what: "which meter", remedy: "--meter ID" };
const UTILITY: Lack = Lack { what: "which utility", remedy: "--utility electricity (or gas, water, heat)" };
const UNIT: Lack = Lack { what: "which unit", remedy: "--unit kWh (or another)" };
const ZONE: Lack = Lack { what: "which time zone", remedy: "--time-zone Europe/Madrid (or another)" };
const INTERVAL: Lack = Lack { what: "how long an interval is", remedy: "--interval 30m (or another)" };

/// The columns that are meters, and the meters that they are named after: those of this pattern that the mapping does not name
/// for something else.
fn meter_columns(
    pattern: &str,
    mapping: &Mapping,
    header: &Header<'_>,
) -> Result<Vec<(usize, String)>, ImportError> {
    let (before, after) = pattern.split_once(METER_PLACE).unwrap_or((pattern, ""));
    let others: Vec<String> = mapping
        .required()
        .chain(mapping.skip.iter().map(|when| when.column.as_str()))
        .map(normalized)
        .collect();
    let mut found: Vec<(usize, String)> = Vec::new();
    for (at, (name, normalized)) in header.names.iter().zip(header.normalized()).enumerate() {
        let label = name.trim().strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).map(str::trim);
        let Some(label) = label.filter(|label| !label.is_empty() && !others.contains(normalized)) else {
            continue;
        };
        row::meter(label).map_err(|problem| ImportError::Header {
            found: format!("column {} of the header is no meter: its name {problem}", at + 1),
            remedy: "rename it".to_owned(),
        })?;
        if let Some((twin, _)) = found.iter().find(|(_, known)| known == label) {
            return Err(ImportError::Ambiguous {
                found: format!(
                    "columns {} and {} of the header are both of meter `{}`",
                    twin + 1,
                    at + 1,
                    shown(label)
                ),
                remedy: "rename one of them".to_owned(),
            });
        }
        found.push((at, label.to_owned()));
    }
    Ok(found)
}

impl Layout {
    /// Binds a mapping to a header.
    pub(crate) fn bind(
        mapping: &Mapping,
        header: &[String],
        preamble: &[Vec<String>],
        options: &Options,
    ) -> Result<Self, ImportError> {
        let names = Header::new(header);
        let binding = Binding { header: &names, preamble };
        let mut lacks = Vec::new();
        let account =
            binding.source(mapping.account.as_ref(), options.account.as_ref().map(AccountId::as_str))?;
        let meter = binding.source(mapping.meter.as_ref(), options.meter.as_deref())?;
        let told = options.interval_ms.map(|ms| format!("{ms}ms"));
        let interval = binding.source(mapping.interval.as_ref(), told.as_deref())?;
        let in_columns = mapping.has_meter_columns();
        for (source, lack) in [(&account, ACCOUNT), (&meter, METER)] {
            if matches!(source, Source::Nowhere) && !(in_columns && lack == METER) {
                lacks.push(lack);
            }
        }
        let mut meaning =
            |utility: Option<&Field>, unit: Option<&Field>, direction, kind, parameter: Option<u32>| {
                let utility_told = options.utility.as_deref();
                let utility = binding.source(utility.or(mapping.utility.as_ref()), utility_told)?;
                // An option fills what the file or its mapping as a whole leaves open, not what one column is said to be.
                let unit = match unit {
                    Some(unit) => binding.source(Some(unit), None)?,
                    None => binding.source(mapping.unit.as_ref(), options.unit.as_deref())?,
                };
                let measure = match (parameter, &utility, &unit) {
                    (Some(code), ..) => {
                        Some(Measure { target: Target::Value(ParameterCode(code)), factor: Decimal::ONE })
                    }
                    (None, Source::Fixed(utility), Source::Fixed(unit)) => {
                        Some(measure(utility, unit, kind).map_err(|problem| ImportError::Option {
                            what: "the unit",
                            value: unit.clone(),
                            problem,
                        })?)
                    }
                    (None, utility, unit) => {
                        for (source, lack) in [(utility, UTILITY), (unit, UNIT)] {
                            if matches!(source, Source::Nowhere) && !lacks.contains(&lack) {
                                lacks.push(lack);
                            }
                        }
                        None
                    }
                };
                Ok::<_, ImportError>(Meaning { utility, unit, direction, kind, measure })
            };
        let mut values = Vec::new();
        for value in mapping.value.iter().filter(|value| value.column.contains(METER_PLACE)) {
            let meaning = meaning(
                value.utility.as_ref(),
                value.unit.as_ref(),
                value.direction,
                value.kind,
                value.parameter,
            )?;
            let columns = meter_columns(&value.column, mapping, &names)?;
            if columns.is_empty() && !value.optional {
                return Err(ImportError::Header {
                    found: format!("no column of the header is a meter's as `{}` has it", value.column),
                    remedy: "choose another --mapping, or correct it".to_owned(),
                });
            }
            values.extend(columns.into_iter().map(|(at, meter)| Value {
                at,
                meter: Some(meter),
                meaning: meaning.clone(),
                when: None,
            }));
        }
        for value in mapping.value.iter().filter(|value| !value.column.contains(METER_PLACE)) {
            let Some(at) = names.place(&value.column)? else {
                if value.optional {
                    continue;
                }
                return Err(names
                    .must(&value.column)
                    .err()
                    .unwrap_or(ImportError::Broken { found: String::new() }));
            };
            values.push(Value {
                at,
                meter: None,
                meaning: meaning(
                    value.utility.as_ref(),
                    value.unit.as_ref(),
                    value.direction,
                    value.kind,
                    value.parameter,
                )?,
                when: names.must_all(value.when.as_ref())?,
            });
        }
        let mut grids = Vec::new();
        for grid in &mapping.grid {
            let meaning = meaning(
                grid.utility.as_ref(),
                grid.unit.as_ref(),
                grid.direction,
                Kind::Interval,
                grid.parameter,
            )?;
            match Grid::bind(grid, &names, meaning)? {
                Some(bound) => grids.push(bound),
                None if grid.optional => {}
                None => {
                    return Err(ImportError::Header {
                        found: format!("no column of the header is one of the grid `{}`", grid.columns),
                        remedy: "choose another --mapping, or correct it".to_owned(),
                    });
                }
            }
        }
        let times = Self::times(mapping, &names)?;
        let zone = match options.time_zone.as_ref().or(mapping.time_zone.as_ref()) {
            Some(name) => Some((name.clone(), times::time_zone(name)?)),
            None => None,
        };
        let local = match &times {
            Times::One { format: TimeFormat::Pattern(pattern), .. } => {
                !pattern.contains("%z") && !pattern.contains("%:z") && !pattern.contains("%s")
            }
            Times::One { .. } => false,
            _ => true,
        };
        if local && zone.is_none() {
            lacks.push(ZONE);
        }
        let has_end = matches!(&times, Times::One { end: Some(_), .. } | Times::Clock { end: Some(_), .. });
        let starts = mapping.time.is == Edge::Start && !has_end && mapping.grid.is_empty();
        if starts && matches!(interval, Source::Nowhere) {
            lacks.push(INTERVAL);
        }
        if !lacks.is_empty() {
            let shape = if mapping.name() == CANONICAL {
                "the file".to_owned()
            } else {
                format!("a file of the form `{}`", mapping.name())
            };
            return Err(ImportError::Lacks { shape, lacks });
        }
        let length = |what, text: &Option<String>| {
            let wrong =
                |problem| ImportError::Option { what, value: text.clone().unwrap_or_default(), problem };
            text.as_deref().map(parse_length).transpose().map_err(wrong)
        };
        let mut skip = Vec::new();
        for when in &mapping.skip {
            skip.extend(names.place(&when.column)?.map(|at| (at, when.equals.clone())));
        }
        let mut layout = Self {
            shape: mapping.name().to_owned(),
            header: header.to_vec(),
            needed: 0,
            account,
            meter,
            interval,
            usual_ms: length("`usual_interval`", &mapping.usual_interval)?,
            times,
            edge: mapping.time.is,
            end_inclusive_ms: length("`end_inclusive`", &mapping.time.end_inclusive)?.unwrap_or(0),
            zone: Zone { zone, overlap: mapping.overlap, gap: mapping.gap },
            mark: DecimalMark::Point,
            values,
            grids,
            skip,
            newest_first: false,
            account_before: None,
            occurrences: HashMap::new(),
            measures: HashMap::new(),
            skipped: 0,
        };
        layout.needed = layout.used().max().map_or(0, |at| at + 1);
        Ok(layout)
    }

    fn times(mapping: &Mapping, header: &Header<'_>) -> Result<Times, ImportError> {
        let time = &mapping.time;
        let format = |text: &Option<String>| TimeFormat::of(text.as_deref().unwrap_or("rfc3339"));
        let place = |column: &Option<String>| column.as_deref().map(|column| header.must(column)).transpose();
        if let Some(at) = place(&time.column)? {
            return Ok(Times::One { at, format: format(&time.format), end: place(&time.end)? });
        }
        // A mapping has one of the two.
        let date = header.must(time.date.as_deref().unwrap_or_default())?;
        let date_format = format(&time.date_format);
        Ok(match (place(&time.clock)?, place(&time.hour)?) {
            (Some(clock), _) => Times::Clock {
                date,
                date_format,
                clock,
                clock_format: time.clock_format.clone().unwrap_or_else(|| "%H:%M".to_owned()),
                end: place(&time.end_clock)?,
            },
            (None, Some(hour)) => Times::Hour { date, date_format, hour },
            (None, None) => Times::Grid { date, date_format },
        })
    }

    /// The places of the columns that every record must have.
    fn used(&self) -> impl Iterator<Item = usize> {
        let times = match &self.times {
            Times::One { at, end, .. } => [Some(*at), *end, None],
            Times::Clock { date, clock, end, .. } => [Some(*date), Some(*clock), *end],
            Times::Hour { date, hour, .. } => [Some(*date), Some(*hour), None],
            Times::Grid { date, .. } => [Some(*date), None, None],
        };
        let column = |source: &Source| match source {
            Source::Column(at, _) => Some(*at),
            _ => None,
        };
        let meanings = self.values.iter().flat_map(move |v| {
            [Some(v.at), column(&v.meaning.unit), column(&v.meaning.utility), v.when.as_ref().map(|w| w.0)]
        });
        let grids = self.grids.iter().filter(|grid| !grid.optional).map(Grid::last_column);
        times
            .into_iter()
            .chain([column(&self.account), column(&self.meter)])
            .chain(meanings)
            .flatten()
            .chain(grids)
    }

    /// The texts of the values of a record.
    pub(crate) fn value_texts<'r>(&'r self, record: &'r csv::StringRecord) -> impl Iterator<Item = &'r str> {
        let values = self.values.iter().map(|value| value.at);
        let cells = self.grids.iter().flat_map(Grid::columns);
        values.chain(cells).filter_map(|at| record.get(at)).map(str::trim)
    }

    /// The local time of a record, where it has one: to see which end of the file is the newer.
    pub(crate) fn local_time(&self, record: &csv::StringRecord) -> Option<DateTime> {
        match self.placed(record).ok()?.stamp {
            Stamp::Local(local) => Some(local),
            Stamp::Instant(_) => None,
        }
    }

    pub(crate) fn takes_order(&self) -> bool {
        self.zone.overlap == Overlap::Order
    }

    fn field<'r>(&self, record: &'r csv::StringRecord, at: usize) -> &'r str {
        record.get(at).unwrap_or_default().trim()
    }

    fn name(&self, at: usize) -> String {
        normalized(self.header.get(at).map_or("", String::as_str))
    }

    /// Reads a record: its values, or what is wrong with it and with each of them.
    pub(crate) fn read(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        into: &mut Vec<Result<Row, RowError>>,
    ) {
        if record.iter().all(|field| field.trim().is_empty()) {
            return;
        }
        // Files that were put one behind the other repeat the header.
        if record.len() == self.header.len()
            && record.iter().zip(&self.header).all(|(field, name)| field.trim() == name)
        {
            return;
        }
        if let Err(error) = self.read_fields(line, record, into) {
            into.push(Err(error));
        }
    }

    fn read_fields(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        into: &mut Vec<Result<Row, RowError>>,
    ) -> Result<(), RowError> {
        let width = self.header.len();
        let too_many = record.iter().skip(width).any(|field| !field.trim().is_empty());
        if too_many || record.len() < self.needed {
            let found = format!("{} fields, the header has {width}", record.len());
            let hint = if too_many { "; a field that holds the separator needs quotes" } else { "" };
            return Err(RowError::new(line, RowFault::Fields, found + hint));
        }
        if self.skip.iter().any(|(at, kinds)| kinds.has(self.field(record, *at))) {
            self.skipped += 1;
            return Ok(());
        }
        let account = self.account(line, record)?;
        let meter = self.meter.of(record).unwrap_or_default();
        let checked = if self.values.iter().all(|value| value.meter.is_some()) && self.grids.is_empty() {
            // The columns name the meters, and were checked with the header.
            Ok(())
        } else {
            row::meter(meter)
        };
        checked.map_err(|problem| {
            let column = match &self.meter {
                Source::Column(at, _) => self.name(*at),
                _ => "the meter".to_owned(),
            };
            RowError::new(line, RowFault::Meter, format!("{column} {problem}"))
        })?;
        let meter = meter.to_owned();
        let row = |value| Row { account: account.clone(), meter: meter.clone(), value };
        if let Times::Grid { date, date_format } = &self.times {
            let date = times::parse_date(self.field(record, *date), date_format)
                .map_err(|problem| RowError::new(line, RowFault::Time, problem))?;
            for at in 0..self.grids.len() {
                self.read_grid(line, record, at, date, &row, into);
            }
            return Ok(());
        }
        let mut of_kind = false;
        for at in 0..self.values.len() {
            if let Some((column, kinds)) = &self.values[at].when
                && !kinds.has(self.field(record, *column))
            {
                continue;
            }
            of_kind = true;
            let of_column = self.values[at].meter.clone();
            match self.read_value(line, record, at, of_column.as_deref().unwrap_or(&meter)) {
                Ok(Some(value)) => into.push(Ok(match of_column {
                    Some(meter) => Row { account: account.clone(), meter, value },
                    None => row(value),
                })),
                Ok(None) => {}
                Err(error) => into.push(Err(error)),
            }
        }
        if of_kind { Ok(()) } else { Err(self.unknown_kind(line, record)) }
    }

    fn unknown_kind(&self, line: u64, record: &csv::StringRecord) -> RowError {
        let whens: Vec<_> = self.values.iter().filter_map(|value| value.when.as_ref()).collect();
        let column = whens.first().map_or(0, |when| when.0);
        let known: Vec<String> =
            whens.iter().flat_map(|(_, kinds)| kinds.iter().map(|kind| format!("`{kind}`"))).collect();
        let found = format!(
            "{} is `{}`, and the mapping reads {}; name it in a `[[value]]` or a `[[skip]]`",
            self.name(column),
            shown(self.field(record, column)),
            known.join(", ")
        );
        RowError::new(line, RowFault::Kind, found)
    }

    fn account(&mut self, line: u64, record: &csv::StringRecord) -> Result<AccountId, RowError> {
        let name = self.account.of(record).unwrap_or_default();
        match &self.account_before {
            Some(before) if before.as_str() == name => Ok(before.clone()),
            _ => {
                let account = row::check_account(name).map_err(|problem| {
                    RowError::new(line, RowFault::Account, format!("account is wrong: {problem}"))
                })?;
                self.account_before = Some(account.clone());
                Ok(account)
            }
        }
    }

    fn read_value(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        at: usize,
        meter: &str,
    ) -> Result<Option<MeterValue>, RowError> {
        let text = self.field(record, self.values[at].at);
        let optional = self.values.len() > 1 && self.values[at].when.is_none();
        let measure = self.measure(line, record, at)?;
        let (ts, length_ms) = self.time(line, record, at, meter)?;
        let column = self.values[at].at;
        let meaning = &self.values[at].meaning;
        let amount = if text.is_empty() {
            // A column beside others that says nothing in this row.
            if optional && meaning.direction == Direction::Export {
                return Ok(None);
            }
            missing(measure.target)
        } else {
            amount(text, self.mark, measure, meaning.direction).map_err(|problem| {
                RowError::new(line, RowFault::Value, format!("{} {problem}", self.name(column)))
            })?
        };
        Ok(Some(MeterValue { line, ts, amount, length_ms, usual_ms: self.usual_ms }))
    }

    fn measure(&mut self, line: u64, record: &csv::StringRecord, at: usize) -> Result<Measure, RowError> {
        let meaning = &self.values[at].meaning;
        if let Some(measure) = meaning.measure {
            return Ok(measure);
        }
        let utility = meaning.utility.of(record).unwrap_or_default();
        let unit = meaning.unit.of(record).unwrap_or_default();
        let kind = meaning.kind;
        // A file has few units, and a row is read in less time than it takes to find one.
        let known = self.measures.entry((at, utility.to_owned(), unit.to_owned()));
        let measure = known.or_insert_with(|| measure(utility, unit, kind));
        measure.clone().map_err(|problem| RowError::new(line, RowFault::Unit, format!("utility {problem}")))
    }

    fn placed(&self, record: &csv::StringRecord) -> Result<Placed, String> {
        let edge = self.edge;
        let end_of = |start: Stamp, end: Stamp| -> Result<i64, String> {
            let (start, end) = match (start, end) {
                (Stamp::Instant(a), Stamp::Instant(b)) => (a, b),
                (Stamp::Local(_), Stamp::Local(_)) => {
                    // The end may be a local time that occurs twice; its distance from the start tells which.
                    let Stamp::Local(a) = start else { return Err(String::new()) };
                    let Stamp::Local(b) = end else { return Err(String::new()) };
                    let ms = a.duration_until(b).as_millis();
                    (0, i64::try_from(ms).unwrap_or(0))
                }
                _ => {
                    return Err(
                        "the start has an offset and the end has none, or the other way round".to_owned()
                    );
                }
            };
            let length = end - start + self.end_inclusive_ms;
            if length > 0 { Ok(length) } else { Err("the end is not after the start".to_owned()) }
        };
        match &self.times {
            Times::One { at, format, end } => {
                let stamp = times::parse(self.field(record, *at), format)
                    .map_err(|problem| format!("{} is wrong: {problem}", self.name(*at)))?;
                let Some(end) = end else { return Ok(Placed { stamp, edge, length: None }) };
                let ended = times::parse(self.field(record, *end), format)
                    .map_err(|problem| format!("{} is wrong: {problem}", self.name(*end)))?;
                Ok(Placed { stamp, edge: Edge::Start, length: Some(end_of(stamp, ended)?) })
            }
            Times::Clock { date, date_format, clock, clock_format, end } => {
                let date = times::parse_date(self.field(record, *date), date_format)?;
                let at = |column: usize| {
                    let (time, next_day) = times::parse_clock(self.field(record, column), clock_format)?;
                    let date = if next_day { date.tomorrow().map_err(|e| e.to_string())? } else { date };
                    Ok::<_, String>(Stamp::Local(date.to_datetime(time)))
                };
                let stamp = at(*clock)?;
                let Some(end) = end else { return Ok(Placed { stamp, edge, length: None }) };
                Ok(Placed { stamp, edge: Edge::Start, length: Some(end_of(stamp, at(*end)?)?) })
            }
            Times::Hour { date, date_format, hour } => {
                const HOUR_MS: i64 = 3_600_000;
                let date = times::parse_date(self.field(record, *date), date_format)?;
                let text = self.field(record, *hour);
                let (start, length) = self.zone.day(date)?;
                let hours = length / HOUR_MS;
                let hour =
                    text.parse::<i64>().ok().filter(|hour| (1..=hours).contains(hour)).ok_or_else(|| {
                        format!("hour `{}` is not one of the {hours} hours of {date}, from 1", shown(text))
                    })?;
                Ok(Placed {
                    stamp: Stamp::Instant(start + hour * HOUR_MS),
                    edge: Edge::End,
                    length: Some(HOUR_MS),
                })
            }
            Times::Grid { .. } => Err("a grid has no single time".to_owned()),
        }
    }

    /// The end of a row's interval, and the interval's length where the row, an option or the mapping says it.
    fn time(
        &mut self,
        line: u64,
        record: &csv::StringRecord,
        value: usize,
        meter: &str,
    ) -> Result<(Timestamp, Option<i64>), RowError> {
        let wrong = |problem: String| RowError::new(line, RowFault::Time, problem);
        let Placed { stamp, edge, length } = self.placed(record).map_err(wrong)?;
        let told = match self.interval.of(record) {
            Some(text) => Some(parse_length(text).map_err(|problem| wrong(format!("interval {problem}")))?),
            None => None,
        };
        let length = length.or(told);
        let (from, after) = match (stamp, edge, length) {
            (stamp, Edge::Start, Some(length)) => (stamp, length),
            // The interval before the clock goes forward ends at a time that the clock leaves out.
            (Stamp::Local(end), Edge::End, Some(length)) if self.zone.is_left_out(end) => {
                let start = end
                    .checked_sub(jiff::SignedDuration::from_millis(length))
                    .map_err(|e| wrong(e.to_string()))?;
                if self.zone.is_left_out(start) { (stamp, 0) } else { (Stamp::Local(start), length) }
            }
            (stamp, ..) => (stamp, 0),
        };
        let occurrence = self.occurrence(from, value, meter);
        let ms = self
            .zone
            .instant(from, occurrence)
            .map_err(|problem| wrong(format!("ts is wrong: {problem}")))?;
        Ok((Timestamp(ms.saturating_add(after)), length))
    }

    fn occurrence(&mut self, stamp: Stamp, value: usize, meter: &str) -> Option<Occurrence> {
        let Stamp::Local(local) = stamp else { return None };
        if !self.takes_order() || !self.zone.occurs_twice(local) {
            return None;
        }
        let times = self.occurrences.entry((meter.to_owned(), value, local)).or_default();
        *times = times.saturating_add(1);
        match (*times, self.newest_first) {
            (1, false) | (2, true) => Some(Occurrence::First),
            (2, false) | (1, true) => Some(Occurrence::Second),
            _ => None,
        }
    }

    fn read_grid(
        &self,
        line: u64,
        record: &csv::StringRecord,
        at: usize,
        date: Date,
        row: &impl Fn(MeterValue) -> Row,
        into: &mut Vec<Result<Row, RowError>>,
    ) {
        let grid = &self.grids[at];
        let meaning = &grid.meaning;
        if grid.is_empty(record) {
            return;
        }
        let measure = match meaning.measure {
            Some(measure) => Ok(measure),
            None => {
                let utility = meaning.utility.of(record).unwrap_or_default();
                let unit = meaning.unit.of(record).unwrap_or_default();
                measure(utility, unit, meaning.kind)
                    .map_err(|problem| RowError::new(line, RowFault::Unit, format!("utility {problem}")))
            }
        };
        let measure = match measure {
            Ok(measure) => measure,
            Err(error) => return into.push(Err(error)),
        };
        let day = match grid.day(date, &self.zone) {
            Ok(day) => day,
            Err(problem) => return into.push(Err(RowError::new(line, RowFault::Time, problem))),
        };
        for cell in grid.cells() {
            let text = self.field(record, cell.at);
            let ts = match grid.time(&day, cell, &self.zone) {
                Ok(ts) => ts,
                // A cell that the day does not have.
                Err(_) if text.is_empty() => continue,
                Err(problem) => {
                    let found = format!("{}: {problem}", shown(&self.header[cell.at]));
                    into.push(Err(RowError::new(line, RowFault::Time, found)));
                    continue;
                }
            };
            let amount = if text.is_empty() {
                Ok(missing(measure.target))
            } else {
                amount(text, self.mark, measure, meaning.direction)
            };
            into.push(match amount {
                Ok(amount) => {
                    let length_ms = Some(grid.every_ms);
                    Ok(row(MeterValue { line, ts, amount, length_ms, usual_ms: None }))
                }
                Err(problem) => {
                    let found = format!("{} {problem}", shown(&self.header[cell.at]));
                    Err(RowError::new(line, RowFault::Value, found))
                }
            });
        }
    }
}

fn missing(target: Target) -> Amount {
    match target {
        Target::Interval(series) => Amount::Missing(series),
        Target::Value(parameter) => Amount::MissingValue(parameter),
    }
}

/// What a text measures.
pub(crate) fn amount(
    text: &str,
    mark: DecimalMark,
    measure: Measure,
    direction: Direction,
) -> Result<Amount, String> {
    let number = Number::parse(text, mark)?;
    let series = match measure.target {
        Target::Value(parameter) => {
            let sign = if direction == Direction::Export { -1.0 } else { 1.0 };
            return Ok(Amount::Value(parameter, sign * number.times(measure.factor)));
        }
        Target::Interval(series) => series,
    };
    let amount = number
        .amount(measure.factor)
        .ok_or_else(|| format!("`{}` is out of range for an interval", shown(text)))?;
    match direction {
        Direction::Net if amount.is_sign_negative() && series.export().is_none() => {
            Err(format!("`{}` is negative, and of {} nothing is given back", shown(text), series.counter()))
        }
        Direction::Net => Ok(Amount::Net(series, amount)),
        Direction::Import | Direction::Export if amount.is_sign_negative() && !amount.is_zero() => {
            Err(format!("`{}` is negative in a column of its own direction", shown(text)))
        }
        Direction::Import => Ok(Amount::Import(series, amount)),
        Direction::Export if series.export().is_none() => {
            Err(format!("`{}` is given back, and of {} nothing is", shown(text), series.counter()))
        }
        Direction::Export => Ok(Amount::Export(series, amount)),
    }
}

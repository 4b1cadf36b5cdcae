//! From a mapping and the header of a file to the layout of its records.

use std::collections::HashMap;

use galerna_model::{AccountId, ParameterCode};
use rust_decimal::Decimal;

use super::meaning::measure_of;
use super::preamble::Preamble;
use super::{Layout, Meaning, Source, Times, Value, normalized};
use crate::dates;
use crate::error::{ImportError, Lack, shown};
use crate::grid::Grid;
use crate::mapping::{
    CANONICAL, Conditions, Edge, Field, METER as METER_PLACE, Mapping, OneOrMore, ValueKind, ValueMapping,
};
use crate::number::DecimalMark;
use crate::options::Options;
use crate::row;
use crate::times::{self, TimeFormat, Zone, parse_length};
use crate::units::{Measure, Target};

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

    fn must_all(&self, when: Option<&Conditions>) -> Result<Vec<(usize, OneOrMore)>, ImportError> {
        let rows = when.into_iter().flat_map(Conditions::rows);
        rows.map(|when| Ok((self.must(&when.column)?, when.equals.clone()))).collect()
    }
}

/// Looks up what a mapping names, in the header, the lines before it and the options.
struct Binding<'b> {
    header: &'b Header<'b>,
    preamble: Preamble<'b>,
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
            Some(Field::Preamble(label)) => match told {
                Some(told) => Source::Fixed(told),
                None => fixed(self.preamble.text(label)?),
            },
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
        let binding = Binding { header: &names, preamble: Preamble(preamble) };
        let mut lacks = Vec::new();
        let account =
            binding.source(mapping.account.as_ref(), options.account.as_ref().map(AccountId::as_str))?;
        let meter = binding.source(mapping.meter.as_ref(), options.meter.as_deref())?;
        let told = options.interval_ms.map(|ms| format!("{ms}ms"));
        let mut interval = binding.source(mapping.interval.as_ref(), told.as_deref())?;
        if let (Source::Fixed(text), Some(Field::Preamble(_)), None) =
            (&mut interval, &mapping.interval, &told)
        {
            text.push_str(&mapping.interval_suffix);
        }
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
                    (Some(code), ..) => Some(Measure {
                        target: Target::Value(ParameterCode(code)),
                        factor: Decimal::ONE,
                        utility: None,
                    }),
                    (None, Source::Fixed(utility), Source::Fixed(unit)) => {
                        Some(measure_of(utility, unit, kind).map_err(|problem| ImportError::Option {
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
        let chosen: Vec<&ValueMapping> = binding.preamble.chosen(mapping)?;
        for value in chosen.iter().filter(|value| value.column.contains(METER_PLACE)) {
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
                when: Vec::new(),
            }));
        }
        for value in chosen.iter().filter(|value| !value.column.contains(METER_PLACE)) {
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
                ValueKind::Interval,
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
        let times = Self::times(mapping, &names, options)?;
        let zone = match options.time_zone.as_ref().or(mapping.time_zone.as_ref()) {
            Some(name) => Some((name.clone(), times::time_zone(name)?)),
            None => None,
        };
        let local = match &times {
            Times::One { format, .. } => format.is_local(),
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
            text.as_deref().map(parse_length).transpose().map_err(|problem| ImportError::Option {
                what,
                value: text.clone().unwrap_or_default(),
                problem: problem.to_string(),
            })
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
            interval_suffix: mapping.interval_suffix.clone(),
            usual_ms: length("`usual_interval`", &mapping.usual_interval)?,
            times,
            edge: mapping.time.is,
            end_inclusive_ms: length("`end_inclusive`", &mapping.time.end_inclusive)?.unwrap_or(0),
            zone: Zone { zone, overlap: mapping.overlap, gap: mapping.gap },
            mark: DecimalMark::Point,
            values,
            grids,
            skip,
            ends_by_start: false,
            newest_first: false,
            account_before: None,
            occurrences: HashMap::new(),
            measures: HashMap::new(),
            skipped: 0,
        };
        layout.needed = layout.used().max().map_or(0, |at| at + 1);
        Ok(layout)
    }

    fn times(mapping: &Mapping, header: &Header<'_>, options: &Options) -> Result<Times, ImportError> {
        let time = &mapping.time;
        let format = |texts: &Option<OneOrMore>, with_time: bool| {
            let format = match texts {
                Some(texts) => TimeFormat::of_all(texts.iter()),
                None => TimeFormat::Rfc3339,
            };
            dates::told(format, options.date_order, with_time)
        };
        let place = |column: &Option<String>| column.as_deref().map(|column| header.must(column)).transpose();
        if let Some(at) = place(&time.column)? {
            return Ok(Times::One { at, format: format(&time.format, true)?, end: place(&time.end)? });
        }
        // A mapping has one of the two.
        let date = header.must(time.date.as_deref().unwrap_or_default())?;
        let date_format = format(&time.date_format, false)?;
        Ok(match (place(&time.clock)?, place(&time.hour)?) {
            (Some(clock), hour) => Times::Clock {
                date,
                date_format,
                clock,
                clock_formats: match &time.clock_format {
                    Some(formats) => formats.iter().map(str::to_owned).collect(),
                    None => vec!["%H:%M".to_owned()],
                },
                numbered: hour == Some(clock),
                end: match place(&time.end_clock)? {
                    Some(clock) => Some((place(&time.end_date)?, clock)),
                    None => None,
                },
            },
            (None, Some(hour)) => Times::Hour { date, date_format, hour },
            (None, None) => Times::Grid { date, date_format },
        })
    }
}

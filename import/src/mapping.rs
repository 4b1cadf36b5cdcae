//! Mapping files: which column of an export is what.

use std::path::Path;

use serde::Deserialize;

use crate::error::ImportError;
use crate::layout::Header;
use crate::times::{Gap, Overlap};
use crate::units::Kind;

mod fields;

pub(crate) use fields::{ColumnField, Conditions, Field, Label, OneOrMore, When};

/// Which column of an export is what, and what the export leaves unsaid.
///
/// A mapping is a TOML file; those that come with Galerna are named by [`Mapping::names`]. See `docs/import.md` for all
/// fields.
///
/// ```
/// use galerna_import::Mapping;
///
/// let mapping = Mapping::parse("mine", r#"
///     time_zone = "Europe/Lisbon"
///     interval = "15m"
///     utility = "electricity"
///     unit = "kWh"
///     meter = { column = "CPE" }
///     [time]
///     column = "Data"
///     format = "%d/%m/%Y %H:%M"
///     [[value]]
///     column = "Consumo"
/// "#).unwrap();
/// assert_eq!(mapping.name(), "mine");
/// assert!(Mapping::named("octopus").is_some());
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    #[serde(skip)]
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    pub(crate) form: MappedForm,
    /// Where the rows of a JSON document are: names of fields, joined by points.
    pub(crate) rows: Option<String>,
    pub(crate) delimiter: Option<char>,
    pub(crate) decimal: Option<char>,
    pub(crate) encoding: Option<String>,
    pub(crate) time_zone: Option<String>,
    #[serde(default)]
    pub(crate) overlap: Overlap,
    #[serde(default)]
    pub(crate) gap: Gap,
    pub(crate) interval: Option<Field>,
    /// What an interval's text lacks: `m` where it is a number of minutes.
    #[serde(default)]
    pub(crate) interval_suffix: String,
    /// The interval that the form has by its definition, where neither a column nor the times tell.
    pub(crate) usual_interval: Option<String>,
    pub(crate) account: Option<Field>,
    pub(crate) meter: Option<Field>,
    pub(crate) utility: Option<Field>,
    pub(crate) unit: Option<Field>,
    pub(crate) time: TimeMapping,
    #[serde(default)]
    pub(crate) value: Vec<ValueMapping>,
    #[serde(default)]
    pub(crate) grid: Vec<GridMapping>,
    #[serde(default)]
    pub(crate) skip: Vec<When>,
}

/// What the rows are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MappedForm {
    /// Separated values.
    #[default]
    Table,
    /// A JSON object a row.
    Json,
}

/// Which moment of its interval a time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Edge {
    /// The end, at which a counter stands at what was used until then.
    #[default]
    End,
    /// The beginning.
    Start,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeMapping {
    /// Date and time in one.
    pub(crate) column: Option<String>,
    pub(crate) format: Option<OneOrMore>,
    /// The date alone: with `clock`, `hour`, or a grid.
    pub(crate) date: Option<String>,
    pub(crate) date_format: Option<OneOrMore>,
    pub(crate) clock: Option<String>,
    pub(crate) clock_format: Option<OneOrMore>,
    /// The number of the hour in its day, from 1; the hour's end is meant.
    pub(crate) hour: Option<String>,
    #[serde(default)]
    pub(crate) is: Edge,
    /// The interval's end, where `column` is its beginning.
    pub(crate) end: Option<String>,
    /// The end's date, where it is not that of the beginning.
    pub(crate) end_date: Option<String>,
    /// The end's clock time, where `clock` is the beginning.
    pub(crate) end_clock: Option<String>,
    /// What is missing to the end where the last minute is named (`1m` where 00:00 to 00:14 are 15 minutes).
    pub(crate) end_inclusive: Option<String>,
}

/// Whether an amount was used or given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    /// Used; what is negative was given back.
    #[default]
    Net,
    /// Used.
    Import,
    /// Given back.
    Export,
}

/// What a value tells of its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValueKind {
    /// What was used in it.
    #[default]
    Interval,
    /// How a register stood at its end.
    Counter,
    /// The mean rate in it, from which follows what was used.
    Mean,
}

impl ValueKind {
    /// Whether the values are of intervals or of a register.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Counter => Kind::Counter,
            Self::Interval | Self::Mean => Kind::Interval,
        }
    }
}

/// What values of a column or a grid are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValueMapping {
    /// The column's name; with `{meter}` in it every column of such a name that is nothing else, each the meter's that it names.
    pub(crate) column: String,
    pub(crate) utility: Option<Field>,
    pub(crate) unit: Option<Field>,
    #[serde(default)]
    pub(crate) direction: Direction,
    #[serde(default)]
    pub(crate) kind: ValueKind,
    /// A parameter's code: the values are in its unit and are stored as they stand.
    pub(crate) parameter: Option<u32>,
    /// Only in rows, and in files, of this kind.
    pub(crate) when: Option<Conditions>,
    #[serde(default)]
    pub(crate) optional: bool,
}

/// What the local time of a cell is on days of clock changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClockChange {
    /// Not known: the day is refused.
    #[default]
    Refuse,
    /// As much after the day's beginning as the cell's place says: such days have fewer or more cells.
    Elapsed,
    /// What a clock on the wall shows.
    Clock,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GridMapping {
    /// The columns' names, with `{n}` for their number from 1 or `{time}` for a time such as 00:30.
    pub(crate) columns: String,
    /// How long the interval of a cell is.
    pub(crate) every: String,
    /// Which edge of its interval `{time}` is.
    #[serde(default)]
    pub(crate) labels: Edge,
    #[serde(default)]
    pub(crate) clock_change: ClockChange,
    pub(crate) utility: Option<Field>,
    pub(crate) unit: Option<Field>,
    #[serde(default)]
    pub(crate) direction: Direction,
    pub(crate) parameter: Option<u32>,
    #[serde(default)]
    pub(crate) optional: bool,
}

/// Stands for the meter in the name of a column.
pub(crate) const METER: &str = "{meter}";

/// The name of the mapping of Galerna's own columns.
pub(crate) const CANONICAL: &str = "galerna";

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("mappings/", $name, ".toml")))),*]
    };
}

const SHIPPED: &[(&str, &str)] = shipped![
    "galerna",
    "datadis",
    "datadis-csv",
    "e-redes",
    "edistribucion",
    "enedis",
    "enedis-index",
    "esb-hdf",
    "fluvius",
    "green-button-csv",
    "home-assistant",
    "meter-columns",
    "octopus",
    "octopus-api",
    "sdge",
    "shelly-em",
    "tibber",
    "uk-banes",
    "uk-highlands",
    "uk-sheffield",
];

impl Mapping {
    /// The names of the mappings that come with Galerna.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// A mapping that comes with Galerna.
    pub fn named(name: &str) -> Option<Self> {
        let (name, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
        Self::parse(name, text).ok()
    }

    /// The text of a mapping that comes with Galerna, to begin one's own with.
    pub fn text(name: &str) -> Option<&'static str> {
        SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Reads a mapping.
    ///
    /// # Errors
    /// [`ImportError::Option`] says where it is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, ImportError> {
        let wrong =
            |problem: String| ImportError::Option { what: "the mapping", value: name.to_owned(), problem };
        let mut mapping: Self =
            toml::from_str(text).map_err(|e| wrong(e.to_string().trim_end().replace('\n', " ")))?;
        name.clone_into(&mut mapping.name);
        mapping.check().map_err(wrong)?;
        Ok(mapping)
    }

    /// Takes a mapping by its name, or reads the file of that path.
    ///
    /// # Errors
    /// [`ImportError::Option`] when there is neither, or the file is wrong.
    pub fn named_or_file(name: &str) -> Result<Self, ImportError> {
        if let Some(mapping) = Self::named(name) {
            return Ok(mapping);
        }
        let text = std::fs::read_to_string(Path::new(name)).map_err(|cause| ImportError::Option {
            what: "the mapping",
            value: name.to_owned(),
            problem: format!(
                "no file of that name can be read ({cause}); the mappings with a name are {}",
                Self::names().collect::<Vec<_>>().join(", ")
            ),
        })?;
        Self::parse(name, &text)
    }

    /// Its name, or the path that it was read from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn description(&self) -> &str {
        &self.description
    }

    fn check(&self) -> Result<(), String> {
        let time = &self.time;
        if time.column.is_none() && time.date.is_none() {
            return Err("`time` has neither `column` nor `date`; name the column of the time".to_owned());
        }
        if time.column.is_some() && time.date.is_some() {
            return Err("`time` has both `column` and `date`; keep one".to_owned());
        }
        let parts = [&time.clock, &time.hour].into_iter().flatten().count();
        // The same column may have either.
        let parts = if time.clock == time.hour { parts.min(1) } else { parts };
        if time.date.is_some() && self.grid.is_empty() && parts != 1 {
            return Err("`time.date` needs one of `time.clock` and `time.hour`, or a grid".to_owned());
        }
        if time.end_date.is_some() && time.end_clock.is_none() {
            return Err("`time.end_date` goes with `time.end_clock`".to_owned());
        }
        if self.rows.is_some() && self.form != MappedForm::Json {
            return Err("`rows` goes with `form = \"json\"`".to_owned());
        }
        if time.date.is_none() && (parts > 0 || time.end_clock.is_some()) {
            return Err("`time.clock`, `time.hour` and `time.end_clock` go with `time.date`".to_owned());
        }
        if self.value.is_empty() && self.grid.is_empty() {
            return Err(
                "there is no `[[value]]` and no `[[grid]]`; name the columns of the values".to_owned()
            );
        }
        if !self.value.is_empty() && !self.grid.is_empty() {
            return Err("there are both `[[value]]` and `[[grid]]`; keep one".to_owned());
        }
        for value in self.value.iter().filter(|value| value.column.contains(METER)) {
            if value.column.matches(METER).count() > 1 {
                return Err(format!("value `{}` has more than one `{METER}`", value.column));
            }
            if self.meter.is_some() || value.when.is_some() {
                return Err(format!(
                    "value `{}` names meters by their columns: it goes with neither `meter` nor `when`",
                    value.column
                ));
            }
        }
        if self.has_meter_columns() && self.value.iter().any(|value| !value.column.contains(METER)) {
            return Err(format!("where one value has `{METER}`, all have it"));
        }
        for grid in &self.grid {
            if grid.columns.matches("{n}").count() + grid.columns.matches("{time}").count() != 1 {
                return Err(format!("grid `{}` needs one `{{n}}` or `{{time}}`", grid.columns));
            }
            if time.date.is_none() || parts > 0 {
                return Err("a grid goes with `time.date` alone".to_owned());
            }
        }
        Ok(())
    }

    /// Whether each meter has a column of its own, named after it. Such a mapping is taken only where it is named: nearly any header
    /// would be one of it.
    pub(crate) fn has_meter_columns(&self) -> bool {
        self.value.iter().any(|value| value.column.contains(METER))
    }

    /// Whether a header, or the fields of an object, has what is required, and of values that it may lack at least one.
    pub(crate) fn fits_fields(&self, header: &Header<'_>) -> bool {
        let mut values = self.value.iter().filter(|value| !value.column.contains(METER)).peekable();
        self.required().all(|column| header.has(column))
            && (values.peek().is_none() || values.any(|value| header.has(&value.column)))
    }

    /// Columns that a header must have for this mapping to be the one that is meant.
    pub(crate) fn required(&self) -> impl Iterator<Item = &str> {
        let time = &self.time;
        let times =
            [&time.column, &time.date, &time.clock, &time.hour, &time.end, &time.end_date, &time.end_clock];
        let fields = [&self.account, &self.meter, &self.utility, &self.unit, &self.interval];
        let named = fields.into_iter().flatten().filter_map(|field| match field {
            Field::Column(ColumnField { column, optional: false }) => Some(column.as_str()),
            _ => None,
        });
        let values = self.value.iter().filter(|value| !value.optional && !value.column.contains(METER));
        let values = values.flat_map(|value| {
            let conditions = value.when.iter().flat_map(Conditions::rows).map(|when| when.column.as_str());
            std::iter::once(value.column.as_str()).chain(conditions)
        });
        times.into_iter().flatten().map(String::as_str).chain(named).chain(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shipped_mapping_can_be_read_and_says_what_it_is_for() {
        for name in Mapping::names() {
            let mapping = Mapping::parse(name, Mapping::text(name).unwrap()).unwrap();
            assert!(!mapping.description().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_wrong_mapping_says_what_to_write() {
        for (text, part) in [
            ("[time]\ncolumn = 'a'\n", "no `[[value]]`"),
            ("[time]\n[[value]]\ncolumn = 'v'\n", "neither `column` nor `date`"),
            ("[time]\ndate = 'a'\n[[value]]\ncolumn = 'v'\n", "`time.clock`"),
            ("[time]\ndate = 'a'\n[[grid]]\ncolumns = 'kWh'\nevery = '30m'\n", "`{n}`"),
            ("[time]\ncolumn = 'a'\n[[value]]\ncolumn = '{meter} {meter}'\n", "more than one"),
            ("meter = 'm'\n[time]\ncolumn = 'a'\n[[value]]\ncolumn = '{meter}'\n", "neither `meter`"),
            ("[time]\ncolumn = 'a'\n[[value]]\ncolumn = '{meter}'\n[[value]]\ncolumn = 'v'\n", "all have it"),
            ("colour = 1\n[time]\ncolumn = 'a'\n", "colour"),
            ("[time]\ncolumn = 'a'\n[[value]]\ncolumn = 'v'\ndirection = 'up'\n", "up"),
        ] {
            let error = Mapping::parse("m.toml", text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("m.toml"), "{error}");
        }
        let error = Mapping::named_or_file("no-such").unwrap_err().to_string();
        assert!(error.contains("octopus") && error.contains("no-such"), "{error}");
    }
}

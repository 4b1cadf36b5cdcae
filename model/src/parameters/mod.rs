//! What each parameter code means, and which of its values are possible.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::ParameterCode;

/// The platform's 46 codes. The limits are there to catch the impossible (a voltage below zero, a power factor of 5), not
/// the unusual: an alert rule is the place for that. Active power may be negative: a solar inverter draws at night.
const BUILT_IN: &str = include_str!("parameters.csv");

/// Codes below this have a place in a direct table, so that the usual look-up is one index.
const DIRECT: usize = 1024;

/// How the values of a parameter behave in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// Only grows, such as an energy meter's total; a fall is doubtful.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A measured quantity.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its code on the wire.
    pub code: ParameterCode,
    /// Its name, for instance `active_power`.
    pub quantity: String,
    /// Its unit, for instance `W`.
    pub unit: String,
    /// The least possible value.
    pub min: f64,
    /// The greatest possible value.
    pub max: f64,
    /// Counter or gauge.
    pub kind: ParameterKind,
}

/// Why a table of parameters was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The file could not be read.
    #[error("parameter file `{path}` cannot be read: {cause}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file's name ends in neither of the known ways.
    #[error("parameter file `{path}` is neither `.csv` nor `.toml`; rename it to what it holds", path = .0.display())]
    UnknownForm(PathBuf),
    /// The text is not of its form.
    #[error("{at}: {problem}")]
    Malformed {
        /// The file (when there is one) and where in it.
        at: String,
        /// What is wrong and what to write.
        problem: String,
    },
}

/// The parameters by their code.
///
/// Built in are the platform's 46 codes; a file adds to them or replaces single ones:
///
/// ```
/// use galerna_model::{ParameterCode, ParameterKind, ParameterRegistry};
///
/// let mut registry = ParameterRegistry::built_in();
/// assert_eq!(registry.get(ParameterCode(401)).unwrap().unit, "W");
///
/// registry.extend_from_csv("code,quantity,unit,min,max,kind\n950,steam_mass,t,0,,counter\n", "steam.csv").unwrap();
/// assert_eq!(registry.get(ParameterCode(950)).unwrap().kind, ParameterKind::Counter);
///
/// let error = registry.extend_from_csv("code,quantity,unit,min,max,kind\n950,x,t,5,1,gauge\n", "bad.csv").unwrap_err();
/// assert_eq!(error.to_string(), "bad.csv, line 2: min 5 is above max 1; swap them");
/// ```
#[derive(Debug, Clone)]
pub struct ParameterRegistry {
    parameters: Vec<Parameter>,
    /// Index into `parameters` plus one; 0 is none.
    direct: Box<[u16; DIRECT]>,
    others: HashMap<u32, usize>,
}

impl Default for ParameterRegistry {
    fn default() -> Self {
        Self::built_in()
    }
}

impl ParameterRegistry {
    /// No parameter at all: every code is unknown.
    pub fn empty() -> Self {
        Self { parameters: Vec::new(), direct: Box::new([0; DIRECT]), others: HashMap::new() }
    }

    /// The platform's 46 codes.
    pub fn built_in() -> Self {
        let mut registry = Self::empty();
        // The table is part of the program and a test reads it, so that this cannot fail in the field.
        if let Err(error) = registry.extend_from_csv(BUILT_IN, "parameters.csv") {
            tracing::error!(%error, "the built-in parameters cannot be read");
        }
        registry
    }

    /// The parameter of a code.
    #[inline]
    pub fn get(&self, code: ParameterCode) -> Option<&Parameter> {
        match self.direct.get(code.0 as usize) {
            Some(&place) => self.parameters.get((place as usize).wrapping_sub(1)),
            None => self.others.get(&code.0).map(|&i| &self.parameters[i]),
        }
    }

    /// All parameters, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter()
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Adds a parameter, or replaces the one of its code.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] when its limits are no numbers or crossed, or its name is empty.
    pub fn insert(&mut self, parameter: Parameter) -> Result<(), RegistryError> {
        check(&parameter).map_err(|problem| RegistryError::Malformed {
            at: format!("parameter {}", parameter.code),
            problem,
        })?;
        let code = parameter.code.0;
        if let Some(known) = self.parameters.iter_mut().find(|p| p.code == parameter.code) {
            *known = parameter;
            return Ok(());
        }
        let index = self.parameters.len();
        self.parameters.push(parameter);
        match (self.direct.get_mut(code as usize), u16::try_from(index + 1)) {
            (Some(place), Ok(at)) => *place = at,
            _ => drop(self.others.insert(code, index)),
        }
        Ok(())
    }

    /// Adds what a file holds: `.csv` or `.toml`, as its name says.
    ///
    /// # Errors
    /// [`RegistryError`] names the file, the line and the field; nothing is added then.
    pub fn extend_from_file(&mut self, path: &Path) -> Result<(), RegistryError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| RegistryError::Unreadable { path: path.to_owned(), cause })?;
        let origin = path.display().to_string();
        match path.extension().and_then(|e| e.to_str()) {
            Some("csv") => self.extend_from_csv(&text, &origin),
            Some("toml") => self.extend_from_toml(&text, &origin),
            _ => Err(RegistryError::UnknownForm(path.to_owned())),
        }
    }

    /// Adds rows of CSV with the columns `code,quantity,unit,min,max,kind`; an empty `min` or `max` is no limit. `origin`
    /// is the file's name for error messages.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] names the line and the field; nothing is added then.
    pub fn extend_from_csv(&mut self, text: &str, origin: &str) -> Result<(), RegistryError> {
        let mut rows = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let mut read = Vec::new();
        for row in rows.deserialize::<Row>() {
            let row = row.map_err(|error| csv_problem(&error, origin))?;
            // The header is line 1.
            read.push((format!("{origin}, line {}", read.len() + 2), row));
        }
        self.take(read)
    }

    /// Adds the tables of a TOML text, each `[[parameter]]` with `code`, `quantity`, `unit`, `kind` and optionally `min` and
    /// `max`. `origin` is the file's name for error messages.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] says where and what; nothing is added then.
    pub fn extend_from_toml(&mut self, text: &str, origin: &str) -> Result<(), RegistryError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            parameter: Vec<Row>,
        }
        let file: File = toml::from_str(text).map_err(|error| RegistryError::Malformed {
            at: origin.to_owned(),
            problem: error.to_string().trim_end().replace('\n', " "),
        })?;
        let rows = file.parameter.into_iter();
        self.take(rows.map(|row| (format!("{origin}, parameter {}", row.code), row)).collect())
    }

    fn take(&mut self, rows: Vec<(String, Row)>) -> Result<(), RegistryError> {
        let mut seen = HashMap::new();
        let mut parameters = Vec::with_capacity(rows.len());
        for (at, row) in rows {
            if let Some(before) = seen.insert(row.code, at.clone()) {
                let problem = format!("code {} is there already ({before}); keep one", row.code);
                return Err(RegistryError::Malformed { at, problem });
            }
            let kind = match row.kind.as_str() {
                "counter" => ParameterKind::Counter,
                "gauge" => ParameterKind::Gauge,
                other => {
                    let problem = format!("kind is `{other}`; write counter or gauge");
                    return Err(RegistryError::Malformed { at, problem });
                }
            };
            let parameter = Parameter {
                code: ParameterCode(row.code),
                quantity: row.quantity,
                unit: row.unit,
                min: row.min.unwrap_or(f64::NEG_INFINITY),
                max: row.max.unwrap_or(f64::INFINITY),
                kind,
            };
            check(&parameter).map_err(|problem| RegistryError::Malformed { at, problem })?;
            parameters.push(parameter);
        }
        parameters.into_iter().try_for_each(|parameter| self.insert(parameter))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    code: u32,
    quantity: String,
    #[serde(default)]
    unit: String,
    min: Option<f64>,
    max: Option<f64>,
    kind: String,
}

fn check(p: &Parameter) -> Result<(), String> {
    if p.quantity.is_empty() {
        return Err("quantity is empty; give it a name".to_owned());
    }
    if p.min.is_nan() || p.max.is_nan() {
        return Err("min or max is NaN; write a number, or nothing for no limit".to_owned());
    }
    if p.min > p.max {
        return Err(format!("min {} is above max {}; swap them", p.min, p.max));
    }
    Ok(())
}

fn csv_problem(error: &csv::Error, origin: &str) -> RegistryError {
    let line = error.position().map_or(1, csv::Position::line);
    let problem = match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => match err.field() {
            Some(field) => {
                const COLUMNS: [&str; 6] = ["code", "quantity", "unit", "min", "max", "kind"];
                let column = COLUMNS.get(field as usize).copied().unwrap_or("?");
                format!("column {} (`{column}`): {}", field + 1, err.kind())
            }
            None => format!("{}; the columns are code,quantity,unit,min,max,kind", err.kind()),
        },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} columns where the header has {expected_len}")
        }
        other => format!("{other:?}"),
    };
    RegistryError::Malformed { at: format!("{origin}, line {line}"), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_46_codes_are_built_in() {
        let registry = ParameterRegistry::built_in();
        assert_eq!(registry.len(), 46);
        let power = registry.get(ParameterCode(401)).unwrap();
        assert_eq!(
            (power.quantity.as_str(), power.unit.as_str(), power.kind),
            ("active_power", "W", ParameterKind::Gauge)
        );
        assert!(power.min < -6.35, "a solar inverter draws power at night");
        assert_eq!(registry.get(ParameterCode(402)).unwrap().kind, ParameterKind::Counter);
        assert_eq!(registry.get(ParameterCode(503)).unwrap().max, f64::INFINITY);
        for unknown in [0, 1, 400, 999, 1023, 1024, u32::MAX] {
            assert!(registry.get(ParameterCode(unknown)).is_none(), "{unknown}");
        }
    }

    #[test]
    fn a_users_table_adds_and_replaces() {
        let mut registry = ParameterRegistry::built_in();
        registry
            .extend_from_csv(
                "code,quantity,unit,min,max,kind\n401,power,kW,0,10,gauge\n70000,steam,t,,,counter\n",
                "u.csv",
            )
            .unwrap();
        registry
            .extend_from_toml("[[parameter]]\ncode = 2000\nquantity = \"salt\"\nunit = \"g/l\"\nkind = \"gauge\"\nmin = 0\n", "u.toml")
            .unwrap();
        assert_eq!(registry.len(), 48);
        assert_eq!(registry.get(ParameterCode(401)).unwrap().max, 10.0);
        assert_eq!(registry.get(ParameterCode(70_000)).unwrap().quantity, "steam");
        assert_eq!(registry.get(ParameterCode(2000)).unwrap().min, 0.0);
    }

    #[test]
    fn a_wrong_table_says_where_and_what_and_adds_nothing() {
        let header = "code,quantity,unit,min,max,kind\n";
        let csv = [
            ("x,a,b,,,gauge\n", "t.csv, line 2: column 1 (`code`)"),
            ("1,a,b,,,meter\n", "line 2: kind is `meter`; write counter or gauge"),
            ("1,a,b,,,gauge\n2,a,b,low,,gauge\n", "line 3: column 4 (`min`)"),
            ("1,a,b,,\n", "line 2: 5 columns where the header has 6"),
            ("1,,b,,,gauge\n", "line 2: quantity is empty"),
            ("1,a,b,NaN,,gauge\n", "line 2: min or max is NaN"),
            ("1,a,b,2,1,gauge\n", "line 2: min 2 is above max 1"),
            ("1,a,b,,,gauge\n1,c,d,,,gauge\n", "line 3: code 1 is there already (t.csv, line 2)"),
        ];
        for (rows, expected) in csv {
            let mut registry = ParameterRegistry::empty();
            let error =
                registry.extend_from_csv(&format!("{header}{rows}"), "t.csv").unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
            assert!(registry.is_empty(), "{rows}");
        }
        let toml = [
            ("parameter = 7", "t.toml"),
            (
                "[[parameter]]\ncode = 1\nquantity = \"a\"\nkind = \"gauge\"\ncolour = 1\n",
                "unknown field `colour`",
            ),
            (
                "[[parameter]]\ncode = 1\nquantity = \"\"\nkind = \"gauge\"\n",
                "parameter 1: quantity is empty",
            ),
        ];
        for (text, expected) in toml {
            let error = ParameterRegistry::empty().extend_from_toml(text, "t.toml").unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        let missing = ParameterRegistry::empty().extend_from_file(Path::new("/nowhere/p.csv")).unwrap_err();
        assert!(missing.to_string().starts_with("parameter file `/nowhere/p.csv` cannot be read"));
    }
}

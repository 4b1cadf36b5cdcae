//! The fields of a form.

use serde_json::{Map, Value};

use super::problem::Problem;

/// Fields in the order in which the form has them. A name that ends in `[]` is a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads `application/x-www-form-urlencoded`.
    pub(super) fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// These fields.
    pub(super) fn of(fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a list has this value.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && v == value)
    }

    /// The fields by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The text of a field, empty when it is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(n, _)| n == name).map_or("", |(_, value)| value.as_str())
    }

    /// The text of a field without white space around it, if there is any.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name).trim()).filter(|text| !text.is_empty())
    }

    /// Every value of a list.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a box was checked.
    pub(super) fn is_on(&self, name: &str) -> bool {
        !matches!(self.text(name), "" | "off" | "false" | "no")
    }

    /// A number that must be there.
    pub(super) fn number(&self, name: &str) -> Result<f64, Problem> {
        self.maybe_number(name)?.ok_or_else(|| Problem::Invalid(format!("`{name}` is empty; write a number")))
    }

    /// A number that may be missing.
    pub(super) fn maybe_number(&self, name: &str) -> Result<Option<f64>, Problem> {
        self.given(name)
            .map(|text| {
                text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| {
                    Problem::Invalid(format!(
                        "`{name}` is `{}`; write a number",
                        text.chars().take(40).collect::<String>()
                    ))
                })
            })
            .transpose()
    }

    /// A length of time as people write it (`3h`, `1h 30m`; a number alone is seconds) in milliseconds; 0 when the field is empty.
    pub(super) fn millis(&self, name: &str) -> Result<u64, Problem> {
        self.given(name).map_or(Ok(0), |text| length(name, text))
    }

    /// The fields as the body of a JSON call would have them, empty ones left out.
    pub(super) fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (name, value) in &self.0 {
            if let Some(list) = name.strip_suffix("[]") {
                let entry = object.entry(list).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(values) = entry {
                    values.push(Value::String(value.clone()));
                }
            } else if !matches!(name.as_str(), "csrf" | "back" | "next" | "confirmed" | "ask")
                && !value.trim().is_empty()
            {
                let value = match value.as_str() {
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    text => Value::String(text.trim().to_owned()),
                };
                object.insert(name.clone(), value);
            }
        }
        Value::Object(object)
    }
}

/// The longest length of time that a form takes.
const LONGEST_MS: f64 = 1e12;

/// A length of time as people write it, in milliseconds; a number alone is seconds.
pub(super) fn length(name: &str, text: &str) -> Result<u64, Problem> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        Problem::Invalid(format!(
            "`{name}` is `{shown}`; write a length of time such as 90s, 15m, 3h, 1h 30m or 2d"
        ))
    };
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<f64>() {
        return whole_millis(seconds * 1e3).ok_or_else(wrong);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1.0,
            "s" | "sec" | "second" | "seconds" => 1e3,
            "m" | "min" | "minute" | "minutes" => 60e3,
            "h" | "hour" | "hours" => 3_600e3,
            "d" | "day" | "days" => 86_400e3,
            "w" | "week" | "weeks" => 7.0 * 86_400e3,
            _ => return Err(wrong()),
        };
        total += number * unit_ms;
        rest = rest[letters..].trim_start();
    }
    whole_millis(total).ok_or_else(wrong)
}

fn whole_millis(ms: f64) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range is checked
    (0.0..=LONGEST_MS).contains(&ms).then(|| ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, ms) in [
            ("3h", 10_800_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("1.5 h", 5_400_000),
            ("90s", 90_000),
            ("250ms", 250),
            ("2 days", 172_800_000),
            ("1w", 604_800_000),
            ("1.5", 1_500),
            ("60", 60_000),
            ("0", 0),
        ] {
            assert_eq!(length("for_s", text).unwrap(), ms, "{text}");
            assert_eq!(length("for_s", &super::super::format::written(ms)).unwrap(), ms, "{text}");
        }
        for text in ["-5", "soon", "3x", "h", "1h 5", "NaN", "1e99", "3 fortnights", "é"] {
            let problem = length("for_s", text).unwrap_err().to_string();
            assert!(problem.contains("for_s") && problem.contains("3h"), "{problem}");
        }
    }
}

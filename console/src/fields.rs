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

    /// Seconds (possibly with a fraction) as milliseconds; 0 when the field is empty.
    pub(super) fn millis(&self, name: &str) -> Result<u64, Problem> {
        let seconds = self.maybe_number(name)?.unwrap_or(0.0);
        if (0.0..=1e9).contains(&seconds) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range was checked
            Ok((seconds * 1e3).round() as u64)
        } else {
            Err(Problem::Invalid(format!("`{name}` is {seconds}; write seconds, from 0 on")))
        }
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

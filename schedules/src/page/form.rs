//! The form of a schedule: its fields, and the definition that they say.

use std::str::FromStr;
use std::time::Duration;

use galerna_model::Timestamp;
use serde_json::Value;

use crate::duration_text;
use crate::{
    BadSchedule, CronTiming, Definition, DstGap, DstOverlap, Interval, Missed, Overlap, Policy, Retry,
    ScheduleView, Timing,
};

/// The fields of a form, as they were sent or are to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Fields {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(fields: T) -> Self {
        Self(fields.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl Fields {
    /// Reads `application/x-www-form-urlencoded`, as bodies and queries have it.
    pub fn parse(text: &[u8]) -> Self {
        form_urlencoded::parse(text).into_owned().collect()
    }

    /// The text of a field without white space around it, empty when it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(n, _)| n == name).map_or("", |(_, value)| value.trim())
    }

    /// The text of a field, if there is any.
    pub fn given(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Those of a form for a new schedule.
    pub(crate) fn of_new() -> Self {
        let cron = Definition::cron("0 6 * * *", "UTC");
        Self::of_definition(&cron)
    }

    /// Those of a schedule.
    pub fn of(view: &ScheduleView) -> Self {
        let mut fields = Self::of_definition(&view.definition);
        fields.put("id", view.id.to_string());
        fields.put("revision", view.revision.to_string());
        fields
    }

    /// The same with another value of a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.put(name, value);
        self
    }

    fn put(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    fn of_definition(definition: &Definition) -> Self {
        let mut fields = Self::default();
        match &definition.timing {
            Timing::Cron(cron) => {
                fields.put("kind", "cron");
                fields.put("expression", &cron.expression);
                fields.put("timezone", &cron.timezone);
                fields.put("dst_gap", cron.dst_gap.name());
                fields.put("dst_overlap", cron.dst_overlap.name());
            }
            Timing::Every(every) => {
                fields.put("kind", "every");
                fields.put("interval", duration_text::format(every.interval));
                fields.put(
                    "anchor",
                    if every.anchor == Timestamp(0) { String::new() } else { every.anchor.to_string() },
                );
            }
            Timing::At(time) => {
                fields.put("kind", "at");
                fields.put("at", time.to_string());
            }
        }
        let Policy { overlap, missed, catchup_window, jitter, pause_on_failure, retry } = &definition.policy;
        fields.put("overlap", overlap.name());
        fields.put("missed", missed.name());
        fields.put("catchup_window", duration_text::format(*catchup_window));
        fields.put("jitter", duration_text::format(*jitter));
        fields.put("pause_on_failure", if *pause_on_failure { "true" } else { "" });
        fields.put("attempts", retry.attempts.to_string());
        fields.put("first", duration_text::format(retry.first));
        fields.put("longest", duration_text::format(retry.longest));
        let time = |time: Option<Timestamp>| time.map_or_else(String::new, |time| time.to_string());
        fields.put("start_at", time(definition.start_at));
        fields.put("end_at", time(definition.end_at));
        fields.put("remaining", definition.remaining.map_or_else(String::new, |left| left.to_string()));
        fields.put("exclude", definition.exclude.join(" "));
        let payload = match &definition.payload {
            Value::Null => String::new(),
            payload => format!("{payload:#}"),
        };
        fields.put("payload", payload);
        fields
    }

    /// The definition that they say; what is empty is as it is by default.
    ///
    /// # Errors
    /// [`BadSchedule`] names the first field that is wrong.
    pub fn definition(&self) -> Result<Definition, BadSchedule> {
        let timing = match self.text("kind") {
            "" | "cron" => Timing::Cron(CronTiming {
                expression: self.text("expression").to_owned(),
                timezone: self.given("timezone").unwrap_or("UTC").to_owned(),
                dst_gap: self.choice::<DstGap>("dst_gap")?,
                dst_overlap: self.choice::<DstOverlap>("dst_overlap")?,
            }),
            "every" => Timing::Every(Interval {
                interval: self.duration("every.interval", "interval", None)?,
                anchor: self.time("every.anchor", "anchor")?.unwrap_or_default(),
            }),
            "at" => {
                let needed = || BadSchedule::new("at", "a time is needed, such as 2026-05-01T12:00:00+02:00");
                Timing::At(self.time("at", "at")?.ok_or_else(needed)?)
            }
            other => {
                return Err(BadSchedule::new("kind", format!("`{other}` is none of cron, every, at")));
            }
        };
        let (policy, retry) = (Policy::default(), Retry::default());
        let policy = Policy {
            overlap: self.choice::<Overlap>("overlap")?,
            missed: self.choice::<Missed>("missed")?,
            catchup_window: self.duration("catchup_window", "catchup_window", Some(policy.catchup_window))?,
            jitter: self.duration("jitter", "jitter", Some(policy.jitter))?,
            pause_on_failure: self.given("pause_on_failure").is_some(),
            retry: Retry {
                attempts: self.number("retry.attempts", "attempts")?.unwrap_or(retry.attempts),
                first: self.duration("retry.first", "first", Some(retry.first))?,
                longest: self.duration("retry.longest", "longest", Some(retry.longest))?,
            },
        };
        let payload = match self.given("payload") {
            None => Value::Null,
            Some(text) => serde_json::from_str(text).map_err(|error| {
                BadSchedule::new("payload", format!("it is no JSON: {error}; texts stand in quotes"))
            })?,
        };
        let dates = self.text("exclude").split(|c: char| c.is_whitespace() || c == ',');
        Ok(Definition {
            timing,
            policy,
            payload,
            start_at: self.time("start_at", "start_at")?,
            end_at: self.time("end_at", "end_at")?,
            remaining: self.number("remaining", "remaining")?,
            exclude: dates.filter(|date| !date.is_empty()).map(str::to_owned).collect(),
        })
    }

    fn choice<T: Default + FromStr<Err = BadSchedule>>(&self, name: &str) -> Result<T, BadSchedule> {
        self.given(name).map_or_else(|| Ok(T::default()), str::parse)
    }

    fn duration(
        &self,
        field: &'static str,
        name: &str,
        default: Option<Duration>,
    ) -> Result<Duration, BadSchedule> {
        match (self.given(name), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(BadSchedule::new(field, "a time is needed, such as 90s, 15m or 1h 30m")),
            (Some(text), _) => duration_text::parse(text).map_err(|reason| BadSchedule::new(field, reason)),
        }
    }

    pub(crate) fn time(&self, field: &'static str, name: &str) -> Result<Option<Timestamp>, BadSchedule> {
        let time = self.given(name).map(Timestamp::parse).transpose();
        time.map_err(|e| BadSchedule::new(field, e.to_string()))
    }

    fn number<T: FromStr>(&self, field: &'static str, name: &str) -> Result<Option<T>, BadSchedule> {
        let number = self.given(name).map(str::parse).transpose();
        number.map_err(|_| BadSchedule::new(field, format!("`{}` is no whole number", self.text(name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_shows_a_definition_and_says_the_same_again() {
        for definition in [
            Definition::cron("30 2 * * MON-FRI", "Europe/Berlin")
                .payload(serde_json::json!({"queue": "a", "body": [1]})),
            Definition::every(Duration::from_secs(90)),
            Definition::at(Timestamp(1_767_225_600_000)),
            Definition {
                start_at: Some(Timestamp(0)),
                end_at: Some(Timestamp(1_767_225_600_000)),
                remaining: Some(3),
                exclude: vec!["2026-12-25".to_owned(), "2026-12-26".to_owned()],
                policy: Policy { overlap: Overlap::CancelOther, pause_on_failure: true, ..Policy::default() },
                ..Definition::cron("* * * * *", "UTC")
            },
        ] {
            assert_eq!(Fields::of_definition(&definition).definition(), Ok(definition));
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let bad = |name: &str, value: &str| {
            let fields: Fields =
                [("kind", "cron"), ("expression", "* * * * *"), (name, value)].into_iter().collect();
            fields.definition().unwrap_err().field
        };
        for (name, value, field) in [
            ("kind", "sometimes", "kind"),
            ("overlap", "maybe", "overlap"),
            ("jitter", "long", "jitter"),
            ("attempts", "-1", "retry.attempts"),
            ("remaining", "many", "remaining"),
            ("start_at", "2026-01-01T00:00:00", "start_at"),
            ("payload", "{", "payload"),
            ("dst_gap", "jump", "cron.dst_gap"),
        ] {
            assert_eq!(bad(name, value), field);
        }
    }
}

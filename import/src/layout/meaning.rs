//! What values in a unit are.

use galerna_model::ParameterCode;

use crate::error::shown;
use crate::mapping::ValueKind;
use crate::units::{Measure, Series, Target, measure};

/// What a utility's value in a unit is, of this kind; the error says what there is.
pub(super) fn measure_of(utility: &str, unit: &str, kind: ValueKind) -> Result<Measure, String> {
    if is_a_date(unit) {
        return Err(format!(
            "`{}` is a date where the unit should be: a field before it is missing or one too many; correct it, or say --unit",
            shown(unit)
        ));
    }
    let measured = measure(utility, plain_unit(unit), kind.kind())?;
    if kind != ValueKind::Mean {
        return Ok(measured);
    }
    let rate = match measured.target {
        Target::Value(parameter) => of_rate(parameter),
        Target::Interval(_) => None,
    };
    let (series, per_hour) = rate
        .ok_or_else(|| format!("`{}` is no rate such as kW, of which a mean could be told", shown(unit)))?;
    let factor = measured.factor.checked_div(per_hour).unwrap_or(measured.factor);
    Ok(Measure { target: Target::Interval(series), factor, ..measured })
}

/// The series whose mean rate a parameter is, and the rate of one of its unit an hour.
fn of_rate(parameter: ParameterCode) -> Option<(Series, rust_decimal::Decimal)> {
    [Series::ActiveEnergy, Series::ReactiveEnergy, Series::WaterVolume, Series::HeatEnergy]
        .into_iter()
        .find_map(|series| {
            series.rate().filter(|(code, _)| *code == parameter).map(|(_, factor)| (series, factor))
        })
}

/// The ways in which cubic metres are written.
fn plain_unit(unit: &str) -> &str {
    match unit {
        "M3" | "M³" | "M^3" | "㎥" | "m 3" | "cbm" => "m3",
        other => other,
    }
}

/// Whether a text has numbers with `/`, `-` or `.` between them, which a date has and no unit.
fn is_a_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['/', '-', '.']).collect();
    let number = |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_digit());
    parts.len() >= 3 && parts[..3].iter().all(|part| number(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_rate_is_of_the_series_that_it_is_a_rate_of() {
        for (utility, unit, series, factor) in [
            ("electricity", "W", Series::ActiveEnergy, "0.001"),
            ("electricity", "kW", Series::ActiveEnergy, "1"),
            ("heat", "kW", Series::HeatEnergy, "1"),
            ("water", "l/s", Series::WaterVolume, "3.6"),
        ] {
            let found = measure_of(utility, unit, ValueKind::Mean).unwrap();
            assert_eq!(
                found,
                Measure { target: Target::Interval(series), factor: factor.parse().unwrap(), ..found }
            );
        }
        assert!(measure_of("electricity", "kWh", ValueKind::Mean).unwrap_err().contains("no rate"));
    }

    #[test]
    fn cubic_metres_are_one_unit_and_a_date_is_none() {
        for unit in ["m3", "M3", "m³", "M³", "㎥", "m^3"] {
            let found = measure_of("water", unit, ValueKind::Interval).unwrap();
            assert_eq!(found.target, Target::Interval(Series::WaterVolume), "{unit}");
        }
        for unit in ["31/12/2025", "2026-01-01 to 2026-12-31", "01.02.2026"] {
            let error = measure_of("electricity", unit, ValueKind::Interval).unwrap_err();
            assert!(error.contains("is a date") && error.contains("--unit"), "{error}");
        }
    }
}

//! Which parameter a utility's value in a unit is.

use galerna_model::ParameterCode;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::shown;

/// Utilities that have the same parameters, so that one meter id may stand for two meters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Utility {
    /// Electricity that was used.
    Electricity,
    /// Electricity that the sun made.
    Solar,
}

impl Utility {
    /// Its name, as files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Electricity => "electricity",
            Self::Solar => "solar",
        }
    }
}

/// What is counted over intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Series {
    /// Electric energy, in kWh: 402, exported 452, mean power 401 in W.
    ActiveEnergy,
    /// Inductive reactive energy, in kvarh: 404, exported 454, mean power 403 in var.
    ReactiveEnergy,
    /// Gas, in kWh: 420.
    GasEnergy,
    /// Gas, in m³: 419.
    GasVolume,
    /// Water, in m³: 901, mean flow 902 in m³/h.
    WaterVolume,
    /// Heat, in kWh: 802, mean power 801 in kW.
    HeatEnergy,
    /// Hot water, in m³: 803.
    HotWaterVolume,
    /// Fuel, in kWh: 433.
    FuelEnergy,
    /// Fuel, in m³: 432.
    FuelVolume,
}

impl Series {
    /// The counter of what was used.
    pub fn counter(self) -> ParameterCode {
        ParameterCode(match self {
            Self::ActiveEnergy => 402,
            Self::ReactiveEnergy => 404,
            Self::GasEnergy => 420,
            Self::GasVolume => 419,
            Self::WaterVolume => 901,
            Self::HeatEnergy => 802,
            Self::HotWaterVolume => 803,
            Self::FuelEnergy => 433,
            Self::FuelVolume => 432,
        })
    }

    /// The series whose counter of what was used this is.
    pub fn of_counter(parameter: ParameterCode) -> Option<Self> {
        [
            Self::ActiveEnergy,
            Self::ReactiveEnergy,
            Self::GasEnergy,
            Self::GasVolume,
            Self::WaterVolume,
            Self::HeatEnergy,
            Self::HotWaterVolume,
            Self::FuelEnergy,
            Self::FuelVolume,
        ]
        .into_iter()
        .find(|series| series.counter() == parameter)
    }

    /// The counter of what was exported, where there is one.
    pub fn export(self) -> Option<ParameterCode> {
        match self {
            Self::ActiveEnergy => Some(ParameterCode(452)),
            Self::ReactiveEnergy => Some(ParameterCode(454)),
            _ => None,
        }
    }

    /// The parameter of the mean rate, where there is one, and its factor from the counter's unit an hour.
    pub fn rate(self) -> Option<(ParameterCode, Decimal)> {
        match self {
            Self::ActiveEnergy => Some((ParameterCode(401), Decimal::ONE_THOUSAND)),
            Self::ReactiveEnergy => Some((ParameterCode(403), Decimal::ONE_THOUSAND)),
            Self::WaterVolume => Some((ParameterCode(902), Decimal::ONE)),
            Self::HeatEnergy => Some((ParameterCode(801), Decimal::ONE)),
            _ => None,
        }
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The amount of an interval.
    Interval(Series),
    /// A value of this parameter, as it stands.
    Value(ParameterCode),
}

/// What a value is, and the factor that brings it into its parameter's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) target: Target,
    pub(crate) factor: Decimal,
    /// Of which utility it is, where others have its parameters too.
    pub(crate) utility: Option<Utility>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    /// In kWh.
    Energy,
    /// In W.
    Power,
    /// In kvarh.
    ReactiveEnergy,
    /// In m³.
    Volume,
    /// In m³/h.
    Flow,
}

/// Units, and what multiplies them into the quantity's own.
const UNITS: [(&str, Quantity, i64, u32); 29] = [
    ("kWh", Quantity::Energy, 1, 0),
    ("Wh", Quantity::Energy, 1, 3),
    ("MWh", Quantity::Energy, 1_000, 0),
    ("GWh", Quantity::Energy, 1_000_000, 0),
    ("W", Quantity::Power, 1, 0),
    ("kW", Quantity::Power, 1_000, 0),
    ("MW", Quantity::Power, 1_000_000, 0),
    ("kvarh", Quantity::ReactiveEnergy, 1, 0),
    ("varh", Quantity::ReactiveEnergy, 1, 3),
    ("Mvarh", Quantity::ReactiveEnergy, 1_000, 0),
    ("m3", Quantity::Volume, 1, 0),
    ("m³", Quantity::Volume, 1, 0),
    ("m^3", Quantity::Volume, 1, 0),
    ("l", Quantity::Volume, 1, 3),
    ("litre", Quantity::Volume, 1, 3),
    ("litres", Quantity::Volume, 1, 3),
    ("liter", Quantity::Volume, 1, 3),
    ("liters", Quantity::Volume, 1, 3),
    ("ml", Quantity::Volume, 1, 6),
    ("ft3", Quantity::Volume, 28_316_846_592, 12),
    ("m3/h", Quantity::Flow, 1, 0),
    ("m³/h", Quantity::Flow, 1, 0),
    ("l/h", Quantity::Flow, 1, 3),
    ("l/min", Quantity::Flow, 60, 3),
    ("l/s", Quantity::Flow, 36, 1),
    ("ml/s", Quantity::Flow, 36, 4),
    ("ml/min", Quantity::Flow, 60, 6),
    ("ft³", Quantity::Volume, 28_316_846_592, 12),
    ("lpm", Quantity::Flow, 60, 3),
];

/// Finds a unit. The case of its letters counts only where it tells milli from mega.
fn unit(text: &str) -> Option<(Quantity, Decimal)> {
    let same_case =
        |name: &str| !text.starts_with(['m', 'M']) || name.as_bytes().first() == text.as_bytes().first();
    let found = UNITS
        .iter()
        .find(|(name, ..)| *name == text)
        .or_else(|| UNITS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text) && same_case(name)));
    found.map(|(_, quantity, factor, decimals)| (*quantity, Decimal::new(*factor, *decimals)))
}

/// Whether values are of intervals, or of a register that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// What was used since the row before.
    #[default]
    Interval,
    /// What was used in all.
    Counter,
}

/// What a utility's value in a unit is; the error says what there is.
pub(crate) fn measure(utility: &str, unit_text: &str, kind: Kind) -> Result<Measure, String> {
    let none = || {
        format!(
            "`{}` in `{}` has no mapping; there is electricity in kWh, kvarh or W, gas in kWh or m3, water in m3, l or ml/s, heat in kWh, fuel in kWh or m3, solar in W or kWh",
            shown(utility),
            shown(unit_text)
        )
    };
    let (quantity, factor) = unit(unit_text).ok_or_else(none)?;
    let name = utility.to_lowercase();
    let utility = match name.as_str() {
        "electricity" | "electric" => Some(Utility::Electricity),
        "solar" => Some(Utility::Solar),
        _ => None,
    };
    let (series, gauge) = match (name.as_str(), quantity) {
        ("electricity" | "electric" | "solar", Quantity::Energy) => (Series::ActiveEnergy, None),
        ("electricity" | "electric" | "solar", Quantity::Power) => {
            (Series::ActiveEnergy, Some((401, factor)))
        }
        ("electricity" | "electric", Quantity::ReactiveEnergy) => (Series::ReactiveEnergy, None),
        ("gas", Quantity::Energy) => (Series::GasEnergy, None),
        ("gas", Quantity::Volume) => (Series::GasVolume, None),
        ("water", Quantity::Volume) => (Series::WaterVolume, None),
        ("water", Quantity::Flow) => (Series::WaterVolume, Some((902, factor))),
        ("heat" | "heating", Quantity::Energy) => (Series::HeatEnergy, None),
        // 801 is in kW.
        ("heat" | "heating", Quantity::Power) => {
            (Series::HeatEnergy, Some((801, factor * Decimal::new(1, 3))))
        }
        ("hot water" | "hot_water", Quantity::Volume) => (Series::HotWaterVolume, None),
        ("fuel" | "oil", Quantity::Energy) => (Series::FuelEnergy, None),
        ("fuel" | "oil", Quantity::Volume) => (Series::FuelVolume, None),
        _ => return Err(none()),
    };
    Ok(match (gauge, kind) {
        (Some((code, factor)), _) => Measure { target: Target::Value(ParameterCode(code)), factor, utility },
        (None, Kind::Interval) => Measure { target: Target::Interval(series), factor, utility },
        (None, Kind::Counter) => Measure { target: Target::Value(series.counter()), factor, utility },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_utility_in_a_unit_is_a_parameter() {
        let interval = |series, factor: &str| (Target::Interval(series), factor.parse::<Decimal>().unwrap());
        let value =
            |code, factor: &str| (Target::Value(ParameterCode(code)), factor.parse::<Decimal>().unwrap());
        for (utility, unit, expected) in [
            ("electricity", "kWh", interval(Series::ActiveEnergy, "1")),
            ("Electricity", "KWH", interval(Series::ActiveEnergy, "1")),
            ("electricity", "Wh", interval(Series::ActiveEnergy, "0.001")),
            ("electricity", "MWh", interval(Series::ActiveEnergy, "1000")),
            ("electricity", "kVArh", interval(Series::ReactiveEnergy, "1")),
            ("electricity", "kW", value(401, "1000")),
            ("solar", "W", value(401, "1")),
            ("gas", "kWh", interval(Series::GasEnergy, "1")),
            ("gas", "m3", interval(Series::GasVolume, "1")),
            ("water", "ml/s", value(902, "0.0036")),
            ("water", "l", interval(Series::WaterVolume, "0.001")),
            ("heat", "kW", value(801, "1")),
        ] {
            let measure = measure(utility, unit, Kind::Interval).unwrap();
            assert_eq!((measure.target, measure.factor), expected, "{utility} {unit}");
        }
        assert_eq!(
            measure("electricity", "Wh", Kind::Counter).unwrap().target,
            Target::Value(ParameterCode(402))
        );
        for (utility, unit) in
            [("steam", "kWh"), ("electricity", "mWh"), ("gas", "ml/s"), ("electricity", "")]
        {
            let error = measure(utility, unit, Kind::Interval).unwrap_err();
            assert!(error.starts_with(&format!("`{utility}` in `{unit}` has no mapping")), "{error}");
        }
    }
}

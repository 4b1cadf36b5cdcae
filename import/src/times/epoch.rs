//! Times that are numbers.

use galerna_model::Timestamp;
use rust_decimal::Decimal;

use super::{Stamp, is_instant};
use crate::error::shown;

/// A number, whole or not: programs write times as `1793491200`, `1793491200.0` and `1.7934912E9`.
pub(super) fn number(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    text.parse().ok().filter(|number: &f64| digits && number.is_finite())
}

/// Units of time since 1970, how a mapping calls them, and how many of them are a second.
const EPOCHS: [(&str, Option<&str>, f64); 4] = [
    ("seconds", Some("epoch_seconds"), 1.0),
    ("milliseconds", Some("epoch_ms"), 1e3),
    ("microseconds", None, 1e6),
    ("nanoseconds", None, 1e9),
];

/// The unit of which a number is a time from 2001 to 2286.
fn epoch_unit(number: f64) -> Option<(&'static str, Option<&'static str>, Timestamp)> {
    let (unit, format, of_second) =
        EPOCHS.into_iter().find(|(_, _, unit)| (1e9 * unit..1e10 * unit).contains(&number))?;
    // Within a range that 64 bits hold.
    #[expect(clippy::cast_possible_truncation, reason = "at most 10^13")]
    let ms = (number / of_second * 1e3) as i64;
    Some((unit, format, Timestamp(ms)))
}

/// What a number may mean as a time, and what to do.
pub(super) fn meant_by(number: f64) -> Option<String> {
    if let Some((unit, format, at)) = epoch_unit(number) {
        let remedy = match format {
            Some(format) => format!("say so with `format = \"{format}\"` in the mapping, or write RFC 3339"),
            None => {
                "write RFC 3339, or seconds or milliseconds with their `format` in the mapping".to_owned()
            }
        };
        return Some(format!("{at} as {unit} since 1970; {remedy}"));
    }
    // Days since the end of 1899: 1954 to 2064.
    if (20_000.0..60_000.0).contains(&number) {
        return Some(
            "perhaps a date as spreadsheets count days; have its column formatted as yyyy-mm-dd hh:mm, and export the file again"
                .to_owned(),
        );
    }
    None
}

pub(super) fn epoch(text: &str, factor: i64) -> Result<Stamp, String> {
    let unit = if factor == 1 { "milliseconds" } else { "seconds" };
    let not = || format!("time `{}` is not a number of {unit} since 1970", shown(text));
    let value = number(text).ok_or_else(not)?;
    // What is meant is a time of these centuries.
    if let Some((other, format, at)) = epoch_unit(value)
        && other != unit
    {
        let remedy = match format {
            Some(format) => format!("`format = \"{format}\"` reads those"),
            None => format!("write {unit}"),
        };
        return Err(format!(
            "time `{}` is too far away for {unit} since 1970: it is {at} as {other} since 1970; {remedy}",
            shown(text)
        ));
    }
    let exact: Decimal = text.parse().or_else(|_| Decimal::from_scientific(text)).map_err(|_| not())?;
    let ms = exact.checked_mul(factor.into()).and_then(|ms| i64::try_from(ms.round()).ok());
    ms.filter(|ms| is_instant(*ms))
        .map(Stamp::Instant)
        .ok_or_else(|| format!("time `{}` is too far away for {unit} since 1970", shown(text)))
}

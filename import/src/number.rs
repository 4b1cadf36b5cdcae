//! Numbers as tables write them.

use rust_decimal::Decimal;

use crate::error::{ImportError, shown};

/// What stands before the decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecimalMark {
    Point,
    Comma,
}

impl DecimalMark {
    pub(crate) fn of(mark: char) -> Option<Self> {
        match mark {
            '.' => Some(Self::Point),
            ',' => Some(Self::Comma),
            _ => None,
        }
    }

    fn char(self) -> char {
        match self {
            Self::Point => '.',
            Self::Comma => ',',
        }
    }

    fn grouping(self) -> char {
        match self {
            Self::Point => ',',
            Self::Comma => '.',
        }
    }
}

/// A number, exact to its last digit where 28 digits hold it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number {
    decimal: Option<Decimal>,
    float: f64,
}

impl Number {
    /// Reads a number; the error says what is wrong with the text.
    pub(crate) fn parse(text: &str, mark: DecimalMark) -> Result<Self, String> {
        let plain = plain(text, mark)?;
        let not = || format!("`{}` is not a finite number", shown(text));
        // `inf`, `nan` and the like are numbers to the parser.
        if !plain.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
            return Err(not());
        }
        let float = plain.parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(not)?;
        let decimal = Decimal::from_scientific(&plain).or_else(|_| plain.parse()).ok();
        Ok(Self { decimal, float })
    }

    /// Multiplied, as a value.
    pub(crate) fn times(self, factor: Decimal) -> f64 {
        if factor == Decimal::ONE {
            return self.float;
        }
        match self.decimal.and_then(|d| d.checked_mul(factor)) {
            // A product that is too small for 28 decimals keeps its digits as a float.
            Some(product) if !product.is_zero() || self.float == 0.0 => float(product),
            _ => self.float * float(factor),
        }
    }

    /// Multiplied, as an amount that sums are made of: `None` when it has more digits than can be summed exactly.
    pub(crate) fn amount(self, factor: Decimal) -> Option<Decimal> {
        const MOST: Decimal = Decimal::from_parts(0x107a_4000, 0x5af3, 0, false, 0);
        let amount = self.decimal?.checked_mul(factor)?.round_dp(AMOUNT_DECIMALS).normalize();
        (amount.abs() < MOST).then_some(amount)
    }
}

/// Decimals of an amount: sums of them up to 10^13 are exact.
const AMOUNT_DECIMALS: u32 = 15;

/// The float nearest to a decimal.
pub(crate) fn float(decimal: Decimal) -> f64 {
    // A decimal's text is always a number.
    decimal.to_string().parse().unwrap_or(f64::NAN)
}

/// The float nearest to a decimal cut to 15 significant digits: what a float holds, so that the noise of binary fractions
/// in a file (0.7929999999999999) does not travel.
pub(crate) fn float_15(decimal: Decimal) -> f64 {
    float(decimal.round_sf(15).unwrap_or(decimal))
}

/// What groups thousands and is no decimal mark: spaces of several kinds, and the apostrophe.
fn is_gap(c: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{2009}' | '\u{202f}' | '\'' | '’')
}

/// The text without gaps between its thousands, where all groups have three digits and the gaps are of one kind.
fn without_gaps(text: &str) -> Option<String> {
    let kind = text.chars().find(|c| is_gap(*c))?;
    let sign = text.find(|c: char| !matches!(c, '+' | '-'))?;
    let end = text.find(['.', ',', 'e', 'E']).unwrap_or(text.len());
    (sign < end && is_grouped(&text[sign..end], kind)).then(|| text.replace(kind, ""))
}

/// The text with a decimal point and without grouping.
fn plain(text: &str, mark: DecimalMark) -> Result<String, String> {
    if text.contains(is_gap) {
        let plain = without_gaps(text).filter(|plain| !plain.contains(is_gap));
        // What is grouped by gaps has no other grouping.
        let plain = plain.filter(|plain| !plain.contains(mark.grouping()));
        let plain = plain.ok_or_else(|| {
            format!("`{}` is not a number whose thousands are grouped by threes", shown(text))
        })?;
        return Ok(plain.replacen(mark.char(), ".", 1));
    }
    let (decimal, grouping) = (mark.char(), mark.grouping());
    if !text.contains(grouping) && mark == DecimalMark::Point {
        return Ok(text.to_owned());
    }
    if text.contains(grouping) {
        let (whole, rest) = match text.split_once(decimal) {
            Some((whole, rest)) => (whole, Some(rest)),
            None => (text, None),
        };
        let grouped = is_grouped(whole.trim_start_matches(['+', '-']), grouping);
        return match rest {
            Some(rest) if grouped => Ok(format!("{}.{rest}", whole.replace(grouping, ""))),
            None if grouped && whole.matches(grouping).count() > 1 => Ok(whole.replace(grouping, "")),
            None if grouped => Err(format!(
                "`{}` may be {} or {}: the file's decimals follow a `{decimal}`; write it without grouping",
                shown(text),
                whole.replace(grouping, ""),
                whole.replace(grouping, "."),
            )),
            _ => Err(format!("`{}` is not a number whose decimals follow a `{decimal}`", shown(text))),
        };
    }
    Ok(text.replacen(decimal, ".", 1))
}

/// Whether digits are grouped by threes.
fn is_grouped(whole: &str, grouping: char) -> bool {
    let mut groups = whole.split(grouping);
    let first = groups.next().unwrap_or_default();
    let digits = |g: &str| g.bytes().all(|b| b.is_ascii_digit());
    (1..=3).contains(&first.len())
        && digits(first)
        && !first.starts_with('0')
        && groups.all(|g| g.len() == 3 && digits(g))
}

/// What the numbers of a file say of its decimal mark.
#[derive(Debug, Default)]
pub(crate) struct MarkEvidence {
    comma: Option<(u64, String)>,
    point: Option<(u64, String)>,
    doubtful: Option<(u64, String)>,
}

impl MarkEvidence {
    /// Looks at the text of a value.
    pub(crate) fn look(&mut self, line: u64, text: &str) {
        let grouped = without_gaps(text);
        let body = grouped.as_deref().unwrap_or(text).trim_start_matches(['+', '-']);
        let number = body.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b',' | b'e' | b'E' | b'+' | b'-'));
        if !number || body.is_empty() {
            return;
        }
        let place = match (body.rfind('.'), body.rfind(',')) {
            (None, None) => return,
            (Some(point), Some(comma)) if comma > point => &mut self.comma,
            (Some(_), Some(_)) => &mut self.point,
            // Read so wherever nothing says otherwise.
            (Some(_), None) if grouped.is_none() && is_grouped(body, '.') => return,
            (Some(_), None) => &mut self.point,
            // Grouped already.
            (None, Some(_)) if grouped.is_some() => &mut self.comma,
            (None, Some(_)) if is_grouped(body, ',') && body.matches(',').count() > 1 => &mut self.point,
            (None, Some(_)) if is_grouped(body, ',') => &mut self.doubtful,
            (None, Some(_)) if body.matches(',').count() == 1 => &mut self.comma,
            (None, Some(_)) => return,
        };
        if place.is_none() {
            *place = Some((line, text.to_owned()));
        }
    }

    /// The mark, when it can be told for certain.
    pub(crate) fn mark(self) -> Result<DecimalMark, ImportError> {
        let remedy = || "say --decimal , or --decimal .".to_owned();
        match (self.comma, self.point, self.doubtful) {
            (Some((comma_line, comma)), Some((point_line, point)), _) => Err(ImportError::Ambiguous {
                found: format!(
                    "decimals follow a comma on line {comma_line} (`{}`) and a point on line {point_line} (`{}`)",
                    shown(&comma),
                    shown(&point)
                ),
                remedy: remedy(),
            }),
            (Some(_), None, _) => Ok(DecimalMark::Comma),
            (None, None, Some((line, text))) => Err(ImportError::Ambiguous {
                found: format!(
                    "`{}` on line {line} may be {} (decimal comma) or {} (grouped), and no other value tells",
                    shown(&text),
                    text.replace(',', "."),
                    text.replace(',', "")
                ),
                remedy: remedy(),
            }),
            (None, ..) => Ok(DecimalMark::Point),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        use DecimalMark::{Comma, Point};
        for (text, mark, value) in [
            ("1", Point, 1.0),
            ("-0.221", Point, -0.221),
            ("+1.5", Point, 1.5),
            (".5", Point, 0.5),
            ("5.", Point, 5.0),
            ("1.5E+00", Point, 1.5),
            ("1e-7", Point, 1e-7),
            ("176100000000042", Point, 176_100_000_000_042.0),
            ("745.3960000000003", Point, 745.396_000_000_000_3),
            ("0,123", Comma, 0.123),
            ("1,5E2", Comma, 150.0),
            ("1.234,5", Comma, 1234.5),
            ("1,234.5", Point, 1234.5),
            ("1,234,567", Point, 1_234_567.0),
            ("1 234", Point, 1234.0),
            ("1 234,5", Comma, 1234.5),
            ("-1\u{a0}234\u{a0}567,25", Comma, -1_234_567.25),
            ("1\u{202f}234,5", Comma, 1234.5),
            ("1'234.5", Point, 1234.5),
            ("12’345", Point, 12_345.0),
        ] {
            let number = Number::parse(text, mark).unwrap();
            assert_eq!(number.float, value, "{text}");
            assert_eq!(number.decimal.map(float), Some(value), "{text}");
        }
        for (text, mark) in [
            ("NaN", Point),
            ("inf", Point),
            ("1e999", Point),
            ("", Point),
            ("1_000", Point),
            ("0x10", Point),
            ("1,5", Point),
            ("1,234", Point),
            ("1.234", Comma),
            ("1.5", Comma),
            ("1 23", Point),
            ("1 234'567", Point),
            ("1 234,567.8", Point),
            ("1234 567", Point),
            ("0 123", Point),
            ("1 234.567", Comma),
            ("1,2,3", Comma),
            ("--1", Point),
            ("1e", Point),
            ("٣", Point),
        ] {
            assert!(Number::parse(text, mark).is_err(), "{text}");
        }
    }

    #[test]
    fn the_decimal_mark_is_told_or_the_doubt_is() {
        let mark = |texts: &[&str]| {
            let mut evidence = MarkEvidence::default();
            texts.iter().zip(2..).for_each(|(text, line)| evidence.look(line, text));
            evidence.mark()
        };
        for (texts, expected) in [
            (&["1", "2"][..], DecimalMark::Point),
            (&["1.5", "1.234"], DecimalMark::Point),
            (&["1.234"], DecimalMark::Point),
            (&["1,0", "1,234"], DecimalMark::Comma),
            (&["0,123"], DecimalMark::Comma),
            (&["-1234,567"], DecimalMark::Comma),
            (&["1.234,567"], DecimalMark::Comma),
            (&["1,234.5", "2,000"], DecimalMark::Point),
            (&["1 234,567"], DecimalMark::Comma),
            (&["1'234.5"], DecimalMark::Point),
        ] {
            assert_eq!(mark(texts), Ok(expected), "{texts:?}");
        }
        let doubt = mark(&["1", "1,234"]).unwrap_err().to_string();
        assert!(doubt.contains("`1,234` on line 3 may be 1.234") && doubt.contains("--decimal"), "{doubt}");
        let mixed = mark(&["1,5", "2.5"]).unwrap_err().to_string();
        assert!(mixed.contains("line 2 (`1,5`)") && mixed.contains("line 3 (`2.5`)"), "{mixed}");
    }

    #[test]
    fn water_keeps_its_digits_and_amounts_their_sums() {
        let flow = Number::parse("0.0007781194872222841", DecimalMark::Point).unwrap();
        assert_eq!(flow.times(Decimal::new(36, 4)), 2.801_230_154_000_222_8e-6);
        let noise = Number::parse("0.7929999999999999", DecimalMark::Point).unwrap();
        assert_eq!(float_15(noise.amount(Decimal::ONE).unwrap()), 0.793);
        let sum: Decimal = (0..10)
            .map(|_| Number::parse("0.1", DecimalMark::Point).unwrap().amount(Decimal::ONE).unwrap())
            .sum();
        assert_eq!(float_15(sum), 1.0);
    }
}

//! Numbers and lengths of time as people read them.

/// A whole number with thin spaces between the thousands.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A rate a second: three digits that matter.
pub fn rate(per_second: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // a rate is no negative and far below 2^53
    let whole = |n: f64| count(n.round().max(0.0) as u64);
    match per_second {
        r if r <= 0.0 => "0".to_owned(),
        r if r < 0.1 => "<0.1".to_owned(),
        r if r < 10.0 => format!("{r:.1}"),
        r => whole(r),
    }
}

/// A latency in milliseconds.
pub fn millis(ms: f64) -> String {
    match ms {
        m if m <= 0.0 => "0".to_owned(),
        m if m < 0.001 => format!("{:.0} ns", m * 1e6),
        m if m < 1.0 => format!("{:.0} µs", m * 1e3),
        m if m < 10.0 => format!("{m:.1} ms"),
        m if m < 1_000.0 => format!("{m:.0} ms"),
        m if m < 60_000.0 => format!("{:.1} s", m / 1e3),
        m => span_f(m),
    }
}

fn span_f(ms: f64) -> String {
    #[allow(clippy::cast_possible_truncation)] // a length of time
    span(ms as i64)
}

/// A length of time in its two largest units.
pub fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match () {
        () if ms.max(0) < 1_000 => format!("{} ms", ms.max(0)),
        () if seconds < 60 => format!("{seconds} s"),
        () if seconds < 3_600 => format!("{minutes} min {} s", seconds % 60),
        () if days == 0 => format!("{hours} h {minutes} min"),
        () if days < 30 => format!("{days} d {hours} h"),
        () => format!("{days} d"),
    }
}

/// A length of time as people write it, and as forms take it: `3h`, `1h 30m`, `90s` as `1m 30s`.
pub fn written(ms: u64) -> String {
    let parts = [
        ("d", ms / 86_400_000),
        ("h", ms / 3_600_000 % 24),
        ("m", ms / 60_000 % 60),
        ("s", ms / 1_000 % 60),
        ("ms", ms % 1_000),
    ];
    let written: Vec<String> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(unit, n)| format!("{n}{unit}")).collect();
    if written.is_empty() { "0s".to_owned() } else { written.join(" ") }
}

/// A value of a chart or a reading, short.
pub fn value(v: f64) -> String {
    let size = v.abs();
    match size {
        s if s >= 1e9 => format!("{} G", trim(v / 1e9)),
        s if s >= 1e6 => format!("{} M", trim(v / 1e6)),
        s if s >= 1e4 => format!("{} k", trim(v / 1e3)),
        _ => trim(v),
    }
}

/// A number as it was sent: as few digits as bring back the same number.
pub fn exact(v: f64) -> String {
    match v.abs() {
        size if size == 0.0 || (1e-6..1e15).contains(&size) => v.to_string(),
        _ => format!("{v:e}"),
    }
}

fn trim(v: f64) -> String {
    let text = if v.abs() >= 100.0 { format!("{v:.0}") } else { format!("{v:.2}") };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// One of two words, by number.
pub fn plural<'a>(n: u64, one: &'a str, many: &'a str) -> &'a str {
    if n == 1 { one } else { many }
}

/// Bytes in the unit that fits.
pub fn bytes(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.0} MB", n / 1e6),
        n => format!("{:.0} kB", n / 1e3),
    }
}

/// The beginning of a text.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_where_it_matters() {
        for (n, shown) in
            [(0, "0"), (999, "999"), (1_000, "1\u{202f}000"), (12_345_678, "12\u{202f}345\u{202f}678")]
        {
            assert_eq!(count(n), shown);
        }
        for (r, shown) in
            [(-1.0, "0"), (0.04, "<0.1"), (3.24, "3.2"), (99.6, "100"), (12_345.6, "12\u{202f}346")]
        {
            assert_eq!(rate(r), shown);
        }
        for (ms, shown) in [
            (0.0, "0"),
            (0.0005, "500 ns"),
            (0.25, "250 µs"),
            (2.5, "2.5 ms"),
            (2_500.0, "2.5 s"),
            (90_000.0, "1 min 30 s"),
        ] {
            assert_eq!(millis(ms), shown);
        }
        for (v, shown) in
            [(0.0, "0"), (4900.5, "4900"), (0.82, "0.82"), (12_345.0, "12.35 k"), (-5e6, "-5 M")]
        {
            assert_eq!(value(v), shown);
        }
    }

    #[test]
    fn an_exact_number_brings_back_the_same_number() {
        for (v, shown) in [
            (4900.0, "4900"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-0.0, "-0"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(exact(v), shown);
            assert_eq!(shown.parse::<f64>().map(f64::to_bits), Ok(v.to_bits()));
        }
    }
}

//! Numbers, times and lengths of time as people read them.

pub(super) use galerna_html::format::*;
use galerna_model::Timestamp;

/// How long ago (or ahead) a time is, in one unit.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let ms = now.millis_since(at);
    let seconds = ms.abs() / 1_000;
    let span = match seconds {
        0 => return "now".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    if ms >= 0 { format!("{span} ago") } else { format!("in {span}") }
}

/// A time to the second, as `2017-01-01 00:00:00`.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.to_string();
    match text.get(..19) {
        Some(begin) if text.contains('T') => begin.replace('T', " "),
        _ => text,
    }
}

/// Hour and minute.
pub(super) fn clock(at: Timestamp) -> String {
    at.to_string().get(11..16).unwrap_or_default().to_owned()
}

/// Month and day.
pub(super) fn day(at: Timestamp) -> String {
    at.to_string().get(5..10).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = Timestamp(1_483_228_800_000);
        for (ms, shown) in [
            (0, "now"),
            (5_000, "5 s ago"),
            (3_600_000, "1 h ago"),
            (-120_000, "in 2 min"),
            (864_000_000, "10 d ago"),
        ] {
            assert_eq!(ago(now.plus_millis(-ms), now), shown);
        }
        assert_eq!(time(now), "2017-01-01 00:00:00");
        assert_eq!(clock(now), "00:00");
        assert_eq!(span(90_061_000), "1 d 1 h");
    }
}

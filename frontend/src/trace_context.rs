//! `traceparent` of callers (W3C Trace Context): their trace goes on in the ids of calls and messages, so that every process that a
//! message passes exports its spans to it without asking anybody.

use galerna_model::Timestamp;

/// The trace that a caller's call belongs to, and the caller's span: 32 and 16 hexadecimal digits.
fn parse(traceparent: &str) -> Option<(&str, &str)> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let is_zero = |text: &str| text.bytes().all(|b| b == b'0');
    // Later versions may have more behind; `ff` is none.
    let is_version = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let is_whole = is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    (is_version && is_whole && !is_zero(trace) && !is_zero(span)).then_some((trace, span))
}

/// A new id of a call, met once: 28 hexadecimal digits, 12 of milliseconds by which they sort and 16 of chance; or those of the caller's trace and span, and 12 more, when it sends a `traceparent`
/// that can be read. One that cannot is taken for none, as the specification asks.
pub(crate) fn new_id(now: Timestamp, traceparent: Option<&str>) -> String {
    match traceparent.and_then(parse) {
        Some((trace, span)) => format!("{trace}{span}{:012x}", fastrand::u64(..) >> 16),
        None => format!("{:012x}{:016x}", now.as_millis().max(0) & 0xffff_ffff_ffff, fastrand::u64(..)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_callers_trace_goes_on_in_the_ids_of_its_calls() {
        let header = format!("00-{TRACE}-{SPAN}-01");
        let ids = [(); 2].map(|()| new_id(Timestamp(0), Some(&header)));
        assert_ne!(ids[0], ids[1]);
        for id in ids {
            assert!(id.starts_with(&format!("{TRACE}{SPAN}")) && id.len() == 60, "{id}");
        }
        assert!(parse(&format!("01-{TRACE}-{SPAN}-01-later")).is_some());
    }

    #[test]
    fn what_is_no_traceparent_is_taken_for_none() {
        let zeros = "0".repeat(32);
        for wrong in [
            "",
            "00",
            &format!("00-{TRACE}-{SPAN}"),
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{zeros}-{SPAN}-01"),
            &format!("00-{TRACE}-{}-01", &zeros[..16]),
            &format!("00-{}-{SPAN}-01", &TRACE[1..]),
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
            assert_eq!(new_id(Timestamp(0), Some(wrong)).len(), 28);
        }
    }
}

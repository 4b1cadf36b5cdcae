//! The body of the oldest concentrators: a form whose field `data` holds
//!
//! ```json
//! {"gatewayId": "c1", "service": [{"nodeNetworkId": "1", "serviceNetworkId": 401, "value": 1001.23, "seqNum": 1,
//!  "timeStamp": "2014-04-16T10:00:00.000 UTC"}]}
//! ```
//!
//! Each service is one value. All values of one node at one time become one reading, whose `sqn` is the highest of theirs: as
//! readings of their own the later would replace the earlier, since a reading is known by source, device and time.
//! Accepted and rejected count services.

use std::borrow::Cow;
use std::collections::HashMap;

use galerna_model::envelope::{check, isolate_bad_values};
use galerna_model::{DecodeLimits, Measurement, ParameterCode, Reading, TimeError, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::Rejected;
use crate::call_error::CallError;
use crate::options::Limits;
use crate::parse::{Parsed, list_of_raw, malformed, too_long};

/// A body read.
#[derive(Debug)]
pub(crate) struct LegacyForm {
    /// The source that it names.
    pub(crate) gateway: Option<String>,
    pub(crate) parsed: Parsed,
}

#[derive(Deserialize)]
struct Post<'a> {
    #[serde(rename = "gatewayId")]
    gateway: Option<Value>,
    #[serde(borrow)]
    service: Option<&'a RawValue>,
}

/// Reads a form. That nothing of it can be taken is no error here: who sent it is to be known first.
pub(crate) fn services(body: &[u8], limits: &Limits) -> Result<LegacyForm, CallError> {
    if body.trim_ascii().is_empty() {
        return Err(CallError::Empty);
    }
    let data: Cow<'_, str> = form_urlencoded::parse(body)
        .find_map(|(field, value)| (field == "data").then_some(value))
        .ok_or_else(|| CallError::Malformed("the form has no field `data`".to_owned()))?;
    if data.trim().is_empty() {
        return Err(CallError::Empty);
    }
    let isolated;
    let post: Post<'_> = match serde_json::from_str(&data) {
        Ok(post) => post,
        Err(error) => {
            isolated = isolate_bad_values(data.as_bytes());
            serde_json::from_slice(&isolated).map_err(|_| malformed(&error))?
        }
    };
    let gateway = match post.gateway {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id),
        Some(Value::Number(id)) => Some(id.to_string()),
        Some(_) => return Err(CallError::Malformed("`gatewayId` is not text".to_owned())),
    };
    let list = post.service.ok_or_else(|| CallError::Malformed("`service` is missing".to_owned()))?;
    let list = list_of_raw(list.get().as_bytes(), limits)?;
    let mut parsed = Parsed::default();
    let mut places: HashMap<(String, Timestamp), Group> = HashMap::new();
    for (index, raw) in list.iter().enumerate() {
        match service(raw.get(), limits).and_then(|s| group(s, &mut places, &mut parsed.readings)) {
            Ok(()) => parsed.entries += 1,
            Err(reason) => parsed.rejected.push(Rejected { index, reason }),
        }
    }
    Ok(LegacyForm { gateway, parsed })
}

/// A reading under way: its place, and where each parameter stands in it with which number.
struct Group {
    place: usize,
    parameters: HashMap<ParameterCode, (usize, u64)>,
}

/// Adds a value to the reading of its node and time.
fn group(
    service: Service,
    places: &mut HashMap<(String, Timestamp), Group>,
    readings: &mut Vec<Reading>,
) -> Result<(), String> {
    let Service { did, ts, sqn, measured } = service;
    let group = places.entry((did.clone(), ts)).or_insert_with(|| {
        readings.push(Reading { did, values: Vec::new(), sqn, ts });
        Group { place: readings.len() - 1, parameters: HashMap::new() }
    });
    let reading = &mut readings[group.place];
    match group.parameters.get_mut(&measured.p) {
        // The same value again: of two, the one with the higher number counts.
        Some((at, number)) if sqn >= *number => {
            reading.values[*at] = measured;
            *number = sqn;
        }
        Some(_) => {}
        None => {
            let most = DecodeLimits::default().values;
            if reading.values.len() == most {
                return Err(format!("node has more than {most} values at one time"));
            }
            group.parameters.insert(measured.p, (reading.values.len(), sqn));
            reading.values.push(measured);
        }
    }
    reading.sqn = reading.sqn.max(sqn);
    Ok(())
}

struct Service {
    did: String,
    ts: Timestamp,
    sqn: u64,
    measured: Measurement,
}

fn service(text: &str, limits: &Limits) -> Result<Service, String> {
    too_long(text, limits)?;
    let value: Value = serde_json::from_str(text).map_err(|e| format!("service cannot be read: {e}"))?;
    let Value::Object(fields) = value else { return Err("service is not an object".to_owned()) };
    let field = |name: &str| fields.get(name).ok_or_else(|| format!("{name} is missing"));
    let did = match field("nodeNetworkId")? {
        Value::String(id) => id.clone(),
        Value::Number(id) if !id.is_f64() => id.to_string(),
        _ => return Err("nodeNetworkId is neither text nor a whole number".to_owned()),
    };
    let p = match field("serviceNetworkId")? {
        Value::String(code) => code.parse().ok(),
        code => code.as_u64().and_then(|code| u32::try_from(code).ok()),
    };
    let p = p.ok_or("serviceNetworkId is not a parameter code")?;
    let v = field("value")?.as_f64().ok_or("value is not a number")?;
    let sqn = field("seqNum")?.as_u64().ok_or("seqNum is not a whole number from 0")?;
    let ts = field("timeStamp")?.as_str().ok_or("timeStamp is not text")?;
    let ts = time(ts).map_err(|problem| format!("timeStamp: {problem}"))?;
    let reading = Reading { did, values: vec![Measurement { p: ParameterCode(p), v }], sqn, ts };
    if ts < Timestamp(0) || check(&reading, &DecodeLimits::default()).is_err() {
        return Err(
            "nodeNetworkId is empty, too long or holds a control character, seqNum is too large, or timeStamp is before 1970"
                .to_owned(),
        );
    }
    let Reading { did, values, .. } = reading;
    Ok(Service { did, ts, sqn, measured: values[0] })
}

/// RFC 3339, or as the concentrators write it: `2014-04-16T10:00:00.000 UTC`.
fn time(text: &str) -> Result<Timestamp, TimeError> {
    match text.strip_suffix(" UTC") {
        Some(local) => Timestamp::parse(&format!("{local}Z")),
        None => Timestamp::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(data: &str) -> Vec<u8> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("data", data).finish().into_bytes()
    }

    fn entry(node: &str, code: u32, value: f64, number: u64) -> String {
        format!(
            r#"{{"nodeNetworkId":"{node}","serviceNetworkId":{code},"value":{value},"seqNum":{number},"timeStamp":"2014-04-16T10:00:00.000 UTC"}}"#
        )
    }

    #[test]
    fn values_of_one_node_at_one_time_become_one_reading() {
        let list = [
            entry("1", 401, 1001.23, 1),
            entry("1", 402, 5.0, 2),
            entry("2", 401, 7.0, 3),
            entry("1", 401, 9.0, 4),
        ];
        let body = form(&format!(r#"{{"gatewayId":"c1","service":[{}]}}"#, list.join(",")));
        let form = services(&body, &Limits::default()).unwrap();
        assert_eq!(form.gateway.as_deref(), Some("c1"));
        assert_eq!(form.parsed.entries, 4);
        let taken: Vec<_> = form
            .parsed
            .readings
            .iter()
            .map(|r| (r.did.as_str(), r.sqn, r.values.iter().map(|m| (m.p.0, m.v)).collect::<Vec<_>>()))
            .collect();
        assert_eq!(taken, [("1", 4, vec![(401, 9.0), (402, 5.0)]), ("2", 3, vec![(401, 7.0)])]);
        assert_eq!(form.parsed.readings[0].ts, Timestamp::parse("2014-04-16T10:00:00Z").unwrap());
    }

    #[test]
    fn bad_services_are_told_by_index_and_field() {
        let good = entry("1", 401, 1.0, 1);
        for (bad, expected) in [
            ("7", "not an object"),
            ("{}", "nodeNetworkId is missing"),
            (&good.replace(r#""1""#, r#""""#), "nodeNetworkId is empty"),
            (&good.replace("401", "\"x\""), "serviceNetworkId is not"),
            (&good.replace(r#""value":1"#, r#""value":"1""#), "value is not a number"),
            (&good.replace("2014-04-16T10:00:00.000 UTC", "2014-04-16T10:00:00.000"), "has no zone"),
            (&good.replace("2014-", "1914-"), "before 1970"),
        ] {
            let body = form(&format!(r#"{{"service":[{good},{bad}]}}"#));
            let parsed = services(&body, &Limits::default()).unwrap().parsed;
            assert_eq!((parsed.entries, parsed.rejected.len()), (1, 1), "{bad}");
            assert_eq!(parsed.rejected[0].index, 1);
            assert!(parsed.rejected[0].reason.contains(expected), "{bad}: {}", parsed.rejected[0].reason);
        }
    }

    #[test]
    fn a_form_without_its_field_or_with_broken_json_is_refused() {
        assert_eq!(services(b"", &Limits::default()).unwrap_err(), CallError::Empty);
        assert_eq!(services(&form(""), &Limits::default()).unwrap_err(), CallError::Empty);
        for body in [b"x=1".to_vec(), form("{"), form("[]"), form("{}"), form(r#"{"service":{}}"#)] {
            assert!(matches!(services(&body, &Limits::default()), Err(CallError::Malformed(_))), "{body:?}");
        }
    }
}

use galerna_model::{
    AccountId, Envelope, ManualClock, Measurement, Message, ParameterCode, QueueName, Timestamp,
};
use proptest::prelude::*;

use super::*;
use crate::rejection::Rejection;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn now() -> Timestamp {
    at("2026-01-01T00:00:00Z")
}

fn values(values: &[(u32, f64)]) -> Vec<Measurement> {
    values.iter().map(|&(p, v)| Measurement { p: ParameterCode(p), v }).collect()
}

fn reading(did: &str, pairs: &[(u32, f64)]) -> Reading {
    Reading { did: did.to_owned(), values: values(pairs), sqn: 1, ts: at("2025-12-31T12:00:00Z") }
}

#[test]
fn each_rule_names_the_field_that_breaks_it() {
    use RejectCode::*;
    let validator = Validator::default();
    let good = || reading("12a", &[(401, 4900.0), (412, 0.82)]);
    let with_time = |ts: &str| Reading { ts: at(ts), ..good() };
    let many: Vec<(u32, f64)> = (0..101).map(|_| (401, 1.0)).collect();
    let cases = [
        (reading("", &[(401, 1.0)]), Device, "did is empty"),
        (reading(&"é".repeat(201), &[(401, 1.0)]), Device, "did has 201 characters, at most 200"),
        (reading(&"x".repeat(10_000), &[(401, 1.0)]), Device, "did has 10000 characters"),
        (reading("a\u{7}b", &[(401, 1.0)]), Device, "did holds a control character"),
        (reading("a", &[]), NoValues, "values is empty"),
        (reading("a", &many), TooManyValues, "values has 101 entries, at most 100"),
        (
            reading("a", &[(401, 1.0), (999, 1.0)]),
            UnknownParameter,
            "values[1].p is 999, an unknown parameter",
        ),
        (reading("a", &[(u32::MAX, 1.0)]), UnknownParameter, "values[0].p is 4294967295"),
        (reading("a", &[(401, f64::NAN)]), NotANumber, "values[0].v is NaN"),
        (reading("a", &[(401, f64::NEG_INFINITY)]), NotANumber, "values[0].v is infinite"),
        (reading("a", &[(405, -1.0)]), OutOfRange, "values[0].v is -1 V, voltage (405) is from 0 to 2000000"),
        (reading("a", &[(412, 1.01)]), OutOfRange, "values[0].v is 1.01"),
        (reading("a", &[(402, f64::MAX)]), OutOfRange, "active_energy (402)"),
        (
            reading("a", &[(401, 1.0), (402, 1.0), (401, 2.0)]),
            DuplicateParameter,
            "values[2].p is 401, as is values[0].p",
        ),
        (
            with_time("2026-01-01T01:00:00.001Z"),
            TimeInFuture,
            "ts is 2026-01-01T01:00:00.001Z, 3600 s ahead of now",
        ),
        (with_time("9999-12-30T00:00:00Z"), TimeInFuture, "at most 3600 s are allowed"),
        (
            with_time("1969-12-31T23:59:59Z"),
            TimeTooOld,
            "ts is 1969-12-31T23:59:59Z, before 1970-01-01T00:00:00Z",
        ),
    ];
    for (reading, code, reason) in cases {
        let rejection = validator.validate(&reading, now()).expect_err(reason);
        assert_eq!(rejection.code, code, "{}", rejection.reason);
        assert!(rejection.reason.contains(reason), "{} does not say {reason}", rejection.reason);
    }
    assert_eq!(validator.validate(&good(), now()), Ok(Vec::new()));
}

#[test]
fn what_is_unusual_but_possible_is_valid() {
    let validator = Validator::default();
    let cases = [
        reading("SERF_East.pv", &[(401, -6.35)]),
        reading("water", &[(902, -46_793.47), (901, 0.0)]),
        reading(&"é".repeat(200), &[(401, 0.0)]),
        reading("odd id / [x] {y} *", &[(503, -1e300)]),
        Reading { ts: at("2026-01-01T01:00:00Z"), ..reading("ahead", &[(401, 1.0)]) },
        Reading { ts: at("1970-01-01T00:00:00Z"), ..reading("old", &[(401, 1.0)]) },
    ];
    for reading in cases {
        assert_eq!(validator.validate(&reading, now()), Ok(Vec::new()), "{}", reading.did);
    }
}

fn bolt() -> ValidateBolt {
    ValidateBolt::new(Arc::default(), ValidationLimits::default())
        .with_clock(Arc::new(ManualClock::at(now())))
}

fn incoming(message: Message) -> Incoming {
    Incoming {
        queue: QueueName::new("D1").unwrap(),
        account: AccountId::new("A1").unwrap(),
        epoch: 3,
        deliveries: 1,
        replays: 0,
        message,
    }
}

fn json(body: impl AsRef<[u8]>) -> Message {
    Message { body: body.as_ref().to_vec().into(), content_type: "application/json".into(), id: "m1".into() }
}

fn envelope(readings: Vec<Reading>) -> Envelope {
    Envelope {
        id: "e1".into(),
        account: AccountId::new("A1").unwrap(),
        source: galerna_model::SourceId::new("c1").unwrap(),
        received: at("2025-12-31T12:00:01Z"),
        readings,
    }
}

#[test]
fn a_bad_reading_is_refused_alone_and_can_be_replayed_alone() {
    let message = envelope(vec![
        reading("a", &[(401, 1.0)]),
        reading("b", &[(401, 1.0), (777, 5.0)]),
        reading("c", &[(401, f64::NAN)]),
        reading("d", &[(401, 2.0)]),
    ])
    .encode();
    let (valid, rejected) = bolt().examine(&incoming(message.clone()));
    let valid = valid.unwrap();
    let devices: Vec<_> = valid.readings.iter().map(|r| r.device.as_str()).collect();
    assert_eq!(devices, ["a", "d"]);
    assert_eq!((valid.epoch, valid.account.as_str()), (3, "A1"));
    assert_eq!(valid.readings[0].received, at("2025-12-31T12:00:01Z"));

    let rejected = rejected.unwrap();
    let codes: Vec<_> = rejected.rejections.iter().map(|r| r.record.code.as_str()).collect();
    assert_eq!(codes, ["not_a_number", "unknown_parameter"]);
    let unknown = &rejected.rejections[1];
    assert_eq!(unknown.record.device.as_deref(), Some("b"));
    assert_eq!(unknown.record.source.as_ref().unwrap().as_str(), "c1");
    assert!(unknown.record.reason.starts_with("values[1].p is 777"));
    assert_eq!(unknown.letter.failure.reason, unknown.record.reason);
    assert_eq!(unknown.letter.failure.component, "validate");

    // The registry learns 777, the dead letter is replayed: the same reading is stored.
    let mut registry = ParameterRegistry::built_in();
    registry.extend_from_csv("code,quantity,unit,min,max,kind\n777,steam,t,,,gauge\n", "r.csv").unwrap();
    let mut learned = ValidateBolt::new(Arc::new(registry), ValidationLimits::default())
        .with_clock(Arc::new(ManualClock::at(now())));
    let (replayed, nothing) = learned.examine(&incoming(unknown.letter.message.clone()));
    assert!(nothing.is_none());
    let replayed = &replayed.unwrap().readings[0];
    assert_eq!((replayed.device.as_str(), replayed.source.as_str(), replayed.values.len()), ("b", "c1", 2));
    assert_eq!(replayed.ts, at("2025-12-31T12:00:00Z"));

    let again = bolt().examine(&incoming(message)).1.unwrap();
    let ids =
        |batch: &RejectedBatch| batch.rejections.iter().map(|r| r.record.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&rejected), "a redelivery has the same ids");
    assert_ne!(ids(&again)[0], ids(&again)[1]);
}

#[test]
fn a_value_that_is_not_possible_is_put_aside_and_the_rest_is_kept() {
    let readings = vec![
        reading("a", &[(401, 4900.0), (412, 1.01), (405, -1.0), (402, 7.0)]),
        reading("b", &[(412, 1.01)]),
    ];
    let (valid, rejected) = bolt().examine(&incoming(envelope(readings).encode()));
    let valid = valid.unwrap();
    assert_eq!(valid.readings.len(), 1);
    assert_eq!(valid.readings[0].values, values(&[(401, 4900.0), (402, 7.0)]));
    let rejections = rejected.unwrap().rejections;
    let told: Vec<_> =
        rejections.iter().map(|r| (r.record.device.as_deref().unwrap(), r.record.code.as_str())).collect();
    assert_eq!(told, [("a", "out_of_range"), ("a", "out_of_range"), ("b", "out_of_range")]);
    assert_eq!(
        rejections[1].record.reason,
        "values[1].v is 1.01 -1..1, power_factor (412) is from -1 to 1; the other values of the reading are stored"
    );
    let ids: std::collections::BTreeSet<_> = rejections.iter().map(|r| &r.record.id).collect();
    assert_eq!(ids.len(), 3);
    // What is replayed is that value alone: it is united with the others once it is possible.
    let mut registry = ParameterRegistry::built_in();
    registry
        .extend_from_csv("code,quantity,unit,min,max,kind\n412,power_factor,,-2,2,gauge\n", "r.csv")
        .unwrap();
    let mut learned = ValidateBolt::new(Arc::new(registry), ValidationLimits::default())
        .with_clock(Arc::new(ManualClock::at(now())));
    let replayed = learned.examine(&incoming(rejections[1].letter.message.clone())).0.unwrap();
    assert_eq!(
        (replayed.readings[0].device.as_str(), &replayed.readings[0].values),
        ("a", &values(&[(412, 1.01)]))
    );
    assert_eq!(replayed.readings[0].ts, valid.readings[0].ts);
}

#[test]
fn a_message_that_names_another_account_than_its_queues_is_refused_whole() {
    let own = envelope(vec![reading("a", &[(401, 1.0)])]);
    for foreign in ["A3", "Q1", "someone-else"] {
        let message = Envelope { account: AccountId::new(foreign).unwrap(), ..own.clone() }.encode();
        let (valid, rejected) = bolt().examine(&incoming(message.clone()));
        assert!(valid.is_none());
        let rejection = &rejected.unwrap().rejections[0];
        assert_eq!(
            (rejection.record.code.as_str(), rejection.record.account.as_str()),
            ("foreign_account", "A1")
        );
        assert_eq!(rejection.record.reason, format!("account is `{foreign}`, and queue D1 is that of `A1`"));
        assert_eq!(rejection.letter.message, message);
    }
    assert!(bolt().examine(&incoming(own.encode())).1.is_none());
    let post = r#"{"account":"A1","readings":[{"did":"a","values":[{"p":401,"v":1}],"sqn":1,"ts":"2025-12-31T12:00:00Z"}]}"#;
    assert!(bolt().examine(&incoming(json(post))).0.is_some());
}

#[test]
fn epoch_seconds_are_refused_and_name_the_unit_to_send() {
    let body = r#"[{"did":"sec1","values":[{"p":401,"v":100.0}],"sqn":1,"ts":1764410400},
        {"did":"ms","values":[{"p":401,"v":100.0}],"sqn":1,"ts":1764410400000},
        {"did":"unset","values":[{"p":401,"v":100.0}],"sqn":1,"ts":"1970-01-21T10:06:50Z"}]"#;
    let (valid, rejected) = bolt().examine(&incoming(json(body)));
    let times: Vec<_> = valid.unwrap().readings.iter().map(|r| (r.device.clone(), r.ts)).collect();
    let told =
        [("ms".to_owned(), at("2025-11-29T10:00:00Z")), ("unset".to_owned(), at("1970-01-21T10:06:50Z"))];
    assert_eq!(times, told);
    let record = &rejected.unwrap().rejections[0].record;
    assert_eq!(record.code, "bad_time");
    assert_eq!(
        record.reason,
        "ts is 1764410400, which is seconds since 1970; send milliseconds (1764410400000) or RFC 3339 text"
    );
}

#[test]
fn a_message_that_cannot_be_read_is_refused_whole() {
    let mut wrong_version = envelope(vec![reading("a", &[(401, 1.0)])]).encode().body.to_vec();
    wrong_version[0] = 9;
    let cases = [
        (
            Message { body: vec![0xc1, 0x00, 0xff].into(), content_type: String::new(), id: String::new() },
            "neither MessagePack nor JSON",
        ),
        (json("{\"did\":"), "message is not JSON"),
        (json("true"), "it is a boolean"),
        (
            Message {
                body: wrong_version.into(),
                content_type: galerna_model::envelope::CONTENT_TYPE.into(),
                id: "x".into(),
            },
            "envelope has version 9",
        ),
        (json(vec![b'['; 10 << 20]), "message has 10485760 bytes, at most 8388608 are allowed"),
        (json("[".repeat(100_000)), "message is not JSON"),
    ];
    for (message, reason) in cases {
        let (valid, rejected) = bolt().examine(&incoming(message.clone()));
        assert!(valid.is_none());
        let rejection = &rejected.unwrap().rejections[0];
        assert_eq!(rejection.record.code, "undecodable");
        assert!(
            rejection.record.reason.contains(reason),
            "{} does not say {reason}",
            rejection.record.reason
        );
        assert_eq!(rejection.letter.message, message, "the whole message is kept");
        assert!(rejection.record.raw.chars().count() <= 501);
        assert_eq!(rejection.record.account.as_str(), "A1");
    }
}

#[test]
fn readings_of_the_wrong_shape_are_told_from_those_beside_them() {
    let body = r#"[
        {"did":"ok","values":[{"p":401,"v":1}],"sqn":1,"ts":"2025-12-31T12:00:00Z"},
        {"did":"zoneless","values":[{"p":401,"v":1}],"sqn":1,"ts":"2025-12-31T12:00:00"},
        {"did":7,"values":[],"sqn":1,"ts":"2025-12-31T12:00:00Z"},
        {"did":"text","values":[{"p":401,"v":"high"}],"sqn":1,"ts":"2025-12-31T12:00:00Z"},
        "nothing"
    ]"#;
    let (valid, rejected) = bolt().examine(&incoming(json(body)));
    let valid = valid.unwrap();
    assert_eq!(valid.readings.len(), 1);
    assert_eq!(valid.readings[0].source.as_str(), "A1", "without a source, the account's own name");
    let rejected = rejected.unwrap();
    let told: Vec<_> =
        rejected.rejections.iter().map(|r| (r.record.code.as_str(), r.record.device.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("bad_time", Some("zoneless")),
            ("malformed", None),
            ("malformed", Some("text")),
            ("malformed", None)
        ]
    );
    for rejection in &rejected.rejections {
        let (nothing, again) = bolt().examine(&incoming(rejection.letter.message.clone()));
        assert!(nothing.is_none());
        assert_eq!(
            again.unwrap().rejections[0].record.code,
            rejection.record.code,
            "its letter is refused alike"
        );
    }
}

#[test]
fn a_counter_that_runs_backwards_is_flagged_and_stored() {
    let mut bolt = bolt();
    let mut flags = Vec::new();
    for (minute, total) in [(0, 100.0), (1, 110.0), (2, 5.0), (2, 5.0), (3, 6.0)] {
        let ts = at("2025-12-31T12:00:00Z").plus_millis(minute * 60_000);
        let r = Reading { ts, ..reading("a", &[(402, total), (401, -total)]) };
        let (valid, rejected) = bolt.examine(&incoming(envelope(vec![r]).encode()));
        assert!(rejected.is_none());
        flags.push(valid.unwrap().readings[0].flags.clone());
    }
    let backwards = vec!["402:counter_backwards".to_owned()];
    assert_eq!(flags, [vec![], vec![], backwards.clone(), backwards, vec![]]);
}

#[test]
fn the_messages_of_the_thesis_are_valid_to_the_last() {
    let body = include_str!("../../examples/data/thesis_messages.json");
    let (valid, rejected) = bolt().examine(&incoming(json(body)));
    assert!(rejected.is_none(), "{rejected:?}");
    let valid = valid.unwrap();
    assert_eq!(valid.readings.len(), 28);
    assert_eq!(valid.readings.iter().map(|r| r.values.len()).sum::<usize>(), 126);
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let code = prop_oneof![Just(401), Just(402), Just(412), Just(503), any::<u32>()];
    let value = (code, any::<f64>()).prop_map(|(p, v)| Measurement { p: ParameterCode(p), v });
    let ts = prop_oneof![1_400_000_000_000..1_500_000_000_000_i64, any::<i64>()];
    (".{0,12}", prop::collection::vec(value, 0..5), any::<u64>(), ts)
        .prop_map(|(did, values, sqn, ts)| Reading { did, values, sqn, ts: Timestamp(ts) })
}

proptest! {
    #[test]
    fn every_reading_is_either_valid_or_refused_with_a_reason(readings in prop::collection::vec(any_reading(), 0..20)) {
        let sent = readings.len();
        let (valid, rejected) = bolt().examine(&incoming(envelope(readings).encode()));
        let valid = valid.map_or(0, |v| v.readings.len());
        let rejections = rejected.map_or_else(Vec::new, |r| r.rejections);
        // Of a reading of which values were put aside, the rest is valid.
        let aside = |r: &&Rejection| r.record.reason.ends_with("; the other values of the reading are stored");
        let index = |r: &Rejection| r.letter.message.id.clone();
        let parts: std::collections::BTreeSet<_> = rejections.iter().filter(aside).map(index).collect();
        let whole = rejections.iter().filter(|r| !aside(r)).count();
        prop_assert_eq!(valid + whole, sent);
        prop_assert!(parts.len() <= valid);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_vanish(
        body in prop::collection::vec(any::<u8>(), 1..200),
        content_type in prop_oneof![Just("application/json"), Just(galerna_model::envelope::CONTENT_TYPE), Just("")],
    ) {
        let message = Message { body: body.into(), content_type: content_type.into(), id: "m".into() };
        let (valid, rejected) = bolt().examine(&incoming(message.clone()));
        if let Some(rejected) = rejected {
            prop_assert!(rejected.rejections.iter().all(|r| !r.record.reason.is_empty()));
        } else if valid.is_none() {
            // Only a message that holds an empty list has nothing to say.
            prop_assert!(galerna_model::decode(&message).is_ok_and(|d| d.readings.is_empty()));
        }
    }
}

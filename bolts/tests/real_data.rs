//! Real meters' readings are valid to the last one, and give the same alerts whenever they are evaluated.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use galerna_bolts::{AlertEngine, Changes, Moment, ReadingBatch, RuleSet, ValidateBolt};
use galerna_model::ValidationLimits;
use galerna_model::envelope::JSON_CONTENT_TYPE;
use galerna_model::{
    AccountId, Envelope, Incoming, Measurement, Message, ParameterCode, QueueName, Reading, SourceId,
    Timestamp,
};
use galerna_model::{AlertEventKind, Comparison, Condition, Rule, Severity};

fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data")).join(name)
}

fn bolt() -> ValidateBolt {
    ValidateBolt::new(Arc::default(), ValidationLimits::default())
}

fn incoming(account: &str, message: Message) -> Incoming {
    let account = AccountId::new(account).unwrap();
    Incoming {
        queue: QueueName::new(account.as_str()).unwrap(),
        account,
        epoch: 1,
        deliveries: 1,
        replays: 0,
        message,
    }
}

fn valid(bolt: &mut ValidateBolt, incoming: &Incoming) -> ReadingBatch {
    let (valid, rejected) = bolt.examine(incoming);
    assert!(rejected.is_none(), "{rejected:?}");
    valid.unwrap()
}

/// The main extract: posts of one account at one time, in order; the counter 402 or 420 summed up, as concentrators send it.
fn extract() -> Vec<Envelope> {
    let file = std::fs::File::open(data("energy/readings_2017-01_02.csv.gz")).unwrap();
    let mut rows = csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(file));
    let mut totals: HashMap<String, f64> = HashMap::new();
    let mut posts: Vec<Envelope> = Vec::new();
    let mut row = csv::StringRecord::new();
    while rows.read_record(&mut row).unwrap() {
        let (account, meter, utility, ts, value) = (&row[1], &row[3], &row[4], &row[5], &row[6]);
        // An empty value is a gap: nothing was sent.
        let Ok(kwh) = value.parse::<f64>() else { continue };
        let ts = Timestamp::parse(ts).unwrap();
        let total = totals.entry(meter.to_owned()).or_default();
        *total += kwh;
        let mut values =
            vec![Measurement { p: ParameterCode(if utility == "gas" { 420 } else { 402 }), v: *total }];
        if utility != "gas" {
            values.push(Measurement { p: ParameterCode(401), v: kwh * 1000.0 });
        }
        let reading = Reading { did: meter.to_owned(), values, sqn: 1, ts };
        match posts.last_mut() {
            Some(post) if post.account.as_str() == account && post.readings[0].ts == ts => {
                post.readings.push(reading)
            }
            _ => posts.push(Envelope {
                id: posts.len().to_string(),
                account: AccountId::new(account).unwrap(),
                source: SourceId::new(account).unwrap(),
                received: ts,
                readings: vec![reading],
            }),
        }
    }
    posts
}

#[test]
fn the_sample_messages_are_valid_to_the_last() {
    let mut bolt = bolt();
    let (mut readings, mut values) = (0, 0);
    for line in std::fs::read_to_string(data("sample_messages.ndjson")).unwrap().lines() {
        let post: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = Message {
            body: line.to_owned().into(),
            content_type: JSON_CONTENT_TYPE.to_owned(),
            id: readings.to_string(),
        };
        let batch = valid(&mut bolt, &incoming("owner", message));
        assert!(batch.readings.iter().all(|r| r.source.as_str() == post["source_key"] && r.flags.is_empty()));
        readings += batch.readings.len();
        values += batch.readings.iter().map(|r| r.values.len()).sum::<usize>();
    }
    assert_eq!((readings, values), (1_201, 2_070));
}

fn rule(id: &str, devices: &str, condition: Condition) -> Rule {
    Rule {
        id: id.to_owned(),
        name: id.to_owned(),
        account: None,
        devices: devices.to_owned(),
        condition,
        severity: Severity::Warning,
        endpoints: Vec::new(),
        cooldown_ms: 0,
        enabled: true,
    }
}

#[test]
fn the_whole_extract_is_valid_and_its_outages_are_noticed() {
    const HOUR: u64 = 3_600_000;
    let high = Condition::Threshold {
        parameter: ParameterCode(401),
        comparison: Comparison::Above,
        limit: 1_000_000.0,
        clear: Some(900_000.0),
        for_ms: 2 * HOUR,
    };
    let rules =
        vec![rule("silent", "*", Condition::Silent { after_ms: 6 * HOUR }), rule("high", "*.elec", high)];
    let mut engine = AlertEngine::new(RuleSet::compile(rules).0);
    let mut bolt = bolt();
    let (mut readings, mut changes) = (0, Changes::default());
    for post in extract() {
        let batch = valid(&mut bolt, &incoming(post.account.as_str(), post.encode()));
        assert!(batch.readings.iter().all(|r| r.flags.is_empty()), "sums only grow");
        readings += batch.readings.len();
        engine.evaluate(&batch, Moment { running: Duration::ZERO, wall: post.received }, &mut changes);
    }
    assert_eq!(readings, 472_944 - 8_619);

    // The concentrator of Cockatoo lost 24 hours from 2017-01-23T11:00-05:00, with all its 31 meters: six hours after the reading of 10:00 they
    // count as silent.
    let outage = Timestamp::parse("2017-01-23T16:00:00-05:00").unwrap();
    let silent = changes
        .events
        .iter()
        .filter(|e| {
            e.rule == "silent" && e.kind == AlertEventKind::Raised && e.account.as_str() == "Cockatoo"
        })
        .filter(|e| e.ts == outage);
    assert_eq!(silent.count(), 31);
    for rule in ["silent", "high"] {
        let of = |kind| changes.events.iter().filter(|e| e.rule == rule && e.kind == kind).count();
        let (raised, resolved) = (of(AlertEventKind::Raised), of(AlertEventKind::Resolved));
        assert!(raised >= resolved && raised > 0, "{rule}: {raised} raised, {resolved} resolved");
    }
}

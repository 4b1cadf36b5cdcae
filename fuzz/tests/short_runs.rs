//! Each target on a bounded number of inputs, the same ones in every run.

use galerna_model::{AccountId, Envelope, Measurement, ParameterCode, Reading, SourceId, Timestamp};

const INPUTS: usize = 20_000;

fn good() -> Envelope {
    let reading = |minute: i64| Reading {
        did: format!("12a-{minute}"),
        values: vec![
            Measurement { p: ParameterCode(401), v: 4900.25 },
            Measurement { p: ParameterCode(402), v: 0.1 + 0.2 },
        ],
        sqn: 2152,
        ts: Timestamp(1_429_658_100_000 + minute * 60_000),
    };
    Envelope {
        id: "batch-1".to_owned(),
        account: AccountId::new("Panther").unwrap(),
        source: SourceId::new("meterhub").unwrap(),
        received: Timestamp(1_429_658_102_000),
        readings: (0..3).map(reading).collect(),
    }
}

#[test]
fn envelopes_in_messagepack() {
    galerna_fuzz::run(galerna_fuzz::envelope, 1, vec![good().encode().body.to_vec()], INPUTS);
}

#[test]
fn readings_in_json() {
    let one = br#"{"did":"12a","values":[{"p":401,"v":4900.0},{"p":412,"v":0.82}],"sqn":2152,"ts":"2015-04-21T23:15:00+00:00"}"#;
    let post = br#"{"source_key":"c1","account":"Panther","id":"x","body":[{"did":"12a","values":[{"p":1,"v":-1.5e-3}],"sqn":1,"ts":"2015-04-21T23:15:00Z"}]}"#;
    let many = [b"[".as_slice(), one, b",", one, b"]"].concat();
    galerna_fuzz::run(galerna_fuzz::json, 2, vec![one.to_vec(), post.to_vec(), many], INPUTS);
}

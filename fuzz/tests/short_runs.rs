//! Each target on a bounded number of inputs, the same ones in every run.

use std::io::Write;
use std::path::Path;

use galerna_model::{AccountId, Envelope, Measurement, ParameterCode, Reading, SourceId, Timestamp};

const INPUTS: usize = 20_000;
/// Of files, which are long.
const FILES: usize = 500;

/// The files of a folder of the repository, those with this end of the name, in the order of their names.
fn files(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(end));
    paths.sort();
    assert!(!paths.is_empty(), "no seeds in {}", folder.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

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

#[test]
fn bodies_of_calls() {
    let mut seeds = files("fuzz/corpus/http_body", "");
    let plain = seeds.clone();
    for seed in plain.iter().filter(|seed| seed[0] == b'0') {
        let mut encoder = flate2::write::GzEncoder::new(vec![b'2'], flate2::Compression::default());
        encoder.write_all(&seed[1..]).unwrap();
        seeds.push(encoder.finish().unwrap());
    }
    galerna_fuzz::run(galerna_fuzz::http_body, 3, seeds, INPUTS);
}

#[test]
fn tables_of_meters() {
    galerna_fuzz::run(galerna_fuzz::csv, 4, files("import/tests/data/cases", ".csv"), FILES);
}

#[test]
fn wide_grids() {
    galerna_fuzz::run(galerna_fuzz::grid, 5, files("import/tests/data/grids", ".csv"), FILES);
}

#[test]
fn green_button_files() {
    galerna_fuzz::run(galerna_fuzz::green_button, 6, files("import/tests/data/cases", ".xml"), FILES);
}

#[test]
fn lines_of_json() {
    let mut seeds = files("import/tests/data/cases", ".ndjson");
    seeds.extend(files("fuzz/corpus/ndjson", ""));
    galerna_fuzz::run(galerna_fuzz::ndjson, 8, seeds, FILES);
}

#[test]
fn lists_of_accounts_and_sources() {
    galerna_fuzz::run(galerna_fuzz::lists, 9, files("fuzz/corpus/lists", ""), 6 * FILES);
}

#[test]
fn mapping_files() {
    galerna_fuzz::run(galerna_fuzz::mapping, 7, files("import/src/mappings", ".toml"), 6 * FILES);
}

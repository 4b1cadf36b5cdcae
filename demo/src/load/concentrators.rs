//! Who posts, and what: concentrators with some devices each, whose readings are like those of real meters.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use galerna_lock::Mutex;
use galerna_model::{Clock, Measurement, ParameterCode, Reading, SourceId, SystemClock, Timestamp};

/// What stands for the source's name in a token.
const NAME: &str = "{source}";

/// A source with its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) source: SourceId,
    pub(super) token: String,
}

/// One source, or `count` of them that share the beginning of their name and are numbered from 1. `{source}` in the token
/// stands for the name.
pub(super) fn named(source: &str, token: &str, count: Option<u32>) -> anyhow::Result<Vec<Credentials>> {
    let of = |name: String| {
        let token = token.replace(NAME, &name);
        Ok(Credentials { source: SourceId::new(name)?, token })
    };
    match count {
        None => Ok(vec![of(source.to_owned())?]),
        Some(count) => (1..=count).map(|n| of(format!("{source}{n}"))).collect(),
    }
}

/// Reads sources and tokens from a CSV whose first line names the columns `source` and `token`; others are ignored.
pub(super) fn listed(path: &Path) -> anyhow::Result<Vec<Credentials>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    read(file).with_context(|| format!("{} is no list of sources", path.display()))
}

fn read(input: impl Read) -> anyhow::Result<Vec<Credentials>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
    let column = |header: &csv::StringRecord, name: &str| {
        header.iter().position(|h| h == name).with_context(|| {
            format!("column `{name}` is missing in the first line; the columns are source and token")
        })
    };
    let header = reader.headers()?;
    let (source, token) = (column(header, "source")?, column(header, "token")?);
    let mut all = Vec::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let text = |at: usize| record.get(at).unwrap_or_default().to_owned();
        let source = SourceId::new(text(source)).with_context(|| format!("line {line}"))?;
        ensure!(!text(token).is_empty(), "line {line}: the token of `{source}` is empty");
        all.push(Credentials { source, token: text(token) });
    }
    ensure!(!all.is_empty(), "it names no source");
    Ok(all)
}

/// How the bodies of calls are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyShape {
    /// Readings of a call.
    pub(super) readings: usize,
    /// Devices of a source.
    pub(super) devices: usize,
    /// The same body again and again.
    pub(super) repeat: bool,
    /// Compressed.
    pub(super) gzip: bool,
}

/// The body of a call.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// As sent.
    pub(super) bytes: Bytes,
    /// Its length before compression.
    pub(super) unpacked: usize,
}

/// A source that posts.
#[derive(Debug)]
pub(super) struct Concentrator {
    pub(super) credentials: Credentials,
    meters: Mutex<Meters>,
}

#[derive(Debug, Default)]
struct Meters {
    /// Of the readings last made, one per device.
    round: u64,
    ts: Timestamp,
    /// The device whose turn it is.
    next: usize,
    /// Energy so far, in kWh, by device.
    energy: Vec<f64>,
    /// With `repeat`: the body, and how many readings it holds.
    kept: Option<(usize, Body)>,
}

impl Concentrator {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, meters: Mutex::default() }
    }

    /// The body of its next call: readings that no call had before, each device's later than its last, and about now. With
    /// more than 1,000 readings a second of one device their times run ahead of the clock.
    ///
    /// # Errors
    /// When the readings cannot be written as JSON or compressed, which memory alone could cause.
    pub(super) fn body(&self, shape: BodyShape) -> anyhow::Result<Body> {
        let readings: Vec<Reading> = {
            let mut meters = self.meters.lock();
            if let (true, Some((readings, body))) = (shape.repeat, &meters.kept)
                && *readings == shape.readings
            {
                return Ok(body.clone());
            }
            (0..shape.readings).map(|_| meters.reading(shape.devices)).collect()
        };
        let text = serde_json::to_vec(&readings)?;
        let unpacked = text.len();
        let bytes = if shape.gzip {
            let mut encoder = GzEncoder::new(Vec::with_capacity(unpacked / 8), Compression::fast());
            encoder.write_all(&text)?;
            encoder.finish()?
        } else {
            text
        };
        let body = Body { bytes: bytes.into(), unpacked };
        if shape.repeat {
            let mut meters = self.meters.lock();
            match &meters.kept {
                // Another connection was faster.
                Some((readings, body)) if *readings == shape.readings => return Ok(body.clone()),
                _ => meters.kept = Some((shape.readings, body.clone())),
            }
        }
        Ok(body)
    }
}

impl Meters {
    fn reading(&mut self, devices: usize) -> Reading {
        if self.next >= devices || self.round == 0 {
            self.next = 0;
            self.round += 1;
            self.ts = SystemClock.now().max(Timestamp(self.ts.0 + 1));
        }
        let device = self.next;
        self.next += 1;
        if self.energy.len() <= device {
            // Counters that have run for a while.
            self.energy.push(1_000.0 + 731.0 * device as f64);
        }
        // A load that swings over some hundred readings, differently for each device: no two values are alike.
        let phase = (self.round % 360) as f64 / 57.3 + device as f64;
        let watts = 600.0 + 450.0 * phase.sin();
        self.energy[device] += watts / 4_000.0;
        let of =
            |p, v: f64, digits: f64| Measurement { p: ParameterCode(p), v: (v * digits).round() / digits };
        Reading {
            did: format!("m{:03}", device + 1),
            values: vec![
                of(401, watts, 10.0),
                of(402, self.energy[device], 1_000.0),
                of(405, 230.0 + 3.0 * phase.cos(), 10.0),
                of(412, 0.9 + 0.08 * phase.cos(), 1_000.0),
            ],
            sqn: self.round,
            ts: self.ts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn sources_are_listed_in_a_file_or_share_a_name() {
        let of = |source: &str, token: &str| Credentials {
            source: SourceId::new(source).unwrap(),
            token: token.to_owned(),
        };
        let file = "account,source,token\nA, s1 ,t1\nB,s2,t2\n";
        assert_eq!(read(file.as_bytes()).unwrap(), [of("s1", "t1"), of("s2", "t2")]);
        assert_eq!(named("s", "t-{source}", None).unwrap(), [of("s", "t-s")]);
        assert_eq!(named("s", "t-{source}", Some(2)).unwrap(), [of("s1", "t-s1"), of("s2", "t-s2")]);
        for (file, part) in [
            ("a,b\n1,2\n", "`source` is missing"),
            ("source,token\n", "names no source"),
            ("source,token\ns,\n", "line 2: the token of `s` is empty"),
            ("source,token\na b,t\n", "line 2"),
        ] {
            let error = format!("{:#}", read(file.as_bytes()).unwrap_err());
            assert!(error.contains(part), "{file}: {error}");
        }
    }

    #[test]
    fn each_reading_is_new_and_each_devices_readings_grow() {
        let concentrator = Concentrator::new(named("s", "t", None).unwrap().remove(0));
        let shape = BodyShape { readings: 7, devices: 3, repeat: false, gzip: false };
        let mut seen = HashSet::new();
        let mut last = std::collections::HashMap::new();
        for _ in 0..20 {
            let body = concentrator.body(shape).unwrap();
            let readings: Vec<Reading> = serde_json::from_slice(&body.bytes).unwrap();
            assert_eq!((readings.len(), body.bytes.len()), (7, body.unpacked));
            for reading in readings {
                let before = last.insert(reading.did.clone(), (reading.ts, reading.sqn));
                assert!(before.is_none_or(|(ts, sqn)| ts < reading.ts && sqn < reading.sqn), "{reading:?}");
                assert!(seen.insert((reading.did, reading.ts)));
            }
        }
        assert_eq!(last.len(), 3);
    }

    #[test]
    fn a_body_is_repeated_and_compressed_when_asked() {
        let concentrator = Concentrator::new(named("s", "t", None).unwrap().remove(0));
        let shape = BodyShape { readings: 50, devices: 5, repeat: true, gzip: true };
        let (one, two) = (concentrator.body(shape).unwrap(), concentrator.body(shape).unwrap());
        assert_eq!(one.bytes, two.bytes);
        assert!(one.bytes.len() < one.unpacked / 2);
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&one.bytes[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text.len(), one.unpacked);
    }
}

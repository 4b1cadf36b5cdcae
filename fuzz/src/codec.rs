//! Messages, as the broker brings them.

use std::collections::HashSet;

use galerna_model::envelope::{CONTENT_TYPE, JSON_CONTENT_TYPE};
use galerna_model::{Decoded, Envelope, Message, SourceId, Timestamp, decode};

/// Reads the bytes as an envelope in MessagePack.
///
/// # Panics
/// When what was read breaks a promise of the codec.
pub fn envelope(data: &[u8]) {
    read(data, CONTENT_TYPE);
}

/// Reads the bytes as JSON.
///
/// # Panics
/// When what was read breaks a promise of the codec.
pub fn json(data: &[u8]) {
    read(data, JSON_CONTENT_TYPE);
    read(data, "");
}

fn read(data: &[u8], content_type: &str) {
    let message = Message {
        body: bytes::Bytes::copy_from_slice(data),
        content_type: content_type.to_owned(),
        id: "fuzz".to_owned(),
    };
    let Ok(decoded) = decode(&message) else { return };
    let mut seen = HashSet::new();
    for index in decoded.readings.iter().map(|(index, _)| *index).chain(decoded.bad.iter().map(|b| b.index)) {
        assert!(seen.insert(index), "reading {index} is there twice");
    }
    for (index, reading) in &decoded.readings {
        assert!(
            reading.values.iter().all(|m| m.v.is_finite()),
            "reading {index} has a value that is no number"
        );
    }
    for bad in &decoded.bad {
        // What is set aside can be looked at, and tried again.
        let alone = decoded.bad_message(bad);
        assert!(!alone.body.is_empty());
    }
    written_is_read(decoded);
}

/// What was read, written as an envelope, is read as the same.
fn written_is_read(decoded: Decoded) {
    let (Some(account), Ok(source)) = (decoded.account, SourceId::new("fuzz")) else { return };
    let readings: Vec<_> = decoded.readings.into_iter().map(|(_, reading)| reading).collect();
    let written = Envelope {
        id: decoded.id,
        account,
        source: decoded.source.unwrap_or(source),
        received: decoded.received.unwrap_or(Timestamp(0)),
        readings,
    };
    let again = decode(&written.encode()).expect("an envelope that was written can be read");
    assert!(again.bad.is_empty(), "a good reading is bad once written: {:?}", again.bad);
    let readings: Vec<_> = again.readings.into_iter().map(|(_, reading)| reading).collect();
    assert_eq!(readings, written.readings);
}

//! Bodies of calls, as concentrators post them.

use std::sync::LazyLock;

use galerna_frontend::Limits;
use galerna_frontend::fuzzing::{Route, read_body};
use galerna_model::{AccountId, Envelope, SourceId, Timestamp, decode};
use tokio::runtime::{Builder, Runtime};

/// Small ones, so that inputs come near them.
const READINGS: usize = 50;
const BODY_BYTES: usize = 64 << 10;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime without I/O"));

/// Reads the bytes as the body of a call. The first byte says of which call, and in which encoding.
///
/// # Panics
/// When a reading is taken that those who consume it would not take, or an entry is neither taken nor rejected.
pub fn http_body(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    let route = if kind & 1 == 0 { Route::Readings } else { Route::LegacyForm };
    let encoding = ["identity", "gzip", "zstd"][usize::from(kind >> 1) % 3];
    let limits = Limits { readings: READINGS, body_bytes: BODY_BYTES, ..Limits::default() };
    let Ok(read) = RUNTIME.block_on(read_body(body.to_vec(), encoding, route, &limits)) else { return };
    assert!(read.entries > 0 || read.rejected.is_empty(), "an answer 202 in which nothing is taken");
    assert!(read.readings.len() <= read.entries && read.entries + read.rejected.len() <= READINGS);
    let mut indexes: Vec<_> = read.rejected.iter().map(|rejected| rejected.index).collect();
    indexes.dedup();
    assert_eq!(indexes.len(), read.rejected.len(), "an entry is rejected twice");
    assert!(indexes.is_sorted() && indexes.iter().all(|index| *index < read.entries + indexes.len()));
    let envelope = Envelope {
        id: "fuzz".to_owned(),
        account: AccountId::new("fuzz").expect("a name"),
        source: SourceId::new("fuzz").expect("a name"),
        received: Timestamp(0),
        readings: read.readings,
    };
    let decoded = decode(&envelope.encode()).expect("what is published can be read");
    assert!(decoded.bad.is_empty(), "taken, and refused by its consumer: {:?}", decoded.bad);
    assert!(decoded.readings.into_iter().map(|(_, reading)| reading).eq(envelope.readings));
}

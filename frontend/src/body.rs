//! Reading a body: encodings, limits, timeouts.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder};
use zstd::stream::zio;

use crate::budget::Share;
use crate::call_error::CallError;
use crate::options::{Limits, Timeouts};

/// The largest window of a zstd frame, as a power of two: 8 MiB, which is what RFC 8878 wants every decoder to have.
const ZSTD_WINDOW: u32 = 23;
/// Compressed bytes decoded at once: between two of them the memory taken is accounted for.
const PIECE: usize = 4 << 10;
/// How much of a refused body is read to its end, and for how long.
const DISCARD_BYTES: usize = 1 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A body in memory, decompressed, with its share of the budget.
#[derive(Debug)]
pub(crate) struct BufferedBody {
    pub(crate) bytes: Bytes,
    share: Share,
}

impl BufferedBody {
    /// Drops the body and keeps its share for what was read from it: that takes memory in proportion to the body.
    pub(crate) fn into_share(self) -> Share {
        self.share
    }

    /// Has the body held by another from now on: by the source that was found in it.
    pub(crate) fn charge_to(&mut self, mut share: Share) -> Result<(), CallError> {
        share.hold(self.share.bytes())?;
        self.share = share;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, CallError> {
    let mut found = Encoding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| CallError::Encoding("?".to_owned()))?;
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let next = match name.to_ascii_lowercase().as_str() {
                "identity" => continue,
                "gzip" | "x-gzip" => Encoding::Gzip,
                "zstd" => Encoding::Zstd,
                _ => return Err(CallError::Encoding(name.chars().take(40).collect())),
            };
            if found != Encoding::Identity {
                return Err(CallError::Encoding("several, one over the other".to_owned()));
            }
            found = next;
        }
    }
    Ok(found)
}

/// Reads a body whole. Memory is taken from the share as the body comes.
pub(crate) async fn read(
    mut body: Body,
    headers: &HeaderMap,
    limits: &Limits,
    timeouts: &Timeouts,
    share: Share,
) -> Result<BufferedBody, CallError> {
    let result = read_whole(&mut body, headers, limits, timeouts, share).await;
    if !matches!(result, Ok(_) | Err(CallError::CutOff | CallError::TooSlow(_))) {
        discard(body).await;
    }
    result
}

async fn read_whole(
    body: &mut Body,
    headers: &HeaderMap,
    limits: &Limits,
    timeouts: &Timeouts,
    mut share: Share,
) -> Result<BufferedBody, CallError> {
    let most = limits.body_bytes;
    let mut decoding = Decoding::new(encoding(headers)?, most)?;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()).and_then(|l| l.parse::<u64>().ok());
    if announced.is_some_and(|announced| announced > most as u64) {
        return Err(too_large(most));
    }
    let mut came = 0usize;
    let end = Instant::now() + timeouts.body;
    while let Some(frame) = next_frame(body, end, timeouts).await? {
        let Ok(data) = frame.into_data() else { continue };
        came = came.saturating_add(data.len());
        if came > most {
            return Err(too_large(most));
        }
        for piece in data.chunks(PIECE) {
            decoding.take(piece, most)?;
            share.hold(decoding.held())?;
        }
    }
    let bytes = Bytes::from(decoding.finish(most)?);
    share.hold(bytes.len())?;
    Ok(BufferedBody { bytes, share })
}

/// Reads what is left of a refused call's body, if that is soon done: a sender that is still writing when its connection
/// is closed would never see the answer.
pub(crate) async fn discard(mut body: Body) {
    let end = Instant::now() + DISCARD_TIME;
    let mut came = 0;
    while came < DISCARD_BYTES {
        match timeout_at(end, body.frame()).await {
            Ok(Some(Ok(frame))) => came += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

async fn next_frame(
    body: &mut Body,
    end: Instant,
    timeouts: &Timeouts,
) -> Result<Option<hyper::body::Frame<Bytes>>, CallError> {
    let idle = Instant::now() + timeouts.idle;
    match timeout_at(idle.min(end), body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(_))) => Err(CallError::CutOff),
        Err(_) => Err(CallError::TooSlow(if idle < end { timeouts.idle } else { timeouts.body })),
    }
}

fn too_large(most: usize) -> CallError {
    CallError::TooLarge(format!("the body is longer than {most} bytes, compressed or not; send it in parts"))
}

/// Memory that a decoder has beside what it puts out.
const DECODER_BYTES: usize = 64 << 10;

enum Decoding {
    Identity(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
    Zstd(Box<zio::Writer<Capped, ZstdDecoder<'static>>>),
}

impl Decoding {
    fn new(encoding: Encoding, most: usize) -> Result<Self, CallError> {
        let out = Capped { bytes: Vec::new(), most, over: false };
        Ok(match encoding {
            Encoding::Identity => Self::Identity(out),
            Encoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(out))),
            Encoding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|_| CallError::Overloaded)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
                    .map_err(|_| CallError::Overloaded)?;
                Self::Zstd(Box::new(zio::Writer::new(out, decoder)))
            }
        })
    }

    fn out(&self) -> &Capped {
        match self {
            Self::Identity(out) => out,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.writer(),
        }
    }

    /// Bytes of memory held: for zstd its window can be as large as what it has put out.
    fn held(&self) -> usize {
        let out = self.out().bytes.capacity();
        match self {
            Self::Identity(_) => out,
            Self::Gzip(_) => out + DECODER_BYTES,
            Self::Zstd(_) => out + self.out().bytes.len() + DECODER_BYTES,
        }
    }

    fn take(&mut self, piece: &[u8], most: usize) -> Result<(), CallError> {
        let written = match self {
            Self::Identity(out) => out.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
            Self::Zstd(decoder) => decoder.write_all(piece),
        };
        written.map_err(|e| self.failure(&e, most))
    }

    fn finish(mut self, most: usize) -> Result<Vec<u8>, CallError> {
        let ended = match &mut self {
            Self::Identity(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        if let Err(e) = ended {
            return Err(self.failure(&e, most));
        }
        Ok(match self {
            Self::Identity(out) => out.bytes,
            Self::Gzip(mut decoder) => std::mem::take(&mut decoder.get_mut().bytes),
            Self::Zstd(mut decoder) => std::mem::take(&mut decoder.writer_mut().bytes),
        })
    }

    fn failure(&self, error: &io::Error, most: usize) -> CallError {
        if self.out().over {
            return too_large(most);
        }
        let name = match self {
            Self::Identity(_) => "plain",
            Self::Gzip(_) => "gzip",
            Self::Zstd(_) => "zstd",
        };
        CallError::Malformed(format!("the body is not complete and correct {name}: {error}"))
    }
}

/// Takes up to so many bytes and refuses more.
struct Capped {
    bytes: Vec<u8>,
    most: usize,
    over: bool,
}

impl Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.most - self.bytes.len() {
            self.over = true;
            return Err(io::Error::other("too much comes out of it"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Client, Quota};

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(encoding: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, encoding.parse().unwrap())])
    }

    fn limits() -> Limits {
        Limits { body_bytes: 1 << 20, ..Limits::default() }
    }

    fn budget_of(bytes: usize) -> Budget {
        Budget::new(bytes, Quota { bytes, calls: 10 })
    }

    fn share(budget: &Budget) -> Share {
        budget.call(Client::address(None)).unwrap()
    }

    async fn read_it(data: Vec<u8>, encoding: &str, budget: &Budget) -> Result<BufferedBody, CallError> {
        read(Body::from(data), &headers(encoding), &limits(), &Timeouts::default(), share(budget)).await
    }

    #[tokio::test]
    async fn each_encoding_gives_the_same_body() {
        let text = b"[1,2,3]".repeat(10_000);
        let budget = budget_of(16 << 20);
        let halves = [gzip(&text[..30_000]), gzip(&text[30_000..])].concat();
        for (data, encoding) in [
            (text.clone(), "identity"),
            (text.clone(), ""),
            (gzip(&text), "gzip"),
            (gzip(&text), "X-GZIP"),
            (halves, "gzip, identity"),
            (zstd::encode_all(&text[..], 3).unwrap(), "zstd"),
        ] {
            let held = read_it(data, encoding, &budget).await.unwrap();
            assert_eq!(held.bytes, text, "{encoding}");
            assert!(budget.held() >= text.len());
            drop(held);
            assert_eq!(budget.held(), 0, "{encoding}");
        }
    }

    #[tokio::test]
    async fn what_swells_beyond_the_limit_is_refused_and_gives_its_memory_back() {
        let budget = budget_of(16 << 20);
        let bomb = vec![b' '; 200 << 20];
        for (data, encoding) in [
            (gzip(&bomb), "gzip"),
            (zstd::encode_all(&bomb[..], 3).unwrap(), "zstd"),
            (vec![b' '; (1 << 20) + 1], "identity"),
        ] {
            assert!(data.len() <= (1 << 20) + 1);
            let refused = read_it(data, encoding, &budget).await.unwrap_err();
            assert!(matches!(&refused, CallError::TooLarge(text) if text.contains("1048576")), "{refused:?}");
            assert_eq!(budget.held(), 0);
        }
    }

    #[tokio::test]
    async fn broken_and_cut_off_compression_is_malformed_and_other_encodings_are_not_taken() {
        let budget = budget_of(16 << 20);
        let text = b"[1,2,3]".repeat(1_000);
        let (gz, zs) = (gzip(&text), zstd::encode_all(&text[..], 3).unwrap());
        for (data, encoding) in [
            (gz[..gz.len() - 4].to_vec(), "gzip"),
            (zs[..zs.len() - 4].to_vec(), "zstd"),
            (text.clone(), "gzip"),
            (text.clone(), "zstd"),
        ] {
            let refused = read_it(data, encoding, &budget).await.unwrap_err();
            assert!(matches!(refused, CallError::Malformed(_)), "{encoding}: {refused:?}");
        }
        for encoding in ["br", "deflate", "gzip, gzip", "gzip, zstd", "compress", "x\u{7f}"] {
            let Ok(value) = encoding.parse() else { continue };
            let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, value)]);
            let read = read(Body::empty(), &headers, &limits(), &Timeouts::default(), share(&budget)).await;
            assert!(matches!(read, Err(CallError::Encoding(_))), "{encoding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_drips_is_not_waited_for() {
        let budget = budget_of(16 << 20);
        let timeouts =
            Timeouts { idle: Duration::from_secs(5), body: Duration::from_secs(20), ..Timeouts::default() };
        let drip = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b" ")), ()))
        });
        let stopped = futures_util::stream::pending::<Result<Bytes, io::Error>>();
        for (body, waited) in [(Body::from_stream(drip), 20), (Body::from_stream(stopped), 5)] {
            let began = Instant::now();
            let read = read(body, &HeaderMap::new(), &limits(), &timeouts, share(&budget)).await;
            assert!(matches!(read, Err(CallError::TooSlow(_))));
            assert_eq!(began.elapsed().as_secs(), waited);
        }
        let cut = futures_util::stream::iter([Ok(Bytes::from_static(b"[")), Err(io::Error::other("gone"))]);
        let read =
            read(Body::from_stream(cut), &HeaderMap::new(), &limits(), &timeouts, share(&budget)).await;
        assert_eq!(read.unwrap_err(), CallError::CutOff);
    }

    #[tokio::test]
    async fn bodies_that_do_not_fit_together_are_refused_without_waiting() {
        let budget = budget_of(1 << 20);
        let held = read_it(vec![b' '; 700 << 10], "", &budget).await.unwrap();
        assert_eq!(read_it(vec![b' '; 700 << 10], "", &budget).await.unwrap_err(), CallError::Overloaded);
        drop(held);
        assert!(read_it(vec![b' '; 700 << 10], "", &budget).await.is_ok());
    }
}

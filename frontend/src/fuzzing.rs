//! A call's body on its way from bytes to readings, for fuzz targets: all that lies between credentials and broker.

use axum::body::Body;
use axum::http::header::InvalidHeaderValue;
use axum::http::{HeaderMap, HeaderValue, header};
use galerna_model::Reading;

use crate::answer::Rejected;
use crate::budget::{Budget, Client, Quota};
use crate::call_error::CallError;
use crate::options::{Limits, Timeouts};
use crate::{body, legacy_form, parse};

/// Where the body is posted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `POST /readings`.
    Readings,
    /// `POST /insert-json.htm`.
    LegacyForm,
}

/// What was read of a body.
#[derive(Debug)]
pub struct ReadBody {
    /// What would be published.
    pub readings: Vec<Reading>,
    /// How many entries of the body are in them.
    pub entries: usize,
    /// The other entries.
    pub rejected: Vec<Rejected>,
}

/// Why a body is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadBodyError {
    /// The name of the encoding is no value of a header.
    #[error("the encoding cannot be sent: {0}")]
    Encoding(#[from] InvalidHeaderValue),
    /// What the caller would be told.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The answer to a call that is not taken.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Refusal(#[from] CallError);

/// Reads a body with this `Content-Encoding`.
///
/// # Errors
/// [`ReadBodyError`].
pub async fn read_body(
    data: Vec<u8>,
    encoding: &str,
    route: Route,
    limits: &Limits,
) -> Result<ReadBody, ReadBodyError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(encoding)?);
    Ok(read(data, &headers, route, limits).await.map_err(Refusal)?)
}

async fn read(
    data: Vec<u8>,
    headers: &HeaderMap,
    route: Route,
    limits: &Limits,
) -> Result<ReadBody, CallError> {
    let bytes = 16 * limits.body_bytes;
    let share = Budget::new(bytes, Quota { bytes, calls: 1 }).call(Client::address(None))?;
    let held = body::read(Body::from(data), headers, limits, &Timeouts::default(), share).await?;
    let parsed = match route {
        Route::Readings => parse::readings(&held.bytes, limits)?,
        Route::LegacyForm => legacy_form::services(&held.bytes, limits)?.parsed.with_anything()?,
    };
    Ok(ReadBody { readings: parsed.readings, entries: parsed.entries, rejected: parsed.rejected })
}

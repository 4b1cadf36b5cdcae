//! A call's body on its way from bytes to readings, for fuzz targets: all that lies between credentials and broker.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use galerna_model::Reading;

use crate::answer::Rejected;
use crate::budget::{Budget, Client, Quota};
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

/// Reads a body with this `Content-Encoding`.
///
/// # Errors
/// What the caller would be told.
pub async fn read_body(
    data: Vec<u8>,
    encoding: &str,
    route: Route,
    limits: &Limits,
) -> Result<ReadBody, String> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(encoding).map_err(|e| e.to_string())?);
    let bytes = 16 * limits.body_bytes;
    let share = Budget::new(bytes, Quota { bytes, calls: 1 }).call(Client::address(None));
    let held =
        body::read(Body::from(data), &headers, limits, &Timeouts::default(), share.map_err(text)?).await;
    let held = held.map_err(text)?;
    let parsed = match route {
        Route::Readings => parse::readings(&held.bytes, limits),
        Route::LegacyForm => {
            legacy_form::services(&held.bytes, limits).and_then(|form| form.parsed.with_anything())
        }
    };
    let parsed = parsed.map_err(text)?;
    Ok(ReadBody { readings: parsed.readings, entries: parsed.entries, rejected: parsed.rejected })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

//! Records as documents that are pleasant for any client: times are dates, names are strings.

use bson::{Bson, DateTime, Document};
use galerna_model::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Result, StorageError};

pub(super) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.0)
}

pub(super) fn time(date: DateTime) -> Timestamp {
    Timestamp(date.timestamp_millis())
}

/// BSON's integers are signed: larger ones are stored as the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that was stored by [`int`].
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A record as a document under `id`, its fields `dates` as dates.
pub(super) fn to_document(id: impl Into<Bson>, record: &impl Serialize, dates: &[&str]) -> Result<Document> {
    let failed = |cause: String| StorageError::Failed { attempted: "encoding a record".to_owned(), cause };
    // By way of the binary form, in which times are numbers rather than text.
    let fields = bson::serialize_to_raw_document_buf(record).map_err(|e| failed(e.to_string()))?;
    let fields = Document::try_from(fields).map_err(|e| failed(e.to_string()))?;
    let mut document = Document::new();
    document.insert("_id", id);
    for (field, value) in fields {
        let value = match value {
            Bson::Int64(millis) if dates.contains(&field.as_str()) => {
                Bson::DateTime(DateTime::from_millis(millis))
            }
            value => value,
        };
        if field != "id" {
            document.insert(field, value);
        }
    }
    Ok(document)
}

/// A record from its document: dates become times, and a text as id the field `id`.
pub(super) fn from_document<T: DeserializeOwned>(document: Document) -> Result<T> {
    let mut fields = Document::new();
    for (field, value) in document {
        match (field.as_str(), value) {
            (_, Bson::DateTime(date)) => fields.insert(field, Bson::Int64(date.timestamp_millis())),
            ("_id", Bson::String(id)) => fields.insert("id", id),
            (_, value) => fields.insert(field, value),
        };
    }
    bson::deserialize_from_document(fields)
        .map_err(|e| StorageError::Failed { attempted: "decoding a record".to_owned(), cause: e.to_string() })
}

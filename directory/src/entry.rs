//! Single entries of a list, checked one by one so that a wrong one stops no other.

use galerna_model::{Account, Source};
use galerna_model::{AccountId, QueueName, SourceId};
use serde_json::{Map, Value};

use crate::{Issue, Listing};

/// An entry as a list carries it.
pub(super) trait Entry: Sized {
    /// The field of a page, or of a file, that holds the list.
    const LIST: &'static str;

    /// Checks one entry.
    fn read(fields: &Map<String, Value>) -> Result<Self, String>;
}

/// Sorts checked entries from wrong ones.
pub(super) fn collect<T: Entry>(values: impl IntoIterator<Item = Value>, into: &mut Listing<T>) {
    for value in values {
        let read = match &value {
            Value::Object(fields) => T::read(fields),
            other => Err(format!("the entry is {}, not an object", kind(other))),
        };
        match read {
            Ok(entry) => into.entries.push(entry),
            Err(problem) => {
                into.issues.push(Issue { id: shown(&value, "id"), queue: shown(&value, "queue"), problem })
            }
        }
    }
}

impl Entry for Account {
    const LIST: &'static str = "accounts";

    fn read(fields: &Map<String, Value>) -> Result<Self, String> {
        let id = AccountId::for_customer(id(fields, "id")?).map_err(|e| e.to_string())?;
        let name = match fields.get("name") {
            None | Some(Value::Null) => id.to_string(),
            Some(Value::String(name)) => name.clone(),
            Some(other) => return Err(format!("`name` is {}, not text", kind(other))),
        };
        let queue = match fields.get("queue") {
            Some(Value::String(queue)) => QueueName::for_customer(queue).map_err(|e| e.to_string())?,
            Some(other) => return Err(format!("`queue` is {}, not text", kind(other))),
            None => return Err("`queue` is missing".to_owned()),
        };
        Ok(Self { id, name, queue, active: active(fields)? })
    }
}

impl Entry for Source {
    const LIST: &'static str = "sources";

    fn read(fields: &Map<String, Value>) -> Result<Self, String> {
        let id_text = id(fields, "id")?;
        let token_hash = match fields.get("token_hash") {
            Some(Value::String(hash)) if !hash.is_empty() => hash.clone(),
            // Never shown: a wrong field may hold the token itself.
            Some(_) => return Err("`token_hash` is not text, or is empty".to_owned()),
            None => return Err("`token_hash` is missing".to_owned()),
        };
        Ok(Self {
            id: SourceId::for_customer(id_text).map_err(|e| e.to_string())?,
            account: AccountId::for_customer(id(fields, "account")?).map_err(|e| e.to_string())?,
            token_hash,
            active: active(fields)?,
        })
    }
}

/// A key: text, or an integer, which other systems use.
fn id(fields: &Map<String, Value>, field: &str) -> Result<String, String> {
    match fields.get(field) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(id.to_string()),
        Some(other) => Err(format!("`{field}` is {}, not text", kind(other))),
        None => Err(format!("`{field}` is missing")),
    }
}

/// Whether the entry is active; an entry that does not say is.
fn active(fields: &Map<String, Value>) -> Result<bool, String> {
    match fields.get("active") {
        None => Ok(true),
        Some(Value::Bool(active)) => Ok(*active),
        Some(other) => Err(format!("`active` is {}, not true or false", kind(other))),
    }
}

fn shown(entry: &Value, field: &str) -> Option<String> {
    match entry.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_entry_is_told_apart_and_stops_no_other() {
        let mut list = Listing::<Account>::default();
        collect(
            [
                json!({"id": "a", "name": "A", "queue": "Qa", "active": true}),
                json!({"id": 591, "queue": "D0000591", "active": false}),
                json!({"id": "b b", "queue": "Qb"}),
                json!({"id": "c", "queue": 7}),
                json!({"id": "d"}),
                json!({"queue": "Qe"}),
                json!({"id": "f", "queue": "Qf", "active": "yes"}),
                json!({"id": 1.5, "queue": "Qg"}),
                json!("h"),
                json!({"id": "i", "queue": "a/b"}),
                json!({"id": "j", "queue": "q".repeat(201)}),
                json!({"id": "k", "queue": ""}),
            ],
            &mut list,
        );
        let taken: Vec<_> =
            list.entries.iter().map(|a| (a.id.as_str(), a.queue.as_str(), a.active)).collect();
        assert_eq!(taken, [("a", "Qa", true), ("591", "D0000591", false)]);
        let problems: Vec<String> = list.issues.iter().map(ToString::to_string).collect();
        let expected = [
            "holds a space",
            "`queue` is a number",
            "`queue` is missing",
            "`id` is missing",
            "`active` is text",
            "`id` is a number",
            "the entry is text",
            "slash",
            "too long",
            "is empty",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem} should say: {expected}");
        }
    }

    #[test]
    fn a_wrong_source_never_shows_what_may_be_its_token() {
        let mut list = Listing::<Source>::default();
        collect(
            [
                json!({"id": "s", "account": "a", "token_hash": "h1", "active": true}),
                json!({"id": "t", "account": "a", "token_hash": {"secret": "hunter2"}}),
            ],
            &mut list,
        );
        assert_eq!(list.entries.len(), 1);
        assert_eq!(list.issues.len(), 1);
        assert!(!list.issues[0].to_string().contains("hunter2"));
    }
}

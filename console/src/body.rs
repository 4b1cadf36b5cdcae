//! Bodies of JSON calls: what is wrong with one is told by the name of its field.

mod json;

use json::{Json, ReadError};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// Objects with more fields, or deeper ones, are not searched for the one that is wrong.
const MOST_FIELDS: usize = 64;
const DEEPEST: usize = 4;
/// The field that says which variant of a type an object is.
const TAG: &str = "kind";

/// Reads a body; an empty one is an empty object.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    let value: Value = serde_json::from_slice(body)
        .map_err(|e| Problem::Invalid(format!("the body is not understood: {e}")))?;
    // What is read of an object could be read of a list too, by position.
    if !value.is_object() {
        return Err(Problem::Invalid("the body is not understood: send a JSON object".to_owned()));
    }
    T::deserialize(Json(&value)).map_err(|e| {
        let place = if e.names_field() { String::new() } else { place::<T>(&value, &e) };
        let at = if place.is_empty() { place } else { format!("`{place}`: ") };
        Problem::Invalid(format!("the body is not understood: {at}{e}"))
    })
}

/// The innermost field without which a value would be refused for another reason, or taken; empty when there is none. (What
/// is read by way of a buffer, as flattened and tagged types are, does not say where it was wrong.)
fn place<T: DeserializeOwned>(value: &Value, error: &ReadError) -> String {
    let is_at = |path: &[String]| {
        let mut without = value.clone();
        let (last, parents) = path.split_last()?;
        parents.iter().try_fold(&mut without, |at, name| at.get_mut(name))?.as_object_mut()?.remove(last);
        (T::deserialize(Json(&without)).err().as_ref() != Some(error)).then_some(())
    };
    let mut path: Vec<String> = Vec::new();
    let mut here = value;
    while let Some(fields) = here.as_object().filter(|f| f.len() <= MOST_FIELDS && path.len() < DEEPEST) {
        // Without the tag nothing at all is read: it is to blame only when no other is.
        let (tags, names): (Vec<_>, Vec<_>) = fields.keys().partition(|name| *name == TAG);
        let found = names.into_iter().chain(tags).find(|name| {
            path.push((*name).clone());
            let found = is_at(&path).is_some();
            path.pop();
            found
        });
        let Some(name) = found else { break };
        path.push(name.clone());
        here = &fields[name];
    }
    path.join(".")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)] // only whether it is read matters
    struct Call {
        #[serde(flatten)]
        rule: galerna_model::Rule,
        reason: Option<String>,
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let right = json!({"id": "r", "name": "n", "devices": "*", "severity": "info", "endpoints": [], "cooldown_ms": 0,
            "enabled": true, "condition": {"kind": "threshold", "parameter": 401, "comparison": "above", "limit": 1.0, "for_ms": 0}});
        assert!(read::<Call>(right.to_string().as_bytes()).is_ok());
        for (pointer, wrong, named) in [
            ("/severity", json!("grave"), "`severity`: unknown variant `grave`"),
            ("/name", json!(7), "`name`: invalid type"),
            ("/cooldown_ms", json!("soon"), "`cooldown_ms`: invalid type"),
            ("/endpoints", json!("ops"), "`endpoints`: invalid type"),
            ("/condition/limit", json!("a lot"), "`condition.limit`: invalid type"),
            ("/condition/comparison", json!("over"), "`condition.comparison`: unknown variant"),
            ("/condition/kind", json!("loud"), "`condition.kind`: unknown variant"),
        ] {
            let mut body = right.clone();
            *body.pointer_mut(pointer).unwrap() = wrong;
            let problem = read::<Call>(body.to_string().as_bytes()).unwrap_err().to_string();
            assert!(problem.contains(named), "{pointer}: {problem}");
        }
        let mut body = right.clone();
        body.as_object_mut().unwrap().remove("severity");
        body["reason"] = json!(null);
        let problem = read::<Call>(body.to_string().as_bytes()).unwrap_err().to_string();
        assert!(problem.ends_with("missing field `severity`"), "{problem}");
        assert!(read::<Call>(b"{\"id\"").unwrap_err().to_string().contains("line 1"));
        assert!(read::<Call>(b"").unwrap_err().to_string().contains("missing field"));
        assert!(read::<Call>(b"[1]").is_err());
        #[derive(Debug, Deserialize)]
        struct Reason {
            _reason: Option<String>,
        }
        assert!(read::<Reason>(b"[null]").unwrap_err().to_string().contains("JSON object"));
    }
}

//! Lists in a file: JSON or CSV, by the name's ending.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use galerna_model::{Account, Source};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;

use crate::entry::{Entry, collect};
use crate::{AccountsSource, DirectoryError, Listing, MAX_ENTRIES, SourcesSource};

/// Largest file read, in bytes.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// A list in a file, read afresh each time.
///
/// - `*.json`: a list of entries, or an object whose field `accounts` (`sources`) is that list. One file may hold both.
/// - `*.csv`: a header and one entry a line. Accounts have the columns `id,name,queue,active`, sources
///   `id,account,token_hash,active`; `name` and `active` (`true` or `false`) may be left out, other columns are ignored.
///
/// Replace such a file by renaming a complete one over it. A file that is cut off inside an entry is an error; one
/// that is cut off between lines cannot be told from a shorter list, except by the guard against sudden losses.
#[derive(Debug, Clone)]
pub struct FileDirectory {
    path: PathBuf,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Csv,
}

impl FileDirectory {
    /// Reads this file.
    ///
    /// # Errors
    /// [`DirectoryError::Invalid`] when the name ends in neither `.json` nor `.csv`. The file need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = path.into();
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let form = match ending.as_deref() {
            Some("json") => Form::Json,
            Some("csv") => Form::Csv,
            _ => {
                return Err(DirectoryError::Invalid(format!(
                    "cannot tell the form of list file `{}`; name it *.json or *.csv",
                    path.display()
                )));
            }
        };
        Ok(Self { path, form })
    }

    async fn read<T: Entry>(&self) -> Result<Listing<T>, DirectoryError> {
        let bytes = read_file(&self.path).await?;
        self.list(&bytes)
    }

    /// The list that the file is when it has these bytes.
    pub(crate) fn list<T: Entry>(&self, bytes: &[u8]) -> Result<Listing<T>, DirectoryError> {
        let values = match self.form {
            Form::Json => json_entries(bytes, T::LIST),
            Form::Csv => csv_entries(bytes),
        };
        let values = values.map_err(|cause| DirectoryError::Malformed { from: self.shown(), cause })?;
        if values.len() > MAX_ENTRIES {
            return Err(DirectoryError::TooLarge { from: self.shown(), limit: MAX_ENTRIES, unit: "entries" });
        }
        let mut list = Listing::default();
        collect(values, &mut list);
        Ok(list)
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, DirectoryError> {
    let failed =
        |e: io::Error| DirectoryError::Unreachable { from: path.display().to_string(), cause: e.to_string() };
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        return Err(DirectoryError::TooLarge {
            from: path.display().to_string(),
            limit: MAX_BYTES,
            unit: "bytes",
        });
    }
    Ok(bytes)
}

fn json_entries(bytes: &[u8], list: &str) -> Result<Vec<Value>, String> {
    match serde_json::from_slice(bytes).map_err(|e| format!("it is not JSON: {e}"))? {
        Value::Array(entries) => Ok(entries),
        Value::Object(mut fields) => match fields.remove(list) {
            Some(Value::Array(entries)) => Ok(entries),
            Some(_) => Err(format!("its field `{list}` is not a list")),
            None => Err(format!("it has no field `{list}`")),
        },
        _ => Err("it is neither a list nor an object".to_owned()),
    }
}

fn csv_entries(bytes: &[u8]) -> Result<Vec<Value>, String> {
    // A line with fewer or more fields than the header is an error of the whole file: it may be cut off there.
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|e| format!("it is not CSV: {e}"))?.clone();
    if !header.iter().any(|column| column == "id") {
        return Err("its header has no column `id`".to_owned());
    }
    let mut entries = Vec::new();
    for line in reader.records() {
        let line = line.map_err(|e| format!("it is not CSV: {e}"))?;
        let mut fields = Map::new();
        for (column, value) in header.iter().zip(line.iter()) {
            let value = match (column, value) {
                ("name" | "active", "") => continue,
                ("active", "true" | "TRUE" | "True" | "1") => Value::Bool(true),
                ("active", "false" | "FALSE" | "False" | "0") => Value::Bool(false),
                (_, text) => Value::String(text.to_owned()),
            };
            fields.insert(column.to_owned(), value);
        }
        entries.push(Value::Object(fields));
    }
    Ok(entries)
}

#[async_trait]
impl AccountsSource for FileDirectory {
    fn describe(&self) -> String {
        format!("accounts file {}", self.shown())
    }

    async fn accounts(&self) -> Result<Listing<Account>, DirectoryError> {
        self.read().await
    }
}

#[async_trait]
impl SourcesSource for FileDirectory {
    fn describe(&self) -> String {
        format!("sources file {}", self.shown())
    }

    async fn sources(&self) -> Result<Listing<Source>, DirectoryError> {
        self.read().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn accounts(name: &str, text: &str) -> Result<Listing<Account>, DirectoryError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        FileDirectory::new(path)?.accounts().await
    }

    #[tokio::test]
    async fn json_and_csv_say_the_same() {
        let cases = [
            (
                "a.json",
                r#"[{"id":"a","name":"A","queue":"Qa","active":true},{"id":"b","queue":"Qb","active":false}]"#,
            ),
            (
                "a.json",
                r#"{"accounts":[{"id":"a","name":"A","queue":"Qa"},{"id":"b","queue":"Qb","active":false}],"sources":[]}"#,
            ),
            ("a.csv", "id,name,queue,active\na,A,Qa,true\nb,,Qb,false\n"),
            ("a.CSV", "queue,id,town,name,active\r\nQa, a ,Vigo,A,\r\nQb,b,Bilbao,,0\r\n"),
        ];
        for (name, text) in cases {
            let list = accounts(name, text).await.expect(text);
            assert_eq!(list.issues, [], "{text}");
            let got: Vec<_> = list
                .entries
                .iter()
                .map(|a| (a.id.as_str(), a.name.as_str(), a.queue.as_str(), a.active))
                .collect();
            assert_eq!(got, [("a", "A", "Qa", true), ("b", "b", "Qb", false)], "{text}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_off_or_of_another_form_is_an_error_and_never_a_short_list() {
        let cases = [
            ("a.json", r#"[{"id":"a","queue":"Qa"},{"id":"b","#, "not JSON"),
            ("a.json", "", "not JSON"),
            ("a.json", "7", "neither a list"),
            ("a.json", r#"{"customers":[]}"#, "no field `accounts`"),
            ("a.json", r#"{"accounts":{}}"#, "not a list"),
            ("a.csv", "id,queue,active\na,Qa,true\nb,Qb", "not CSV"),
            ("a.csv", "", "no column `id`"),
            ("a.csv", "number,queue\n1,Q1\n", "no column `id`"),
            ("a.txt", "id,queue\n", "*.json or *.csv"),
        ];
        for (name, text, expected) in cases {
            let error = accounts(name, text).await.expect_err(text).to_string();
            assert!(error.contains(expected), "{error} should say: {expected}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error() {
        let error = FileDirectory::new("/nonexistent/accounts.json").unwrap().accounts().await.unwrap_err();
        assert!(matches!(error, DirectoryError::Unreachable { .. }), "{error}");
    }

    #[tokio::test]
    async fn the_documented_examples_are_lists_without_fault() {
        let example = |name: &str| {
            FileDirectory::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name))
                .unwrap()
        };
        for (accounts, sources) in [("accounts.csv", "sources.csv"), ("directory.json", "directory.json")] {
            let accounts = example(accounts).accounts().await.unwrap();
            let sources = example(sources).sources().await.unwrap();
            assert_eq!((&accounts.issues, &sources.issues), (&Vec::new(), &Vec::new()));
            let known: Vec<_> =
                accounts.entries.iter().map(|a| (a.id.as_str(), a.queue.as_str(), a.active)).collect();
            assert_eq!(
                known,
                [("Panther", "Panther", true), ("591", "D0000591", true), ("Cockatoo", "Cockatoo", false)]
            );
            let known: Vec<_> =
                sources.entries.iter().map(|s| (s.id.as_str(), s.account.as_str(), s.active)).collect();
            assert_eq!(
                known,
                [
                    ("panther-roof", "Panther", true),
                    ("acme-hub-1", "591", true),
                    ("acme-hub-0", "591", false)
                ]
            );
            for source in sources.entries {
                let token = format!("example-token-of-{}", source.id);
                assert!(
                    crate::TokenHash::parse(&source.token_hash).unwrap().matches(&token),
                    "{}",
                    source.id
                );
            }
        }
    }
}

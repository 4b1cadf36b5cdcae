//! Who is told: lists of mail addresses, in SQLite ([`embedded`]) or in MongoDB ([`mongo`]).

pub mod embedded;
pub mod mongo;

use std::sync::Arc;

use async_trait::async_trait;
use lettre::Address;
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreError;

/// Most characters of a list's name.
const LONGEST_NAME: usize = 100;

/// A list, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct List {
    /// Its name; no two have the same.
    pub name: String,
    /// Its mail addresses, in the order in which they came; no two are the same but for upper and lower case.
    pub contacts: Vec<String>,
}

impl List {
    /// The address with this [`key`], as it is written here.
    pub fn find(&self, wanted: &str) -> Option<&str> {
        // Without a copy of each in lower case, as long as all are ASCII.
        let is_wanted = |contact: &str| match contact.is_ascii() {
            true => contact.eq_ignore_ascii_case(wanted),
            false => key(contact) == wanted,
        };
        self.contacts.iter().map(String::as_str).find(|contact| is_wanted(contact))
    }

    /// Whether an address with this [`key`] is in it.
    pub fn has(&self, wanted: &str) -> bool {
        self.find(wanted).is_some()
    }
}

/// What became of something that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    Yes,
    /// It was there already.
    Exists,
    /// The list that it was to be added to does not exist.
    NoList,
}

/// What became of something that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes,
    /// It was not there.
    Unknown,
    /// Nor is its list.
    NoList,
}

/// A mail address that is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    address: String,
    key: String,
}

/// What is wrong with a name or an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Contact {
    /// Checks an address.
    ///
    /// # Errors
    /// When mail cannot go there.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let shown: String = text.chars().take(100).collect();
        let address: Address = text.parse().map_err(|e| {
            Refused(format!("`{shown}` is no mail address: {e}; write for instance ada@example.com"))
        })?;
        Ok(Self { address: address.to_string(), key: key(text) })
    }

    /// As it was written.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What tells it from others of its list.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What addresses have in common that differ in upper and lower case only.
pub fn key(address: &str) -> String {
    address.to_lowercase()
}

/// Checks the name of a list.
///
/// # Errors
/// When it is empty, too long, or has control characters or space around it.
pub fn check_name(name: &str) -> Result<(), Refused> {
    let reason = if name.is_empty() {
        "the name is empty; write for instance maintenance"
    } else if name.chars().count() > LONGEST_NAME {
        "the name is longer than 100 characters"
    } else if name.chars().any(char::is_control) {
        "the name has control characters"
    } else if name.trim() != name {
        "the name begins or ends with a space"
    } else if matches!(name, "." | "..") {
        // Clients take them out of paths.
        "the name is `.` or `..`, which no path can name"
    } else {
        return Ok(());
    };
    Err(Refused(reason.to_owned()))
}

/// Lists. Of any number of callers that add the same at the same time, one does.
#[async_trait]
pub trait Lists: Send + Sync + 'static {
    /// All of them, by name.
    async fn all(&self) -> Result<Vec<Arc<List>>, StoreError>;
    /// One of them.
    async fn get(&self, name: &str) -> Result<Option<Arc<List>>, StoreError>;
    /// Adds an empty list.
    async fn create(&self, name: &str) -> Result<Added, StoreError>;
    /// Removes a list with its contacts; whether there was one.
    async fn remove(&self, name: &str) -> Result<bool, StoreError>;
    /// Adds a contact to a list.
    async fn add(&self, list: &str, contact: &Contact) -> Result<Added, StoreError>;
    /// Removes a contact by its [`key`].
    async fn drop_contact(&self, list: &str, key: &str) -> Result<Removed, StoreError>;
    /// Lets go of everything; later calls fail.
    async fn close(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_mail_can_go_to() {
        for (text, ok) in [
            ("ada@example.com", true),
            ("Ada.Lovelace+press@Example.COM", true),
            ("", false),
            ("ada", false),
            ("ada@", false),
            ("@example.com", false),
            ("ada@example..com", false),
            ("ada lovelace@example.com", false),
            ("ada@example.com, eve@example.com", false),
            ("ada@example.com\r\nBcc: eve@example.com", false),
            ("Ada <ada@example.com>", false),
        ] {
            assert_eq!(Contact::parse(text).is_ok(), ok, "{text}");
        }
        let (one, other) =
            (Contact::parse("Ada@Example.com").unwrap(), Contact::parse("ada@example.COM").unwrap());
        assert_eq!(one.key(), other.key());
        assert_eq!(one.address(), "Ada@Example.com");
    }

    #[test]
    fn an_address_is_found_in_whatever_case() {
        let contacts = ["Ada@Example.com", "jürgen@example.com", "ada@example.org"].map(str::to_owned);
        let list = List { name: "maintenance".to_owned(), contacts: contacts.into() };
        for (wanted, found) in [
            ("ADA@example.COM", Some("Ada@Example.com")),
            ("JÜRGEN@EXAMPLE.COM", Some("jürgen@example.com")),
            ("ada@example.org", Some("ada@example.org")),
            ("ada@example.net", None),
            ("", None),
        ] {
            assert_eq!(list.find(&key(wanted)), found, "{wanted}");
        }
    }

    #[test]
    fn a_name_is_short_and_visible() {
        let long = "x".repeat(101);
        for (name, ok) in [
            ("maintenance", true),
            ("Schicht 1", true),
            ("", false),
            (" x", false),
            ("a\tb", false),
            (".", false),
            ("..", false),
            ("...", true),
            (&long, false),
        ] {
            assert_eq!(check_name(name).is_ok(), ok, "{name}");
        }
    }
}

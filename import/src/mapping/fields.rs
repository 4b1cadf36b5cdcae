//! Where a mapping takes texts from, and what it asks of them.

use serde::Deserialize;

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Field {
    /// It is always this.
    Fixed(String),
    /// The row's field in a column.
    Column(ColumnField),
    /// A field of the lines before the header.
    Preamble(Label),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnField {
    pub(crate) column: String,
    /// Files may lack the column.
    #[serde(default)]
    pub(crate) optional: bool,
}

/// A field of the lines before the header, by the label that it stands beside.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) enum Label {
    /// It stands after this label.
    #[serde(rename = "preamble")]
    After(String),
    /// It stands below this label.
    #[serde(rename = "preamble_below")]
    Below(String),
}

impl Label {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::After(label) | Self::Below(label) => label,
        }
    }
}

/// A kind of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct When {
    pub(crate) column: String,
    pub(crate) equals: OneOrMore,
}

/// A kind of files: what stands after or below a label before the header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct WhenFile {
    #[serde(flatten)]
    pub(crate) label: Label,
    pub(crate) equals: OneOrMore,
}

/// What a value is read of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Condition {
    Row(When),
    File(WhenFile),
}

/// Conditions that hold together.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Conditions {
    One(Condition),
    All(Vec<Condition>),
}

impl Conditions {
    fn all(&self) -> &[Condition] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::All(all) => all,
        }
    }

    /// What is asked of rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &When> {
        self.all().iter().filter_map(|condition| match condition {
            Condition::Row(when) => Some(when),
            Condition::File(_) => None,
        })
    }

    /// What is asked of the file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &WhenFile> {
        self.all().iter().filter_map(|condition| match condition {
            Condition::File(when) => Some(when),
            Condition::Row(_) => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    pub(crate) fn has(&self, text: &str) -> bool {
        self.iter().any(|one| one == text)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
        .iter()
        .map(String::as_str)
    }
}

//! The numbers that live on pages: each has a name (`data-cell` of its elements), a text, and a tone that its text repeats in words.

use std::collections::BTreeMap;

use maud::{Markup, html};

/// How something stands; never told by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As anything.
    Plain,
    /// Well.
    Good,
    /// To be looked at.
    Warn,
    /// Wrong.
    Bad,
}

impl Tone {
    /// Its name in `data-tone`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Texts and tones by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cells(pub BTreeMap<String, (String, &'static str)>);

impl Cells {
    /// Sets one.
    pub fn set(&mut self, id: impl Into<String>, text: impl Into<String>, tone: Tone) {
        self.0.insert(id.into(), (text.into(), tone.as_str()));
    }

    /// Sets one that has no tone.
    pub fn plain(&mut self, id: impl Into<String>, text: impl Into<String>) {
        self.set(id, text, Tone::Plain);
    }

    /// An element that shows it.
    pub fn show(&self, id: &str) -> Markup {
        let (text, tone) = self.0.get(id).map_or(("–", "plain"), |(text, tone)| (text.as_str(), *tone));
        html! { span.live data-cell=(id) data-tone=(tone) { (text) } }
    }

    /// It as a pill.
    pub fn pill(&self, id: &str) -> Markup {
        let (text, tone) = self.0.get(id).map_or(("–", "plain"), |(text, tone)| (text.as_str(), *tone));
        html! { span.pill data-cell=(id) data-tone=(tone) { (text) } }
    }

    /// It within a drawing.
    pub fn svg(&self, id: &str, x: f64, y: f64, class: &str) -> Markup {
        let (text, tone) = self.0.get(id).map_or(("–", "plain"), |(text, tone)| (text.as_str(), *tone));
        html! { text.(class) data-cell=(id) data-tone=(tone) x=(x) y=(y) { (text) } }
    }

    /// What differs from what was sent before.
    pub fn since(&self, before: &Self) -> BTreeMap<&str, (&str, &str)> {
        let changed = self.0.iter().filter(|(id, cell)| before.0.get(*id) != Some(cell));
        changed.map(|(id, (text, tone))| (id.as_str(), (text.as_str(), *tone))).collect()
    }
}

/// How full a component is: a bolt near its capacity holds up the others.
pub fn capacity_tone(capacity: Option<f64>) -> Tone {
    match capacity {
        Some(c) if c >= 0.95 => Tone::Bad,
        Some(c) if c >= 0.8 => Tone::Warn,
        _ => Tone::Plain,
    }
}

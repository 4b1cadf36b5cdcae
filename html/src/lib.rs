//! What the pages have in common: their looks, lists, live numbers, and the drawing of a topology.
//!
//! ```
//! use galerna_html::graph::Graph;
//! use galerna_html::cells::{Cells, Tone};
//!
//! let graph: Graph = serde_json::from_str(
//!     r#"{"name": "words", "components": [{"id": "lines", "kind": "spout"}, {"id": "split", "inputs": [{"component": "lines"}]}]}"#,
//! )?;
//! let mut cells = Cells::default();
//! cells.set("c-split-failed", "2", Tone::Warn);
//! let drawing = graph.draw(&cells, |_| None).into_string();
//! assert!(drawing.contains("split"));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! It serves nothing and knows no module of the product: who has a page makes it of these.

pub mod assets;
pub mod cells;
pub mod format;
pub mod frame;
pub mod graph;
pub mod query;
pub mod table;

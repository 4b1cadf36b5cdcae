//! Fuzz targets of what reads other people's bytes: one function each, which panics when a promise is broken.
//!
//! | target | reads | seeds |
//! |---|---|---|
//! | `envelope`, `json` | messages of the broker | made by the tests |
//! | `http_body` | bodies of calls: encoding, JSON, legacy form | `fuzz/corpus/http_body` |
//! | `csv`, `grid`, `green_button` | exports of meters | `import/tests/data` |
//! | `ndjson` | readings, one or a list of them a line | `import/tests/data/cases`, `fuzz/corpus/ndjson` |
//! | `lists` | lists of accounts and of sources | `fuzz/corpus/lists` |
//! | `mapping` | mapping files | `import/src/mappings` |
//!
//! The tests of this crate run each for a bounded number of mutated inputs, always the same ones. For as long as you like,
//! guided by coverage, with a nightly compiler:
//!
//! ```sh
//! cargo +nightly fuzz run --features libfuzzer csv fuzz/corpus/csv import/tests/data/cases
//! ```
//!
//! The first folder gets what was found, and the others are only read.

mod codec;
mod files;
mod http;
mod lists;
mod mutate;

pub use codec::{envelope, json};
pub use files::{csv, green_button, grid, mapping, ndjson};
pub use http::http_body;
pub use lists::lists;
pub use mutate::{Mutator, run};

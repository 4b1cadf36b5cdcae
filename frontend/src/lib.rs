//! Where concentrators post their readings.
//!
//! A call is answered 202 only after the broker has confirmed every reading that the answer counts as accepted; whatever
//! happens before, the sender is told to send again. The crate is a library with an axum service; the `galerna` binary runs it.
//!
//! | call | answer |
//! |---|---|
//! | `POST /readings?source_key=<id>&x-dexcell-source-token=<token>` | 202 `{"accepted":n,"rejected":[{"index","reason"}]}`, or an error |
//! | `POST /insert-json.htm` | the same, for a form whose field `data` holds the legacy body |
//! | `GET /healthz`, `GET /readyz` | 200 while the process serves; 200 while it is worth sending calls to, with details |
//! | `GET /metrics`, `GET /openapi.json` | Prometheus text; the description of this API |
//! | `GET /statistics`, `POST /sources/refresh` | for operators, with their token |
//!
//! The token may also come as header `x-dexcell-source-token`. Errors are `{"error":{"code","message"}}`:
//!
//! | status | when |
//! |---|---|
//! | 400 | malformed JSON (with line and column), an empty or cut-off body, no reading that can be taken |
//! | 401 | wrong token or unknown source: the same answer at the same cost |
//! | 408 | the body came too slowly |
//! | 413 | body too long, compressed or not, or too many readings |
//! | 415 | an encoding other than gzip and zstd |
//! | 429 | the source sends too much, or has too much under way; `Retry-After` says when to come back |
//! | 503 | the broker is unavailable or blocks, too much is under way, or no list of sources is known; with `Retry-After` |
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use galerna_broker::Broker;
//! use galerna_model::SystemClock;
//! use galerna_frontend::{Directory, Frontend, Options, Parts};
//! use galerna_directory::FileDirectory;
//!
//! # async fn example(broker: Arc<dyn Broker>) -> Result<(), Box<dyn std::error::Error>> {
//! let parts = Parts {
//!     broker,
//!     directory: Directory {
//!         accounts: Arc::new(FileDirectory::new("accounts.csv")?),
//!         sources: Arc::new(FileDirectory::new("sources.csv")?),
//!     },
//!     hints: None,
//!     statistics: galerna_storage::sqlite::in_memory()?.statistics,
//!     clock: Arc::new(SystemClock),
//!     registry: galerna_http::metrics::process_registry("1.0.0")?,
//! };
//! let frontend = Frontend::open(parts, Options::default()).await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! frontend.serve(listener, async { drop(tokio::signal::ctrl_c().await) }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants and boundaries
//!
//! - No 2xx for a reading that the broker has not confirmed.
//! - Memory is bounded whatever is sent: by connections, by the bytes of bodies and the readings under way.
//! - One source, or one address that has not proved who it is, holds a share of places and memory and never all of them.
//! - A token is only ever compared by its hash; no log line, error or metric holds one, nor a query string.
//! - It knows the broker, the lists and the dispatcher by their traits and stores no reading.

mod admission;
mod answer;
mod body;
mod budget;
mod call_error;
mod disk_copy;
mod frontend;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hints;
mod legacy_form;
mod metrics;
mod options;
mod parse;
mod service;
mod sources;
pub mod statistics;
mod trace_context;

pub use answer::{Accepted, Rejected};
pub use frontend::{Frontend, OpenError, Parts, Readiness};
pub use galerna_directory::{TokenHash, TokenHashError};
pub use galerna_http::ServeError;
pub use hints::QueueHints;
pub use options::{Limits, Options, OptionsError, Rate, SourcesOptions, StatisticsOptions, Timeouts};
pub use sources::{Directory, RefreshError, Refreshed};
pub use statistics::Statistics;

/// How often what can be forgotten is looked for.
const FORGET_IDLE_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

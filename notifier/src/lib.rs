//! Tells endpoints of alerts: by HTTP, by mail, or in the log.
//!
//! A [`Notifier`] takes alert events from the broker's queue [`ALERTS_QUEUE`], looks up whom to tell, writes a delivery for
//! each endpoint into the outbox (`galerna_storage::Notifications`), and acks the event only then. From the outbox it
//! delivers, tries again, and writes down what came of it. Any number of notifiers may share a broker and a store.
//!
//! ```
//! use std::sync::Arc;
//!
//! use galerna_model::{Clock, SystemClock};
//! use galerna_notifier::{Notifier, Options, Parts, put_endpoint};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = galerna_broker::open("embedded::memory:").await?;
//! let store = galerna_storage::sqlite::in_memory()?;
//! let endpoint = serde_json::from_str(r#"{"id": "log", "name": "The log", "kind": "log"}"#)?;
//! put_endpoint(&store, &endpoint).await?;
//!
//! let clock: Arc<dyn Clock> = Arc::new(SystemClock);
//! let notifier = Notifier::open(Parts { broker, store: store.clone(), clock, registry: Default::default() }, Options::default()).await?;
//! let stop = CancellationToken::new();
//! let running = notifier.spawn(stop.clone());
//!
//! let delivery = notifier.test_fire("log").await?;
//! # let delivered = async { while store.notifications.delivery(&delivery).await.unwrap().unwrap().attempts.is_empty() {
//! #     tokio::time::sleep(std::time::Duration::from_millis(10)).await } };
//! # tokio::time::timeout(std::time::Duration::from_secs(60), delivered).await?;
//! stop.cancel();
//! running.await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **At least once.** An event that was taken from the broker is delivered, or is in the outbox as dead or suppressed with
//!   the reason, whatever crashes when. What was sent, and not recorded before a crash, is sent again, with the same id
//!   (`webhook-id`, `Message-ID`), from which receivers know it.
//! - **Each event once per endpoint**, however often and through however many notifiers it comes; without a crash, each is
//!   sent once.
//! - **No recovery before its alert.** A recovery goes to those endpoints that its alert went to, after the alert was
//!   delivered there, though the broker give them in another order. If its alert was not delivered (over before its
//!   silence or its cooldown, given up), the recovery is suppressed, with the reason; and who was told of an alert is told of its end,
//!   silence or not. Of a group, only such recoveries are left out, and its reason says so. Deliveries of one alert (rule, source, device) to one endpoint keep the order in which they came to the outbox.
//! - **A cooldown delays, and hides nothing.** An alert that comes within its endpoint's cooldown
//!   ([`Endpoint::cooldown_ms`](galerna_storage::Endpoint::cooldown_ms)) after the same alert was sent is put into the outbox
//!   as pending, and held back until the cooldown is over (`held_until`). If it fires still, it is sent then, under
//!   the same id, unless its rule does not tell the endpoint any more; when it is silenced by then, it waits for the end of that; the next cooldown counts from
//!   then. If it resolves before, both are suppressed. So nobody is left with a recovery as the last word on an
//!   alert that goes on for longer than the cooldown.
//! - **A silence delays, and hides nothing that goes on.** An alert that comes under a silence is held back until that ends, in the
//!   same way: if it fires still, it is told once then; if it resolves before, neither is told. [`end_silence`] ends one early.
//! - **One at a time.** A delivery is claimed by one notifier for [`Options::lease`]; an attempt begins and ends within the
//!   claim, by this process's monotonic clock. An endpoint that hangs takes up its share
//!   ([`Options::per_endpoint`]) of the attempts, and no more.
//! - **Bounded.** Attempts, answers, templates, groups and memory have limits; what has ended is forgotten after
//!   [`Options::keep`].
//!
//! # What a receiver does
//!
//! | answer | what it means |
//! |---|---|
//! | 2xx | delivered |
//! | 410 | the endpoint is disabled, with the reason; the delivery is dead |
//! | 429, 503 with `Retry-After` | tried again, not before |
//! | anything else, redirects too, no answer, no HTTP | tried again by [`RetrySchedule`], then dead |
//! | SMTP 4xx, no connection | tried again |
//! | SMTP 5xx | dead |
//! | an internal address, a template that fails, no mail server | dead at once: trying again would not help |
//!
//! What is dead can be sent again (`galerna_storage::Notifications::resend`), under its id. Its recovery, if that was withheld
//! meanwhile, stays so: who wants that sent too sends it again, and it goes after its alert, or is withheld as long as that
//! is not delivered. What a cooldown or a silence holds back goes out at once when it is sent again.
//!
//! Webhooks with a secret are signed by [Standard Webhooks](https://www.standardwebhooks.com); those without have its other
//! headers all the same. Templates and what they see are described in the source of `template.rs`; the default ones are in
//! `templates/`. [`validate`] tries them before an endpoint is stored.
//!
//! # Internal addresses
//!
//! Who may create an endpoint must not thereby reach into the network. Loopback, private, link-local, shared, multicast and
//! reserved addresses are refused in every spelling, IPv4 in IPv6 too, unless [`Options::allow`] has them. Names are
//! resolved here, and the connection is made to the addresses that were checked. Redirects are not followed, proxies of the
//! environment not used. The mail server is the operator's own and may be anywhere.
//!
//! # Limits
//!
//! - Claims and due times are compared by the wall clocks of the notifiers, which should agree to within a few seconds: one
//!   whose clock is ahead by more than a claim takes over deliveries that are being attempted, and sends them twice.
//! - A process that is stopped in the middle of a send, and continued after its claim has run out, may still complete that
//!   send: a copy of an alert may then come after its recovery. Nothing on this side can prevent that; the id tells.
//! - Grouping is per endpoint, and does not wait: an event that comes while its group is being sent begins another group.
//!   Two notifiers that begin a group at the same moment make two of them.
//! - What is held back counts as pending, in the metrics too. Of one alert and endpoint the newest 50 deliveries are
//!   looked at: one that flaps more than 25 times within its cooldown may be sent before that is over.
//! - A mail goes to all addresses of its endpoint at once; when the server refuses one, all of it failed.
//! - Secrets and headers are stored as they are, since they must be sent; show endpoints as
//!   [`redacted`](galerna_storage::Endpoint::redacted). A URL is shown without its query; keep keys out of its path.
//! - That an event was taken is remembered for ever, as events themselves are: one small record each.
//!
//! The crate knows the broker and the store by their traits only, and serves no HTTP: pages and APIs call its functions.

mod addresses;
mod attempt;
mod check;
mod delivering;
mod due;
mod error;
mod hold;
mod intake;
mod mail;
mod metrics;
mod notifier;
mod options;
mod routing;
mod senders;
mod signature;
mod silence;
mod template;
mod trial;
mod webhook;

pub use addresses::{AllowList, AllowListError};
pub use check::{validate, validate_silence};
pub use error::{FieldError, NotifierError};
pub use notifier::{ALERTS_QUEUE, Notifier, Parts};
pub use options::{Options, RetrySchedule, Smtp};
pub use signature::{new_secret, verify};
pub use silence::{end_silence, put_silence};
pub use trial::{put_endpoint, test_fire, test_fire_rule};

//! Every setting there is: its name, what it takes, its default, and what it is for.
//!
//! One table serves the file, the environment, the flags, the error messages and `galerna config`, so that none of
//! them can disagree with another.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use galerna_model::{Timestamp, names_host};

/// What a setting takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// A whole number in a range, both ends included.
    Count(u64, u64),
    /// A time span in a range, in milliseconds, both ends included.
    Span(u64, u64),
    /// Texts with commas between them.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An address to listen on.
    Listen,
    /// An instant: RFC 3339 with an offset.
    Time,
    /// One of these words, or a URL with one of these schemes.
    Url { words: &'static [&'static str], schemes: &'static [&'static str] },
    /// Nothing, or URLs with one of these schemes and commas between them, which stay one text.
    Urls { schemes: &'static [&'static str] },
}

/// A setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted name: table and key of `galerna.toml`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As it would be written in the file; empty when it is unset.
    pub(crate) default: &'static str,
    /// Never shown.
    pub(crate) secret: bool,
    pub(crate) about: &'static str,
}

impl Key {
    /// The environment variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("GALERNA_{}", self.name.to_uppercase().replace('.', "_"))
    }
}

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, default, secret: false, about }
}

const fn secret(name: &'static str, about: &'static str) -> Key {
    Key { name, kind: Kind::Text, default: "", secret: true, about }
}

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const HTTP: Kind = Kind::Url { words: &[""], schemes: &["http", "https"] };

/// All settings, in the order in which they are shown.
pub(crate) static KEYS: &[Key] = &[
    key("data", Kind::Text, ".galerna", "folder of the embedded broker and store"),
    key(
        "broker.url",
        Kind::Url { words: &["embedded"], schemes: &["amqp", "amqps"] },
        "embedded",
        "where the queues are",
    ),
    key(
        "broker.management_url",
        HTTP,
        "",
        "RabbitMQ's management API; empty: port 15672 of the broker's host",
    ),
    key(
        "broker.queue_type",
        Kind::Choice(&["quorum", "classic"]),
        "quorum",
        "kind of RabbitMQ queue declared",
    ),
    key(
        "broker.max_deliveries",
        Kind::Count(1, 1_000),
        "5",
        "deliveries of a message before it becomes a dead letter",
    ),
    key(
        "broker.retry_delay",
        Kind::Span(10, HOUR),
        "1s",
        "delay before a failed message comes again; the later ones are 5, 30 and 120 times it",
    ),
    key(
        "store.url",
        Kind::Url { words: &["embedded"], schemes: &["mongodb", "mongodb+srv"] },
        "embedded",
        "where states and readings are",
    ),
    key("api.listen", Kind::Listen, "127.0.0.1:7676", "address of the dispatcher's API"),
    secret("api.token", "token that every API call must carry; required to listen beyond loopback"),
    key(
        "dispatcher.url",
        Kind::Urls { schemes: &["http", "https"] },
        "http://127.0.0.1:7676",
        "the dispatchers that workers, frontends, pages and commands talk to: the first that answers is asked",
    ),
    key("dispatcher.strategy", Kind::Choice(&["fifo", "lru", "fair"]), "lru", "how the next queue is chosen"),
    key("dispatcher.lease", Kind::Span(500, DAY), "60s", "length of a lease"),
    key("maintainer.listen", Kind::Listen, "127.0.0.1:7677", "address at which the maintainer answers pings"),
    key("maintainer.url", HTTP, "http://127.0.0.1:7677", "the maintainer that the dispatcher pings"),
    key(
        "maintainer.accounts",
        Kind::Text,
        "store",
        "where accounts come from: `store`, an http(s) URL of a paged JSON API, or a `.json` or `.csv` file",
    ),
    secret("maintainer.accounts_token", "bearer token of the accounts API"),
    key("maintainer.accounts_every", Kind::Span(100, DAY), "60s", "interval of the accounts task"),
    key("maintainer.empties_every", Kind::Span(50, DAY), "2s", "interval of the empties task"),
    key("maintainer.timeouts_every", Kind::Span(50, DAY), "5s", "interval of the timeouts task"),
    key("maintainer.deletions_every", Kind::Span(100, DAY), "60s", "interval of the deletions task"),
    key(
        "maintainer.deletion_grace",
        Kind::Span(0, 365 * DAY),
        "7d",
        "how long a flagged queue that still holds messages is kept",
    ),
    key(
        "maintainer.deletion_linger",
        Kind::Span(0, 365 * DAY),
        "5m",
        "how long a flagged queue without messages is kept; longer than the longest delay of redelivery",
    ),
    key(
        "maintainer.guard_keep_percent",
        Kind::Count(0, 100),
        "80",
        "an accounts list that keeps less of the known queues, in percent, is not believed",
    ),
    key(
        "maintainer.guard_may_lose",
        Kind::Count(0, 1_000_000),
        "2",
        "queues that an accounts list may lose at once whatever their share",
    ),
    key("worker.name", Kind::Text, "", "name under which leases are held; empty: host and process"),
    key("worker.leases", Kind::Count(1, 10_000), "4096", "queues held at a time, at most"),
    key(
        "worker.linger",
        Kind::Span(0, HOUR),
        "2s",
        "time that an empty queue is kept after its last message, while fewer than `worker.leases` are held",
    ),
    key(
        "worker.messages_per_lease",
        Kind::Count(1, 1_000_000_000),
        "1000",
        "messages after which a queue goes back even when it is not dry",
    ),
    key("worker.prefetch", Kind::Count(1, 65_535), "200", "unsettled messages per consumer"),
    key("worker.parallelism", Kind::Count(1, 256), "2", "executors of each of validate, store and alert"),
    key("worker.max_pending", Kind::Count(1, 1_000_000), "256", "messages in flight"),
    key("worker.message_timeout", Kind::Span(SECOND, DAY), "30s", "time a message may take before it fails"),
    key("worker.drain", Kind::Span(0, HOUR), "30s", "time that a stop waits for what is in flight"),
    key("worker.listen", Kind::Listen, "127.0.0.1:8092", "address of a worker's metrics and health"),
    key("frontend.listen", Kind::Listen, "127.0.0.1:8080", "address at which readings are posted"),
    key(
        "frontend.sources",
        Kind::Text,
        "",
        "where sources and their tokens come from: `store`, an http(s) URL of a paged JSON API, or a file; empty: where \
         the accounts come from",
    ),
    key("frontend.sources_every", Kind::Span(100, DAY), "30s", "interval of the sources' refresh"),
    key(
        "frontend.sources_copy",
        Kind::Text,
        "",
        "file in which the sources are kept between runs; empty: sources.json in the folder `data`",
    ),
    key(
        "frontend.max_body",
        Kind::Count(1_000, 1 << 30),
        "8388608",
        "longest body in bytes, unpacked or not",
    ),
    key("frontend.max_readings", Kind::Count(1, 1_000_000), "10000", "readings in one call"),
    key("frontend.calls_per_second", Kind::Count(1, 1_000_000), "500", "calls that one source may make"),
    key(
        "frontend.readings_per_second",
        Kind::Count(1, 100_000_000),
        "100000",
        "readings that one source may send",
    ),
    key(
        "frontend.source_percent",
        Kind::Count(1, 100),
        "25",
        "share in percent of a frontend's memory for calls, and of its connections, that one source may have at once",
    ),
    key(
        "frontend.notice",
        Kind::Span(0, HOUR),
        "2s",
        "at the end, time from /readyz saying 503 to taking no more calls: longer than a load balancer takes to notice",
    ),
    key("notifier.listen", Kind::Listen, "127.0.0.1:8093", "address of the notifier's metrics and health"),
    key(
        "notifier.allow",
        Kind::List,
        "",
        "internal networks and hosts that webhooks may go to, for instance `127.0.0.1/32,hooks.internal`; none when empty",
    ),
    secret("notifier.smtp_url", "mail server, for instance smtps://user:password@host or smtp://host:25"),
    key("notifier.from", Kind::Text, "galerna@localhost", "sender of the mails"),
    key("page.listen", Kind::Listen, "127.0.0.1:8090", "address of the web page"),
    key("page.url", HTTP, "http://127.0.0.1:8090", "the page that commands about alerts talk to"),
    secret("page.viewer_token", "token with which the page may be looked at"),
    secret(
        "page.operator_token",
        "token with which one may act on the page; required to listen beyond loopback",
    ),
    key(
        "page.workers",
        Kind::List,
        "",
        "URLs of workers, notifiers and frontends in other processes, with commas between them: asked for the topology page and for \
         the history of messages",
    ),
    key("ingest.parameters", Kind::Text, "", "CSV of parameters that extends the built-in registry"),
    key("ingest.rules", Kind::Text, "", "JSON file of alert rules put into the store at start"),
    key("ingest.batch", Kind::Count(1, 100_000), "1000", "readings stored in one write"),
    key(
        "ingest.max_ahead",
        Kind::Span(0, 365 * DAY),
        "1d",
        "how far ahead of the clock a reading's time may be",
    ),
    key(
        "ingest.not_before",
        Kind::Time,
        "1970-01-01T00:00:00Z",
        "readings from before are refused: a meter whose clock was never set says 1970",
    ),
    key(
        "ingest.alert_lateness",
        Kind::Span(0, 7 * DAY),
        "1m",
        "how late a reading may be, by the readings' times of its device, and still be evaluated by the alert rules in its place; \
         what is later is stored and not evaluated; 0s: none that is late is evaluated",
    ),
    key(
        "ingest.consumption_zone",
        Kind::Text,
        "",
        "time zone by whose hours, days and months it is kept what meters' counters say was used, for instance Europe/Berlin; unset, none is kept",
    ),
    key(
        "trace.messages",
        Kind::Count(0, 10_000_000),
        "50000",
        "calls whose messages' history is kept in memory",
    ),
    key(
        "trace.otlp",
        HTTP,
        "",
        "OTLP/HTTP collector that the history of messages is sent to, for instance http://localhost:4318",
    ),
    key(
        "schedules.keep",
        Kind::Span(HOUR, 3_650 * DAY),
        "90d",
        "how long it is kept what became of the occurrences of schedules",
    ),
    key("log.level", Kind::Text, "info", "filter of the log, for instance `info,galerna_dispatcher=debug`"),
    key("log.format", Kind::Choice(&["text", "json"]), "text", "form of the log"),
];

/// The setting of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.name == name)
}

/// A value that was checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    List(String),
    Count(u64),
    Span(Duration),
    Listen(SocketAddr),
    Time(Timestamp),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(t) | Self::List(t) => f.write_str(t),
            Self::Count(n) => n.fmt(f),
            Self::Span(d) => f.write_str(&show_span(*d)),
            Self::Listen(a) => a.fmt(f),
            Self::Time(t) => t.fmt(f),
        }
    }
}

impl Value {
    /// As the structs of `sections.rs` take it; nothing when it is empty.
    pub(crate) fn typed(&self) -> Option<toml::Value> {
        match self {
            Self::Text(text) => (!text.is_empty()).then(|| text.clone().into()),
            Self::List(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Some(parts.map(toml::Value::from).collect::<Vec<_>>().into())
            }
            // The ranges of the schema are far smaller.
            Self::Count(n) => Some(i64::try_from(*n).unwrap_or(i64::MAX).into()),
            Self::Span(span) => {
                let secs = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
                let fields = [("secs", secs), ("nanos", i64::from(span.subsec_nanos()))];
                let table = fields.map(|(name, n)| (name.to_owned(), toml::Value::from(n)));
                Some(toml::Table::from_iter(table).into())
            }
            Self::Listen(address) => Some(address.to_string().into()),
            Self::Time(time) => Some(time.to_string().into()),
        }
    }
}

impl Kind {
    /// Checks a value as it was written.
    ///
    /// # Errors
    /// What is allowed, as the end of the sentence "... ; use".
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let allowed = || Err(self.to_string());
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::List => Ok(Value::List(text.to_owned())),
            Self::Count(min, max) => match text.replace('_', "").parse::<u64>() {
                Ok(n) if (min..=max).contains(&n) => Ok(Value::Count(n)),
                _ => allowed(),
            },
            Self::Span(min, max) => match parse_span(text) {
                Some(d) if (u128::from(min)..=u128::from(max)).contains(&d.as_millis()) => Ok(Value::Span(d)),
                _ => allowed(),
            },
            Self::Choice(words) => {
                if words.contains(&text) {
                    Ok(Value::Text(text.to_owned()))
                } else {
                    allowed()
                }
            }
            Self::Listen => {
                let literal = match text.strip_prefix("localhost:") {
                    Some(port) => format!("127.0.0.1:{port}"),
                    None => text.to_owned(),
                };
                literal.parse().map(Value::Listen).or_else(|_| allowed())
            }
            Self::Time => Timestamp::parse(text).map(Value::Time).or_else(|_| allowed()),
            Self::Url { words, .. } if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Url { schemes, .. } => self.check_url(text, schemes).map(|()| Value::Text(text.to_owned())),
            Self::Urls { schemes } => {
                let parts: Vec<&str> =
                    text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
                parts.iter().try_for_each(|part| self.check_url(part, schemes))?;
                Ok(Value::Text(parts.join(",")))
            }
        }
    }

    fn check_url(self, text: &str, schemes: &[&str]) -> Result<(), String> {
        match text.split_once("://").filter(|(scheme, _)| schemes.contains(scheme)) {
            Some((scheme, rest)) if !names_host(rest) => {
                Err(format!("{self} and names a host, such as {scheme}://localhost"))
            }
            Some(_) if !text.contains(char::is_whitespace) => Ok(()),
            _ => Err(self.to_string()),
        }
    }
}

/// What is allowed.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text | Self::List => f.write_str("any text"),
            Self::Count(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Span(min, max) => write!(
                f,
                "a time from {} to {}, such as 250ms, 30s, 5m, 2h or 7d",
                show_span(Duration::from_millis(*min)),
                show_span(Duration::from_millis(*max))
            ),
            Self::Choice(words) => f.write_str(&words.join(", ")),
            Self::Time => f.write_str("a time with an offset, such as 2020-01-01T00:00:00Z"),
            Self::Listen => f.write_str("an IP address and a port, such as 127.0.0.1:7676"),
            Self::Url { words, schemes } => {
                for word in words.iter().filter(|w| !w.is_empty()) {
                    write!(f, "`{word}` or ")?;
                }
                write!(f, "a URL that begins with {}", either(schemes))
            }
            Self::Urls { schemes } => {
                write!(
                    f,
                    "one or more, with commas between them, each a URL that begins with {}",
                    either(schemes)
                )
            }
        }
    }
}

fn either(schemes: &[&str]) -> String {
    schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ")
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", HOUR), ("d", DAY)];

/// A time span as people write it: whole numbers with the units ms, s, m, h or d, such as `3h` or `1h30m`.
pub fn parse_span(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, next) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let millis = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(millis)?)?;
        rest = next;
    }
    Some(Duration::from_millis(total))
}

/// The shortest exact form, such as `90s` or `2h`.
pub fn show_span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) =
        UNITS.iter().rev().find(|(_, size)| millis % size == 0 && millis >= *size).unwrap_or(&UNITS[0]);
    format!("{}{unit}", millis / size)
}

/// A URL without its password.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The authority ends at the first slash after the last `@`: passwords may hold slashes when written carelessly.
    let Some(at) = rest.rfind('@') else { return url.to_owned() };
    let (credentials, host) = rest.split_at(at);
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_every_name_unique() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(key.kind.parse(key.default).is_ok(), "{}", key.name);
            assert!(KEYS[..i].iter().all(|other| other.variable() != key.variable()), "{}", key.name);
        }
    }

    #[test]
    fn spans_are_read_and_shown() {
        for (text, millis) in [
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(parse_span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "s", "5", "5 s", "-1s", "1.5h", "1w", "1h30", "h1", "99999999999999999999d"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
        assert_eq!(show_span(Duration::from_secs(90)), "90s");
        assert_eq!(show_span(Duration::from_secs(60)), "1m");
        assert_eq!(show_span(Duration::ZERO), "0ms");
    }

    #[test]
    fn passwords_are_taken_out_of_urls() {
        for (url, shown) in [
            ("amqp://user:secret@host:5672/vhost", "amqp://user:***@host:5672/vhost"),
            ("mongodb://u:p%40@a,b/?replicaSet=x", "mongodb://u:***@a,b/?replicaSet=x"),
            ("amqp://user:a/b@c@host", "amqp://user:***@host"),
            ("amqp://user@host", "amqp://user@host"),
            ("amqp://host", "amqp://host"),
            ("embedded", "embedded"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}

//! The dead letters of all queues: one look at them shared by those who ask within seconds, what of them is asked for, and groups
//! by reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use galerna_broker::{Broker, DeadLetter};
use galerna_model::{Message, QueueName, SourceId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::layout::Query;
use super::message_text;
use super::observer::within_timeout;

/// Letters of one look, over all queues.
pub(super) const MOST: usize = 5_000;
/// Of one queue.
const MOST_OF_A_QUEUE: usize = 1_000;
/// Queues asked at once.
const AT_ONCE: usize = 4;
/// A look is shared for so long.
const SHARED_FOR: Duration = Duration::from_secs(5);

/// A dead letter of a queue.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) queue: QueueName,
    pub(super) letter: DeadLetter,
    pub(super) source: Option<SourceId>,
    /// Its reason without what differs from letter to letter.
    pub(super) kind: String,
}

impl Letter {
    fn new(queue: QueueName, letter: DeadLetter) -> Self {
        let message = Message {
            body: letter.body.clone(),
            content_type: letter.content_type.clone(),
            id: letter.id.clone(),
        };
        let kind = kind(&letter.failure.component, &letter.failure.reason);
        Self { queue, source: message_text::source(&message), kind, letter }
    }
}

/// Reasons that differ in numbers only are of one kind.
fn kind(component: &str, reason: &str) -> String {
    let mut kind = format!("{component}: ");
    let mut in_number = false;
    for c in reason.chars().take(300) {
        let is_digit = c.is_ascii_digit();
        if is_digit && !in_number {
            kind.push('#');
        } else if !is_digit {
            kind.push(c);
        }
        in_number = is_digit;
    }
    kind
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct DeadLetterSnapshot {
    /// Those that died last come first.
    pub(super) letters: Vec<Letter>,
    /// How many there are in all, also those that were not looked at.
    pub(super) total: u64,
    /// What did not answer.
    pub(super) problems: Vec<String>,
}

impl DeadLetterSnapshot {
    /// Whether some were not looked at.
    pub(super) fn is_partial(&self) -> bool {
        (self.letters.len() as u64) < self.total
    }
}

/// The last look.
#[derive(Default)]
pub(super) struct Letters(tokio::sync::Mutex<Option<(Instant, Arc<DeadLetterSnapshot>)>>);

impl Letters {
    /// Looks, or shows what was seen a moment ago.
    pub(super) async fn look(&self, broker: &dyn Broker) -> Arc<DeadLetterSnapshot> {
        let mut last = self.0.lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < SHARED_FOR
        {
            return Arc::clone(look);
        }
        let look = Arc::new(take(broker).await);
        *last = Some((Instant::now(), Arc::clone(&look)));
        look
    }

    /// Looks anew the next time.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

async fn take(broker: &dyn Broker) -> DeadLetterSnapshot {
    let counts = match within_timeout("the broker", broker.dead_letter_counts()).await {
        Ok(counts) => counts,
        Err(problem) => {
            return DeadLetterSnapshot { problems: vec![problem], ..DeadLetterSnapshot::default() };
        }
    };
    let total = counts.iter().map(|(_, n)| n).sum();
    // From each queue alike, so that one with a million does not hide the others.
    let of_each = (MOST / counts.len().max(1)).clamp(50, MOST_OF_A_QUEUE);
    let asked = stream::iter(counts.into_iter().take(MOST / 50)).map(|(queue, _)| async move {
        let found = within_timeout("the broker", broker.dead_letters(&queue, 0, of_each)).await;
        (queue, found)
    });
    let mut look = DeadLetterSnapshot { total, ..DeadLetterSnapshot::default() };
    let mut answers = asked.buffer_unordered(AT_ONCE);
    while let Some((queue, found)) = answers.next().await {
        match found {
            Ok(letters) => {
                look.letters.extend(letters.into_iter().map(|letter| Letter::new(queue.clone(), letter)));
            }
            Err(problem) if !look.problems.contains(&problem) => look.problems.push(problem),
            Err(_) => {}
        }
    }
    look.letters.sort_by(|a, b| (b.letter.at, &b.letter.id).cmp(&(a.letter.at, &a.letter.id)));
    look
}

/// What of them is asked for; what is empty matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    /// A part of the queue's name.
    pub(super) queue: String,
    /// A part of the source's name.
    pub(super) source: String,
    /// A part of the reason, the id or the message.
    pub(super) text: String,
    /// A kind of reason, whole.
    pub(super) kind: String,
}

fn has(text: &str, part: &str) -> bool {
    part.is_empty() || text.to_lowercase().contains(&part.to_lowercase())
}

impl Filter {
    /// As fields of a query.
    pub(super) fn query(&self) -> Query<'static> {
        Query(vec![
            ("queue", self.queue.clone()),
            ("source", self.source.clone()),
            ("text", self.text.clone()),
            ("kind", self.kind.clone()),
        ])
    }

    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let text = || {
            has(&letter.letter.failure.reason, &self.text)
                || has(&letter.letter.id, &self.text)
                || has(&String::from_utf8_lossy(&letter.letter.body), &self.text)
        };
        has(letter.queue.as_str(), &self.queue)
            && has(letter.source.as_ref().map_or("", SourceId::as_str), &self.source)
            && (self.kind.is_empty() || self.kind == letter.kind)
            && text()
    }

    /// In words, for a question and the audit log.
    pub(super) fn in_words(&self) -> String {
        let part = |what: &str, text: &str| (!text.is_empty()).then(|| format!("{what} `{text}`"));
        let parts: Vec<String> = [
            part("queue", &self.queue),
            part("source", &self.source),
            part("text", &self.text),
            part("reason", &self.kind),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { "all queues".to_owned() } else { parts.join(", ") }
    }
}

/// Letters of one kind of reason.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) kind: &'a str,
    /// The reason of the latest.
    pub(super) example: &'a str,
    pub(super) component: &'a str,
    pub(super) letters: usize,
    pub(super) queues: usize,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Of them were replayed before.
    pub(super) replayed: usize,
}

/// The kinds of reasons, the commonest first.
pub(super) fn groups<'a>(letters: &[&'a Letter]) -> Vec<Group<'a>> {
    let mut by_kind: BTreeMap<&str, Vec<&'a Letter>> = BTreeMap::new();
    for letter in letters {
        by_kind.entry(&letter.kind).or_default().push(letter);
    }
    let mut groups: Vec<Group<'a>> = by_kind
        .into_iter()
        .filter_map(|(kind, all)| {
            // The last to die comes first.
            let (latest, oldest) = (all.first()?, all.last()?);
            Some(Group {
                kind,
                example: &latest.letter.failure.reason,
                component: &latest.letter.failure.component,
                letters: all.len(),
                queues: all.iter().map(|l| &l.queue).collect::<BTreeSet<_>>().len(),
                first: oldest.letter.at,
                last: latest.letter.at,
                replayed: all.iter().filter(|l| l.letter.replays > 0).count(),
            })
        })
        .collect();
    groups.sort_by(|a, b| b.letters.cmp(&a.letters).then_with(|| a.kind.cmp(b.kind)));
    groups
}

#[cfg(test)]
mod tests {
    use galerna_broker::Failure;

    use super::*;

    fn letter(queue: &str, reason: &str, at: i64, replays: u32) -> Letter {
        let body = format!(r#"{{"source":"src-{queue}","readings":[{{"did":"Panther_{at}"}}]}}"#);
        let letter = DeadLetter {
            id: at.to_string(),
            failure: Failure { reason: reason.into(), component: "validate".into() },
            at: Timestamp(at),
            deliveries: 1,
            replays,
            content_type: "application/json".into(),
            body: body.into(),
        };
        Letter::new(QueueName::new(queue).unwrap(), letter)
    }

    #[test]
    fn reasons_that_differ_in_numbers_are_of_one_group() {
        let all = [
            letter("D2", "values[0].p: 999, an unknown parameter", 3, 1),
            letter("D1", "values[1].p: 1000, an unknown parameter", 2, 0),
            letter("D1", "ts: is in the future", 1, 0),
        ];
        let groups = groups(&all.iter().collect::<Vec<_>>());
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].kind, "validate: values[#].p: #, an unknown parameter");
        assert_eq!((groups[0].letters, groups[0].queues, groups[0].replayed), (2, 2, 1));
        assert_eq!((groups[0].first, groups[0].last), (Timestamp(2), Timestamp(3)));
    }

    #[test]
    fn a_filter_looks_at_queue_source_kind_and_text() {
        let one = letter("D1", "ts: is in the future", 7, 0);
        let filter = |set: fn(&mut Filter)| {
            let mut filter = Filter::default();
            set(&mut filter);
            filter.matches(&one)
        };
        assert!(filter(|_| {}));
        assert!(filter(|f| f.queue = "d1".into()) && !filter(|f| f.queue = "D2".into()));
        assert!(filter(|f| f.source = "SRC-".into()) && !filter(|f| f.source = "other".into()));
        assert!(filter(|f| f.text = "panther_7".into()) && filter(|f| f.text = "FUTURE".into()));
        assert!(!filter(|f| f.text = "past".into()));
        assert!(filter(|f| f.kind = "validate: ts: is in the future".into()));
        assert!(!filter(|f| f.kind = "validate".into()));
    }
}

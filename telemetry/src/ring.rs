//! The ways of the last messages, in memory.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use galerna_lock::Mutex;
use galerna_model::Timestamp;

use super::{AS_STATED_BY_THE_MESSAGE, Step, in_order};

/// Most steps that are kept of one message; of a call of many messages, so many times [`MESSAGES_PER_CALL`].
const STEPS: usize = 64;
const MESSAGES_PER_CALL: usize = 16;
/// Steps of all ways together, for each way that is kept: beyond, the oldest ways are forgotten.
const STEPS_PER_HISTORY: usize = 16;
/// Longer ids are not taken down.
pub(super) const ID_BYTES: usize = 256;
/// Letters of a call's id, all of them hexadecimal digits.
const CALL_ID: usize = 28;
/// Of the id of a call whose caller sent a `traceparent`: its trace (32) and span (16) stand in front.
const TRACED_CALL_ID: usize = 60;

/// What is known of a step when it happens.
#[derive(Debug, Clone)]
pub(super) struct RecordedStep {
    pub(super) at: Timestamp,
    pub(super) place: Cow<'static, str>,
    pub(super) what: Box<str>,
    /// Whether it went wrong.
    pub(super) failed: bool,
    /// Which message of the call; none for the whole call and for messages that no frontend made.
    pub(super) part: Option<u32>,
}

/// The id that all messages of a call have in common, and the message's number among them. Of the messages that others than
/// frontends publish, each is alone.
pub(super) fn call_of(id: &str) -> (&str, Option<u32>) {
    match id.split_once('.') {
        Some((call, part)) if is_call(call) => match part.parse() {
            Ok(part) => (call, Some(part)),
            Err(_) => (id, None),
        },
        _ => (id, None),
    }
}

/// Whether it has the form of the ids that frontends give to calls.
pub(super) fn is_call(id: &str) -> bool {
    matches!(id.len(), CALL_ID | TRACED_CALL_ID) && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The trace and the span that the caller of a call named, if it did.
pub(super) fn caller_of(call: &str) -> Option<(&str, &str)> {
    (call.len() == TRACED_CALL_ID && is_call(call)).then(|| (&call[..32], &call[32..48]))
}

/// The id of a call's message.
pub(super) fn message_id(call: &str, part: Option<u32>) -> String {
    part.map_or_else(|| call.to_owned(), |part| format!("{call}.{part}"))
}

/// The ways of the calls and messages that were heard of last.
pub(super) struct Ring {
    most: usize,
    histories: Mutex<Histories>,
}

#[derive(Default)]
struct Histories {
    of: HashMap<Arc<str>, History>,
    /// Those who were heard of first, first.
    order: VecDeque<Arc<str>>,
    steps: usize,
}

#[derive(Default)]
struct History {
    steps: Vec<RecordedStep>,
    /// When a frontend took the call, as its messages say.
    received: Option<Timestamp>,
}

impl Ring {
    /// Keeps so many ways.
    pub(super) fn new(most: usize) -> Self {
        Self { most, histories: Mutex::default() }
    }

    /// Adds a step to the way of a call.
    pub(super) fn add(&self, call: &str, step: RecordedStep, received: Option<Timestamp>) {
        let mut histories = self.histories.lock();
        let histories = &mut *histories;
        if !histories.of.contains_key(call) {
            let key: Arc<str> = call.into();
            histories.order.push_back(key.clone());
            histories.of.insert(key, History::default());
        }
        if let Some(history) = histories.of.get_mut(call) {
            history.received = history.received.or(received);
            let most = if step.part.is_some() { STEPS * MESSAGES_PER_CALL } else { STEPS };
            if history.steps.len() < most {
                history.steps.push(step);
                histories.steps += 1;
            }
        }
        while histories.order.len() > self.most
            || histories.steps > self.most.saturating_mul(STEPS_PER_HISTORY)
        {
            let Some(oldest) = histories.order.pop_front() else { break };
            histories.steps -= histories.of.remove(&oldest).map_or(0, |history| history.steps.len());
        }
    }

    /// The way of a message, or of all messages of a call; empty when nothing is known.
    pub(super) fn history(&self, id: &str) -> Vec<Step> {
        let (call, part) = call_of(id);
        let (steps, received) = {
            let histories = self.histories.lock();
            let Some(history) = histories.of.get(call) else { return Vec::new() };
            (history.steps.clone(), history.received)
        };
        let asked = |step: &RecordedStep| part.is_none() || step.part.is_none() || step.part == part;
        let mut told: Vec<Step> = Vec::with_capacity(steps.len() + 1);
        // A frontend elsewhere took it; when it did stands in the message.
        if let Some(at) = received.filter(|_| steps.iter().all(|step| step.place != "frontend")) {
            let what = AS_STATED_BY_THE_MESSAGE.to_owned();
            told.push(Step { at, place: "frontend".to_owned(), what, message: call.to_owned() });
        }
        told.extend(steps.into_iter().filter(asked).map(|step| Step {
            at: step.at,
            place: step.place.into_owned(),
            what: step.what.into(),
            message: message_id(call, step.part),
        }));
        in_order(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "015f3b2f4c00a1b2c3d4e5f60718";

    fn step(part: Option<u32>, at: i64, place: &'static str) -> RecordedStep {
        RecordedStep { at: Timestamp(at), place: place.into(), what: "did".into(), failed: false, part }
    }

    #[test]
    fn ids_of_frontends_are_told_from_others() {
        let longer = format!("{CALL}0.1");
        for (id, expected) in [
            (&*format!("{CALL}.0"), (CALL, Some(0))),
            (&*format!("{CALL}.12"), (CALL, Some(12))),
            (CALL, (CALL, None)),
            (&*format!("{CALL}.x"), (&*format!("{CALL}.x"), None)),
            (&*longer, (&*longer, None)),
            ("meter.5", ("meter.5", None)),
            ("", ("", None)),
        ] {
            assert_eq!(call_of(id), expected, "{id}");
        }
    }

    #[test]
    fn a_message_is_asked_for_alone_or_with_its_call() {
        let ring = Ring::new(10);
        ring.add(CALL, step(Some(0), 2, "queues"), None);
        ring.add(CALL, step(Some(1), 3, "queues"), None);
        ring.add(CALL, step(None, 1, "frontend"), None);
        let told = |id: &str| ring.history(id).into_iter().map(|s| (s.at.0, s.message)).collect::<Vec<_>>();
        let (zero, one) = (format!("{CALL}.0"), format!("{CALL}.1"));
        assert_eq!(told(CALL), [(1, CALL.to_owned()), (2, zero.clone()), (3, one.clone())]);
        assert_eq!(told(&one), [(1, CALL.to_owned()), (3, one)]);
        assert_eq!(told("another"), []);
    }

    #[test]
    fn without_the_frontends_own_word_the_message_tells_when_it_was_received() {
        let ring = Ring::new(10);
        ring.add(CALL, step(Some(0), 5, "queues"), None);
        ring.add(CALL, step(Some(0), 6, "validate"), Some(Timestamp(2)));
        let history = ring.history(CALL);
        assert_eq!((history[0].at, &*history[0].place, history.len()), (Timestamp(2), "frontend", 3));
        ring.add(CALL, step(None, 3, "frontend"), None);
        assert_eq!(ring.history(CALL)[0].at, Timestamp(3));
    }

    #[test]
    fn the_oldest_ways_are_forgotten_and_none_grows_without_end() {
        let ring = Ring::new(3);
        for n in 0..5 {
            ring.add(&format!("m{n}"), step(None, n, "queues"), None);
        }
        assert!(
            ring.history("m1").is_empty() && !ring.history("m2").is_empty() && !ring.history("m4").is_empty()
        );
        for n in 0..1_000 {
            ring.add("loud", step(None, n, "queues"), None);
        }
        assert!(ring.history("loud").len() <= STEPS, "{}", ring.history("loud").len());
        let histories = ring.histories.lock();
        assert_eq!(histories.steps, histories.of.values().map(|history| history.steps.len()).sum::<usize>());
        assert_eq!(histories.of.len(), histories.order.len());
    }
}

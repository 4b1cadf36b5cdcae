//! Takes down what modules tell of messages.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;
use std::sync::Arc;

use galerna_model::{Clock, SystemClock, Timestamp};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::TARGET;
use super::otlp::Sender;
use super::ring::{ID_BYTES, RecordedStep, Ring, call_of, is_call};

/// Longest text of a step in bytes; a reason may quote a whole reading.
const WHAT_BYTES: usize = 600;

/// The layer, with a filter of its own: it takes the same down whatever is logged.
pub(super) fn recorder<S>(ring: Option<Arc<Ring>>, export: Option<Sender>) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    Recorder { ring, export }
        .with_filter(filter_fn(|meta| *meta.level() == Level::TRACE && meta.target().starts_with(TARGET)))
}

struct Recorder {
    ring: Option<Arc<Ring>>,
    export: Option<Sender>,
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(module) = event.metadata().target().strip_prefix(TARGET) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.id.is_empty() || fields.id.len() > ID_BYTES {
            return;
        }
        let (call, part) = call_of(&fields.id);
        // Of messages that no frontend made it is when they were validated, which is told anyway.
        let received = fields.received.map(Timestamp).filter(|_| is_call(call));
        let what = fields.what.0.into();
        let place = fields.place.map_or(Cow::Borrowed(module), Cow::Owned);
        let step = RecordedStep { at: SystemClock.now(), place, what, failed: fields.failed, part };
        if let Some(export) = &self.export {
            export.send(call, &step);
        }
        if let Some(ring) = &self.ring {
            ring.add(call, step, received);
        }
    }
}

#[derive(Default)]
struct Fields {
    id: String,
    /// The component, of what is told for many.
    place: Option<String>,
    received: Option<i64>,
    failed: bool,
    what: Text,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "id" => value.clone_into(&mut self.id),
            "place" => self.place = Some(value.to_owned()),
            "message" => self.what.push(value),
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "received" {
            self.received = Some(value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "failed" {
            self.failed = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // It never fails: what is too long is left out.
            let _ = write!(self.what, "{value:?}");
        }
    }
}

/// Text up to a length; the rest is left out.
#[derive(Default)]
struct Text(String);

impl Text {
    fn push(&mut self, text: &str) {
        let room = WHAT_BYTES.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{EnvFilter, Registry};

    use super::*;

    #[test]
    fn what_is_told_of_messages_is_taken_down_whatever_is_logged() {
        let ring = Arc::new(Ring::new(10));
        let log =
            tracing_subscriber::fmt::layer().with_writer(std::io::sink).with_filter(EnvFilter::new("error"));
        let subscriber = Registry::default().with(log).with(recorder(Some(ring.clone()), None));
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "galerna::trace::store", id = "m", "{} readings stored", 3);
            tracing::trace!(target: "galerna::trace::queues", id = "m", "acked");
            tracing::trace!(target: "galerna::trace::call", id = "called", place = "fetch", "done");
            tracing::trace!(target: "galerna::elsewhere", id = "m", "not told");
            tracing::trace!(target: "galerna::trace::store", id = "", "of nobody");
            tracing::trace!(target: "galerna::trace::reject", id = "long", "{}", "ä".repeat(1_000));
        });
        let history = ring.history("m");
        let told: Vec<_> = history.iter().map(|step| (&*step.place, &*step.what)).collect();
        assert_eq!(told, [("store", "3 readings stored"), ("queues", "acked")]);
        assert_eq!(ring.history("called")[0].place, "fetch", "the component, not what it told by");
        assert_eq!(ring.history("long")[0].what, "ä".repeat(WHAT_BYTES / 2));
        assert!(ring.history("").is_empty());
    }
}

//! The bolt that gives tuples what a table in state had for them.

use std::hash::Hash;

use galerna_state::StateContext;
use galerna_topology::{Batch, BatchBolt, Data, Emitter, Fault, Gauge, TaskContext, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::enrich_as_of::{EnrichAsOf, EnrichAsOfOutputs, TableVersion};
use crate::join_store::Side;
use crate::kept_enrich::{KeptEnrich, NotTaken};
use crate::late::LateCounts;
use crate::result::Late;
use crate::sources::Sources;

/// One task of it. Tuples and versions are written before they are acked.
pub(crate) struct StateEnrichBolt<T, K, V> {
    of: EnrichAsOf<T, K>,
    kept: Option<KeptEnrich<K, T, V>>,
    sources: Option<Sources>,
    late: Option<LateCounts<K>>,
    /// How many tuples wait.
    count: Gauge,
}

impl<T, K, V> StateEnrichBolt<T, K, V> {
    pub(crate) fn new(of: EnrichAsOf<T, K>) -> Self {
        Self { of, kept: None, sources: None, late: None, count: Gauge::default() }
    }
}

impl<T, K, V> BatchBolt for StateEnrichBolt<T, K, V>
where
    T: Data + Serialize + DeserializeOwned,
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
    V: Data + Serialize + DeserializeOwned,
{
    type Input = Side<T, TableVersion<K, V>>;
    type Outputs = EnrichAsOfOutputs<K, T, V>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let kept = KeptEnrich::restore(context.state()?, self.of.limit)?;
        self.sources = self.of.makes_watermarks.then(|| Sources::new(self.of.sources, context.now()));
        self.late = Some(LateCounts::new(context, None));
        self.count = context.gauge("enrich_waiting");
        self.count.set(kept.len() as f64);
        self.kept = Some(kept);
        Ok(())
    }

    fn execute(&mut self, batch: Batch<Self::Input>, out: &mut Emitter<Self::Outputs>) {
        let (sender, now) = (out.sender(), out.context().now());
        let (inputs, anchors) = batch.into_parts();
        let Some(kept) = &mut self.kept else {
            anchors.fail(Fault::permanent("the table was not prepared"));
            return;
        };
        for (input, anchor) in inputs.into_iter().zip(anchors.into_each()) {
            let read = self.of.read(&input).and_then(|(at, key)| {
                if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
                    let observed = sources.batch(sender, now)(at);
                    // A version may be of long ago, or for long ahead: it counts, and says little about how far its sender is.
                    if matches!(input, Side::Left(_)) {
                        observed?;
                    }
                }
                Ok((at, key))
            });
            let (at, key) = match read {
                Ok(read) => read,
                Err(fault) => {
                    anchor.fail(fault);
                    continue;
                }
            };
            let taken = match input {
                Side::Left(tuple) => kept.add(&key, tuple, at),
                Side::Right(version) => {
                    kept.change(&key, at.millis(), &version.value).map_err(NotTaken::State)
                }
            };
            match taken {
                Ok(()) => anchor.ack(),
                Err(NotTaken::Full) => anchor.fail(self.of.no_room()),
                Err(NotTaken::State(error)) => anchor.fail(Fault::from(error)),
                Err(NotTaken::TooLate(tuple)) => {
                    let closed = kept.closed().unwrap_or(i64::MIN);
                    let reached = out.watermark().unwrap_or(at).millis().max(closed);
                    let late_by = Timestamp::from_millis(reached).saturating_since(at);
                    if let Some(late) = &mut self.late {
                        late.count(&key, late_by);
                    }
                    out.late.emit_anchored(Late { key, tuple, at, late_by }, [&anchor]);
                    anchor.ack();
                }
            }
        }
        self.count.set(kept.len() as f64);
        if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
            sources.tell(sender, now, out);
        }
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let (enriched, written) = kept.advance(watermark);
        enriched.into_iter().for_each(|enriched| out.enriched.emit_unanchored(enriched));
        self.count.set(kept.len() as f64);
        Ok(written?)
    }

    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        if let Some(sources) = &mut self.sources {
            sources.tell_all(out.context().now(), out);
        }
        Ok(())
    }
}

//! The bolt that runs joins whose tuples are in state.

use std::hash::Hash;

use galerna_state::StateContext;
use galerna_topology::{Batch, BatchBolt, Data, Emitter, Fault, Gauge, TaskContext, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::join::{Join, JoinOutputs};
use crate::join_store::Side;
use crate::kept_join::{KeptJoin, NotTaken};
use crate::late::LateCounts;
use crate::result::Late;
use crate::sources::Sources;

/// One task of a join in state.
///
/// A tuple is written before it is acked, and what comes of it is emitted when it is written. So whatever happens to the instance, the
/// state has all tuples that were acked, and no other.
pub(crate) struct StateJoinBolt<L, R, K> {
    join: Join<L, R, K>,
    kept: Option<KeptJoin<K, L, R>>,
    sources: Option<Sources>,
    late: Option<LateCounts<K>>,
    count: Gauge,
}

impl<L: Data, R: Data, K: Data + Eq + Hash> StateJoinBolt<L, R, K> {
    pub(crate) fn new(join: Join<L, R, K>) -> Self {
        Self { join, kept: None, sources: None, late: None, count: Gauge::default() }
    }
}

impl<L, R, K> BatchBolt for StateJoinBolt<L, R, K>
where
    L: Data + Serialize + DeserializeOwned,
    R: Data + Serialize + DeserializeOwned,
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
{
    type Input = Side<L, R>;
    type Outputs = JoinOutputs<K, L, R>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        let kept = KeptJoin::restore(&self.join, context.state()?)?;
        self.sources = self.join.makes_watermarks.then(|| Sources::new(self.join.sources, context.now()));
        self.late = Some(LateCounts::new(context, None));
        self.count = context.gauge("join_state");
        self.count.set(kept.len() as f64);
        self.kept = Some(kept);
        Ok(())
    }

    fn execute(&mut self, batch: Batch<Side<L, R>>, out: &mut Emitter<Self::Outputs>) {
        let (sender, now) = (out.sender(), out.context().now());
        let (tuples, anchors) = batch.into_parts();
        let Some(kept) = &mut self.kept else {
            anchors.fail(Fault::permanent("the join was not prepared"));
            return;
        };
        for (tuple, anchor) in tuples.into_iter().zip(anchors.into_each()) {
            let read = self.join.read(&tuple).and_then(|(at, key)| {
                if let (Some(sources), Some(sender)) = (&mut self.sources, sender) {
                    sources.batch(sender, now)(at)?;
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
            match kept.add(&key, tuple, at) {
                Ok(joined) => {
                    joined.into_iter().for_each(|joined| out.joined.emit_unanchored(joined));
                    anchor.ack();
                }
                Err(NotTaken::Full) => anchor.fail(self.join.no_room()),
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
        let (joined, written) = kept.advance(watermark);
        joined.into_iter().for_each(|joined| out.joined.emit_unanchored(joined));
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

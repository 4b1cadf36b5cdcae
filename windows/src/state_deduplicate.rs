//! Letting each key through once in a while, by state.

use galerna_state::{SeenIds, StateContext};
use galerna_topology::{Bolt, Data, Emitter, Fault, TaskContext};
use serde::Serialize;

use crate::deduplicate::{Deduplicate, DeduplicateOutputs};
use crate::store::caught;

/// One task of it.
pub(crate) struct StateDeduplicateBolt<T, K> {
    of: Deduplicate<T, K>,
    seen: Option<SeenIds>,
}

impl<T: Data, K: Data + Serialize> StateDeduplicateBolt<T, K> {
    pub(crate) fn new(of: Deduplicate<T, K>) -> Self {
        Self { of, seen: None }
    }
}

impl<T: Data, K: Data + Serialize> Bolt for StateDeduplicateBolt<T, K> {
    type Input = T;
    type Outputs = DeduplicateOutputs<T>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.seen = Some(SeenIds::new(context.state()?, "seen", self.of.within)?);
        Ok(())
    }

    fn execute(&mut self, tuple: T, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let key = caught(|| (self.of.key_of)(&tuple))
            .map_err(|fault| Fault::permanent(format!("the key closure {}", fault.reason())))?;
        let seen = self.seen.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        if seen.is_first(&key)? {
            out.unique.emit(tuple);
        } else {
            out.duplicates.emit(tuple);
        }
        Ok(())
    }
}

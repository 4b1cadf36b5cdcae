//! Windows in state: what is taken back was never there, and what is written for checkpoints is all that there is.

use std::collections::HashMap;
use std::sync::Arc;

use galerna_topology::{Fault, Timestamp};
use proptest::prelude::*;

use crate::aggregate::Collect;
use crate::kept::{KeptPart, KeptStore};
use crate::result::{Firing, WindowResult};
use crate::store::{Early, WindowSink, WindowStore};
use crate::time_windows::{Slices, TimeWindows};

type Key = u8;
type Windows = TimeWindows<Key, usize, Collect, ()>;

/// Keys and times of the tuples of a batch, what is taken back of it, how far the watermark is then, and whether a checkpoint is taken.
type Step = (Vec<(Key, i64)>, Option<Option<Key>>, Option<i64>, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tuples = prop::collection::vec((0u8..3, 0i64..60), 0..6);
    let taken_back = prop::option::weighted(0.3, prop::option::of(0u8..3));
    let step = (tuples, taken_back, prop::option::weighted(0.3, 0i64..50), any::<bool>());
    prop::collection::vec(step, 0..20)
}

fn windows(slide: i64) -> Windows {
    let mut windows = Windows::new(Slices::new(20, slide, 0), Arc::new(Collect), 10, Early::Never, false);
    windows.note_changes();
    windows
}

#[derive(Default)]
struct Fired(Vec<WindowResult<Key, Vec<usize>>>);

impl WindowSink<Key, Vec<usize>, ()> for Fired {
    fn fire(&mut self, result: WindowResult<Key, Vec<usize>>, _: &[&()]) {
        self.0.push(result);
    }

    fn release(&mut self, (): ()) {}

    fn fail(&mut self, (): (), fault: Fault) {
        panic!("{fault}");
    }
}

impl Fired {
    /// But for what is fired for late tuples: of one that was taken back that says again what was said.
    fn sorted(mut self) -> String {
        self.0.retain(|result| result.firing != Firing::Late);
        self.0.sort_by_key(|result| format!("{:?} {}", result.bounds, result.key));
        format!("{:?}", self.0)
    }
}

/// All that the windows have.
fn rest(mut windows: Windows) -> String {
    let mut fired = Fired::default();
    windows.fire_all(Firing::AtEnd, &mut fired);
    fired.sorted()
}

proptest! {
    #[test]
    fn what_is_taken_back_was_never_there(steps in steps(), sliding in any::<bool>()) {
        let slide = if sliding { 5 } else { 20 };
        let (mut tried, mut spared) = (windows(slide), windows(slide));
        let mut state: HashMap<(Key, i64), KeptPart<Vec<usize>>> = HashMap::new();
        let (mut now, mut number) = (0, 0);
        for (tuples, taken_back, watermark, checkpoint) in steps {
            let mut fired = (Fired::default(), Fired::default());
            tried.begin_batch();
            for (key, off) in tuples {
                number += 1;
                let at = Timestamp::from_millis(now + off - 20);
                let taken = tried.add(&key, number, at, (), &mut fired.0).is_ok();
                if taken_back.is_none_or(|of| of.is_some_and(|of| of != key)) {
                    prop_assert_eq!(spared.add(&key, number, at, (), &mut fired.1).is_ok(), taken);
                }
            }
            if let Some(of) = taken_back {
                tried.take_back(of.as_ref());
                // As a bolt that is made anew does.
                tried.take_back(of.as_ref());
            }
            tried.end_batch();
            tried.take_back(None);
            if let Some(watermark) = watermark {
                now += watermark;
                tried.advance(Timestamp::from_millis(now), &mut fired.0);
                spared.advance(Timestamp::from_millis(now), &mut fired.1);
                prop_assert_eq!(fired.0.sorted(), fired.1.sorted());
            }
            if checkpoint {
                for (key, pane) in tried.take_dirty() {
                    match tried.part(&key, pane) {
                        Some(part) => {
                            state.insert((key, pane), part);
                        }
                        None => {
                            state.remove(&(key, pane));
                        }
                    }
                }
                let mut restored = windows(slide);
                for ((key, pane), part) in &state {
                    restored.put(*key, *pane, part.clone());
                }
                if let Some(closed) = tried.closed() {
                    restored.set_closed(closed);
                }
                let parts = |windows: &Windows| WindowStore::len(windows);
                prop_assert_eq!(parts(&restored), parts(&tried));
                for ((key, pane), part) in &state {
                    prop_assert_eq!(Some(part.clone()), tried.part(key, *pane));
                }
            }
        }
        prop_assert_eq!(rest(tried), rest(spared));
    }
}

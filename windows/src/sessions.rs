//! Session windows of one task: stretches of tuples of a key without a gap.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use galerna_topology::{Fault, Timestamp};

use crate::aggregate::Aggregate;
use crate::kept::{Dirty, KeptPart, KeptStore};
use crate::result::{Firing, WindowBounds, WindowResult};
use crate::store::{Early, Hold, Part, TooLate, WindowSink, WindowStore, caught};

/// A session of one key.
struct Session<A, H> {
    start: i64,
    /// The gap after its last tuple.
    end: i64,
    part: Part<A, H>,
    /// When it is looked at next, as `Sessions::timers` has it.
    timer: i64,
    fired: bool,
    /// Tuples have come late since it fired.
    late: bool,
    /// Tuples have come since the last early firing.
    changed: bool,
}

/// The sessions of one task.
pub(crate) struct Sessions<K, T, A: Aggregate<T>, H> {
    gap: i64,
    aggregate: Arc<A>,
    /// For how long after its end a session takes tuples, in milliseconds.
    lateness: i64,
    early: Early,
    /// By key, in the order of time.
    sessions: HashMap<K, Vec<Session<A::Accumulator, H>>>,
    /// When to look at a session of these keys. A session is looked at where it ended when that was noted: if it has grown since, it
    /// is noted anew.
    timers: BTreeMap<i64, Vec<K>>,
    /// The ends of sessions that have fired and may still get tuples.
    expiries: BTreeMap<i64, Vec<K>>,
    /// All sessions that end here or before have fired.
    closed: Option<i64>,
    late: Vec<K>,
    changed: Vec<K>,
    parts: usize,
    dirty: Dirty<K>,
}

impl<K: Clone + Eq + Hash, T, A: Aggregate<T>, H: Hold> Sessions<K, T, A, H> {
    pub(crate) fn new(gap: i64, aggregate: Arc<A>, lateness: i64, early: Early) -> Self {
        debug_assert!(gap > 0, "{gap}");
        Self {
            gap,
            aggregate,
            lateness,
            early,
            sessions: HashMap::new(),
            timers: BTreeMap::new(),
            expiries: BTreeMap::new(),
            closed: None,
            late: Vec::new(),
            changed: Vec::new(),
            parts: 0,
            dirty: Dirty::default(),
        }
    }

    fn is_closed(&self, end: i64) -> bool {
        self.closed.is_some_and(|closed| end <= closed)
    }

    /// Fires the sessions of a key that `which` says, and does `then` with each.
    fn fire_those(
        &mut self,
        key: &K,
        firing: Firing,
        sink: &mut dyn WindowSink<K, A::Output, H>,
        which: impl Fn(&Session<A::Accumulator, H>) -> bool,
        mut then: impl FnMut(&mut Session<A::Accumulator, H>),
    ) {
        let Some(sessions) = self.sessions.get_mut(key) else { return };
        let mut at = 0;
        while let Some(session) = sessions.get_mut(at) {
            if !which(session) {
                at += 1;
                continue;
            }
            match caught(|| self.aggregate.result(&session.part.accumulator)) {
                Ok(value) => {
                    let bounds = WindowBounds::time(session.start, session.end);
                    let result = WindowResult { key: key.clone(), bounds, firing, value, expired: None };
                    match session.part.held.is_empty() {
                        true => sink.fire(result, &[]),
                        false => sink.fire(result, &[&session.part.held]),
                    }
                    then(session);
                    self.dirty.note(key, session.start);
                    if session.fired && !session.part.held.is_empty() {
                        sink.release(session.part.take_held());
                    }
                    at += 1;
                }
                Err(fault) => {
                    self.parts -= 1;
                    self.dirty.note(key, session.start);
                    sink.fail(sessions.remove(at).part.held, fault);
                }
            }
        }
    }

    /// Forgets the sessions of a key that `which` says.
    fn forget(&mut self, key: &K, which: impl Fn(&Session<A::Accumulator, H>) -> bool) {
        if let Some(sessions) = self.sessions.get_mut(key) {
            let before = sessions.len();
            let gone = sessions.iter().filter(|session| which(session));
            gone.for_each(|session| self.dirty.note(key, session.start));
            sessions.retain(|session| !which(session));
            self.parts -= before - sessions.len();
            if sessions.is_empty() {
                self.sessions.remove(key);
            }
        }
    }

    /// Fires what ends at `watermark` or before it and has not fired, in order.
    fn fire_until(&mut self, watermark: i64, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        while let Some(timer) = self.timers.first_entry()
            && *timer.key() <= watermark
        {
            let (at, keys) = timer.remove_entry();
            for key in keys {
                self.fire_those(
                    &key,
                    firing,
                    sink,
                    |session| session.timer == at && session.end == at && !session.fired,
                    |session| session.fired = true,
                );
                let sessions = self.sessions.get_mut(&key).into_iter().flatten();
                for session in sessions.filter(|session| session.timer == at && !session.fired) {
                    session.timer = session.end;
                    self.timers.entry(session.end).or_default().push(key.clone());
                }
                if self.lateness == 0 {
                    self.forget(&key, |session| session.fired && session.end == at);
                } else {
                    self.expiries.entry(at).or_default().push(key);
                }
            }
        }
    }

    /// The tuple's session: a new one, or those that it is in, merged. Returns where it is; the tuple if it is late; what went wrong.
    fn place(&mut self, key: &K, tuple: T, at: i64, held: H) -> Result<usize, Placed<T, H>> {
        let (mut start, mut end) = (at, at.saturating_add(self.gap));
        let known = self.sessions.get(key).map_or(&[][..], Vec::as_slice);
        let first = known.partition_point(|session| session.end <= at);
        let count = known[first..].partition_point(|session| session.start < end);
        let joined = &known[first..first + count];
        if let (Some(one), Some(other)) = (joined.first(), joined.last()) {
            (start, end) = (start.min(one.start), end.max(other.end));
        }
        if self.is_closed(end.saturating_add(self.lateness)) {
            return Err(Placed::TooLate(TooLate { tuple, held }));
        }
        let fires_late = self.is_closed(end);
        known[first..first + count].iter().for_each(|session| self.dirty.note(key, session.start));
        self.dirty.note(key, start);
        let sessions = self.sessions.entry(key.clone()).or_default();
        if count == 0 {
            let part = Part::new(self.aggregate.create());
            let (fired, late) = (fires_late, false);
            self.parts += 1;
            sessions.insert(first, Session { start, end, part, timer: end, fired, late, changed: false });
            if fires_late {
                self.expiries.entry(end).or_default().push(key.clone());
            } else {
                self.timers.entry(end).or_default().push(key.clone());
            }
        }
        let later: Vec<_> = sessions.drain(first + 1..first + count.max(1)).collect();
        self.parts -= later.len();
        let session = &mut sessions[first];
        session.part.held.merge(held);
        session.part.tuples += 1;
        let accumulator = &mut session.part.accumulator;
        let added = caught(|| self.aggregate.add(accumulator, tuple));
        let mut outcome = added;
        for other in later {
            session.part.held.merge(other.part.held);
            session.part.tuples += other.part.tuples;
            session.late |= other.late;
            let accumulator = &mut session.part.accumulator;
            let merged = caught(|| self.aggregate.merge(accumulator, &other.part.accumulator));
            outcome = outcome.and(merged);
        }
        if let Err(fault) = outcome {
            self.parts -= 1;
            return Err(Placed::Failed(sessions.remove(first).part.held, fault));
        }
        let reopened = session.fired && !fires_late;
        let moved = session.end != end;
        (session.start, session.end) = (start, end);
        if reopened {
            session.fired = false;
            session.late = false;
            session.timer = end;
            self.timers.entry(end).or_default().push(key.clone());
        } else if session.fired && moved {
            self.expiries.entry(end).or_default().push(key.clone());
        }
        Ok(first)
    }
}

/// Why a tuple is in no session.
enum Placed<T, H> {
    TooLate(TooLate<T, H>),
    Failed(H, Fault),
}

impl<K, T, A, H> WindowStore<K, T, A::Output, H> for Sessions<K, T, A, H>
where
    K: Clone + Eq + Hash + Send,
    A: Aggregate<T>,
    H: Hold,
{
    fn add(
        &mut self,
        key: &K,
        tuple: T,
        at: Timestamp,
        held: H,
        sink: &mut dyn WindowSink<K, A::Output, H>,
    ) -> Result<(), TooLate<T, H>> {
        let place = match self.place(key, tuple, at.millis(), held) {
            Ok(place) => place,
            Err(Placed::TooLate(late)) => return Err(late),
            Err(Placed::Failed(held, fault)) => {
                sink.fail(held, fault);
                return Ok(());
            }
        };
        let Some(session) = self.sessions.get_mut(key).and_then(|sessions| sessions.get_mut(place)) else {
            return Ok(());
        };
        if session.fired {
            if !std::mem::replace(&mut session.late, true) {
                self.late.push(key.clone());
            }
            return Ok(());
        }
        match self.early {
            Early::Never => {}
            Early::Tuples(every) if session.part.tuples.is_multiple_of(every) => {
                let start = session.start;
                self.fire_those(key, Firing::Early, sink, |session| session.start == start, |_| ());
            }
            Early::Tuples(_) => {}
            Early::Times => {
                if !std::mem::replace(&mut session.changed, true) {
                    self.changed.push(key.clone());
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let watermark = watermark.millis();
        if self.is_closed(watermark) {
            return;
        }
        self.fire_late(sink);
        self.fire_until(watermark, Firing::OnTime, sink);
        self.closed = Some(watermark);
        while let Some(expiry) = self.expiries.first_entry()
            && expiry.key().saturating_add(self.lateness) <= watermark
        {
            let (end, keys) = expiry.remove_entry();
            for key in keys {
                self.forget(&key, |session| session.fired && session.end == end);
            }
        }
    }

    fn fire_late(&mut self, sink: &mut dyn WindowSink<K, A::Output, H>) {
        for key in std::mem::take(&mut self.late) {
            self.fire_those(
                &key,
                Firing::Late,
                sink,
                |session| session.late && session.fired,
                |session| session.late = false,
            );
        }
    }

    fn fire_early(&mut self, sink: &mut dyn WindowSink<K, A::Output, H>) {
        for key in std::mem::take(&mut self.changed) {
            self.fire_those(
                &key,
                Firing::Early,
                sink,
                |session| session.changed && !session.fired,
                |session| session.changed = false,
            );
        }
    }

    fn fire_all(&mut self, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        self.fire_late(sink);
        self.fire_until(i64::MAX, firing, sink);
        for held in self.take_all() {
            sink.release(held);
        }
    }

    fn take_all(&mut self) -> Vec<H> {
        self.parts = 0;
        self.timers.clear();
        self.expiries.clear();
        self.late.clear();
        self.changed.clear();
        let sessions = std::mem::take(&mut self.sessions).into_values().flatten();
        sessions.map(|session| session.part.held).filter(|held| !held.is_empty()).collect()
    }

    fn len(&self) -> usize {
        self.parts
    }
}

impl<K, T, A> KeptStore<K, T, A::Output, A::Accumulator> for Sessions<K, T, A, ()>
where
    K: Clone + Eq + Hash + Send,
    A: Aggregate<T>,
{
    fn note_changes(&mut self) {
        self.dirty.switch_on();
    }

    fn take_dirty(&mut self) -> Vec<(K, i64)> {
        self.dirty.take()
    }

    fn part(&self, key: &K, number: i64) -> Option<KeptPart<A::Accumulator>> {
        let session = self.sessions.get(key)?.iter().find(|session| session.start == number)?;
        let accumulator = Some(session.part.accumulator.clone());
        Some(KeptPart { end: session.end, tuples: session.part.tuples, fired: session.fired, accumulator })
    }

    fn put(&mut self, key: K, number: i64, part: KeptPart<A::Accumulator>) {
        let KeptPart { end, tuples, fired, accumulator: Some(accumulator) } = part else { return };
        let timers = if fired { &mut self.expiries } else { &mut self.timers };
        timers.entry(end).or_default().push(key.clone());
        let part = Part { tuples, ..Part::new(accumulator) };
        let session = Session { start: number, end, part, timer: end, fired, late: false, changed: false };
        self.sessions.entry(key).or_default().push(session);
        self.parts += 1;
    }

    fn forget_key(&mut self, key: &K) {
        self.parts -= self.sessions.remove(key).map_or(0, |sessions| sessions.len());
        self.dirty.forget(key);
    }

    fn closed(&self) -> Option<i64> {
        self.closed
    }

    fn set_closed(&mut self, closed: i64) {
        self.closed = Some(closed);
    }
}

//! What was last read of each counter, so that one that runs backwards is noticed.

use std::collections::HashMap;

use galerna_model::{Measurement, ParameterCode, ParameterKind, ParameterRegistry, SourceId, Timestamp};

/// The devices that are remembered at most, unless told otherwise: about 100 MB.
pub const DEFAULT_REMEMBERED_DEVICES: usize = 500_000;

/// Relative difference that is taken for rounding: a sum of floats may lose its last digits.
const ROUNDING: f64 = 1e-9;

/// The latest counters of each device, in bounded memory.
///
/// - A value below the one that came before it in the readings' time is *backwards*.
/// - A reading that is older than the latest seen is not checked and not remembered: it came late, and says nothing.
/// - The same time again (a redelivery, or a correction with a higher sequence number) is checked as the first time was.
///
/// Devices are kept in two generations: when the young one is full, the old one is forgotten and the young one becomes
/// old. What is used moves to the young one, so that at most the devices unused the longest are forgotten, at no cost per
/// reading. The first reading of a forgotten or new device is not checked; neither is the first one after a restart, or the
/// first one here after another worker had the queue.
#[derive(Debug)]
pub struct CounterMemory {
    young: Generation,
    old: Generation,
    young_devices: usize,
    generation_capacity: usize,
}

type Generation = HashMap<SourceId, HashMap<Box<str>, Device>>;

#[derive(Debug, Default)]
struct Device {
    counters: Vec<Counter>,
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    parameter: ParameterCode,
    ts: Timestamp,
    value: f64,
    /// The value before that one, to check a repetition by.
    previous: f64,
}

impl Default for CounterMemory {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_REMEMBERED_DEVICES)
    }
}

impl CounterMemory {
    /// A memory of at most so many devices (at least 2).
    pub fn with_capacity(devices: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_devices: 0,
            generation_capacity: (devices / 2).max(1),
        }
    }

    /// Takes a reading and calls `backwards` with each counter of it that is below the value before.
    pub fn check(
        &mut self,
        registry: &ParameterRegistry,
        source: &SourceId,
        device: &str,
        ts: Timestamp,
        values: &[Measurement],
        mut backwards: impl FnMut(ParameterCode),
    ) {
        let is_counter =
            |m: &&Measurement| registry.get(m.p).is_some_and(|p| p.kind == ParameterKind::Counter);
        let mut counters = values.iter().filter(is_counter).peekable();
        if counters.peek().is_none() {
            return;
        }
        let known = self.device(source, device);
        for m in counters {
            match known.counters.iter_mut().find(|c| c.parameter == m.p) {
                None => {
                    let previous = f64::NEG_INFINITY;
                    known.counters.push(Counter { parameter: m.p, ts, value: m.v, previous });
                }
                Some(counter) if ts < counter.ts => {}
                Some(counter) => {
                    if ts > counter.ts {
                        counter.previous = counter.value;
                        counter.ts = ts;
                    }
                    counter.value = m.v;
                    if m.v < counter.previous - counter.previous.abs() * ROUNDING {
                        backwards(m.p);
                    }
                }
            }
        }
    }

    /// How many devices are remembered.
    pub fn devices(&self) -> usize {
        [&self.young, &self.old].iter().flat_map(|g| g.values()).map(HashMap::len).sum()
    }

    fn device(&mut self, source: &SourceId, device: &str) -> &mut Device {
        let remembered = self.young.get(source).is_some_and(|devices| devices.contains_key(device));
        if !remembered && self.young_devices >= self.generation_capacity {
            self.old = std::mem::take(&mut self.young);
            self.young_devices = 0;
        }
        let devices = self.young.entry(source.clone()).or_default();
        if !remembered {
            let found = self.old.get_mut(source).and_then(|old| old.remove_entry(device));
            let (name, counters) = found.unwrap_or_else(|| (device.into(), Device::default()));
            devices.insert(name, counters);
            self.young_devices += 1;
        }
        devices.get_mut(device).expect("it was found or inserted above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(memory: &mut CounterMemory, device: &str, ts: i64, p: u32, v: f64) -> bool {
        let registry = ParameterRegistry::built_in();
        let source = SourceId::new("s").unwrap();
        let mut flagged = false;
        let values = [Measurement { p: ParameterCode(p), v }];
        memory.check(&registry, &source, device, Timestamp(ts), &values, |_| flagged = true);
        flagged
    }

    #[test]
    fn a_counter_below_its_last_value_is_backwards() {
        let mut memory = CounterMemory::default();
        let cases = [
            // time, value, backwards, why
            (10, 100.0, false, "the first value is not checked"),
            (20, 120.0, false, "it grows"),
            (20, 120.0, false, "a redelivery is checked as before"),
            (30, 120.0, false, "it stands still"),
            (40, 5.0, true, "it was reset"),
            (40, 5.0, true, "a redelivery is flagged as before"),
            (40, 130.0, false, "a correction of the same time is checked anew"),
            (35, 1.0, false, "a late reading is not checked"),
            (50, 129.999_999_99, false, "rounding is not a fall"),
            (60, 129.9, true, "a small fall is one"),
        ];
        for (ts, value, backwards, why) in cases {
            assert_eq!(check(&mut memory, "d", ts, 402, value), backwards, "{why}");
        }
    }

    #[test]
    fn a_gauge_may_fall_and_devices_are_apart() {
        let mut memory = CounterMemory::default();
        assert!(!check(&mut memory, "a", 1, 401, 10.0));
        assert!(!check(&mut memory, "a", 2, 401, -10.0));
        assert!(!check(&mut memory, "a", 3, 402, 10.0));
        assert!(!check(&mut memory, "b", 4, 402, 5.0));
        assert!(!check(&mut memory, "a", 5, 404, 5.0));
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_used() {
        let mut memory = CounterMemory::with_capacity(100);
        for n in 0..1_000 {
            check(&mut memory, &format!("d{n}"), n, 402, 1.0);
            check(&mut memory, "busy", n, 402, 1e6 + n as f64);
            assert!(memory.devices() <= 100);
        }
        assert!(check(&mut memory, "busy", 20_000, 402, 5.0));
    }
}

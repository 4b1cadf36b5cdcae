//! UC4: what the groups draw that sensors are in, and the groups that these are in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use galerna_state::prelude::*;
use galerna_topology::prelude::*;
use galerna_windows::{Aggregate, EventTime, Window, WindowResult, WindowTopology};

use super::PowerRecord;
use crate::nexmark::window_end;

/// How long a window is. What a group drew in one is its reading in the next.
pub const PERIOD: Duration = Duration::from_secs(5);

/// In which groups a sensor or group is from some time on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The sensor or group.
    pub child: String,
    /// The groups that it is in now.
    pub parents: Vec<String>,
    /// Since when, in milliseconds since 1970.
    pub at: i64,
}

/// What a group drew in a window.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPower {
    /// The group.
    pub group: String,
    /// Where the window ends, in milliseconds since 1970.
    pub end: i64,
    /// Of how many members there is a reading.
    pub count: u64,
    /// The sum of the last reading of each, in watts.
    pub sum_in_w: f64,
    /// Their average.
    pub average_in_w: f64,
}

/// A tree of groups in groups: each node has four children, and the leaves are the sensors `s_0` to `s_{4^levels - 1}`. The root is
/// `group_lvl_0`, other groups are `g_<level>_<number>`.
pub fn tree(levels: u32, at: i64) -> Vec<Membership> {
    let name = |level: u32, number: u64| match level {
        0 => "group_lvl_0".to_owned(),
        level if level == levels => format!("s_{number}"),
        level => format!("g_{level}_{number}"),
    };
    let level = |level: u32| (0..4_u64.pow(level)).map(move |number| (level, number));
    (1..=levels)
        .flat_map(level)
        .map(|(level, number)| Membership {
            child: name(level, number),
            parents: vec![name(level - 1, number / 4)],
            at,
        })
        .collect()
}

/// A reading of a member of a group; none when it has left.
#[derive(Debug, Clone)]
struct Member {
    group: String,
    child: String,
    at: i64,
    watts: Option<f64>,
}

#[derive(Debug, Clone)]
enum Known {
    Reading(PowerRecord),
    Membership(Membership),
}

/// Gives a reading to all groups that its sensor is in, and tells a group that a member has left it.
#[derive(Default)]
struct Parents(Option<ValueState<Vec<String>>>);

impl Bolt for Parents {
    type Input = Known;
    type Outputs = Output<Member>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.0 = Some(context.state()?.value("parents")?);
        Ok(())
    }

    fn execute(&mut self, known: Known, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let parents = self.0.as_mut().ok_or_else(|| Fault::permanent("it was not prepared"))?;
        match known {
            Known::Reading(PowerRecord { identifier: child, timestamp: at, value_in_w }) => {
                for group in parents.get(&child)?.unwrap_or_default() {
                    out.emit(Member { group, child: child.clone(), at, watts: Some(value_in_w) });
                }
            }
            Known::Membership(Membership { child, parents: now, at }) => {
                let before = parents.get(&child)?.unwrap_or_default();
                for group in before.into_iter().filter(|group| !now.contains(group)) {
                    out.emit(Member { group, child: child.clone(), at, watts: None });
                }
                parents.set(&child, &now)?;
            }
        }
        Ok(())
    }
}

/// The last reading of each member.
struct Latest;

impl Latest {
    fn take(members: &mut BTreeMap<String, (i64, Option<f64>)>, child: String, at: i64, watts: Option<f64>) {
        let latest = members.entry(child).or_insert((at, watts));
        if latest.0 <= at {
            *latest = (at, watts);
        }
    }
}

impl Aggregate<Member> for Latest {
    type Accumulator = BTreeMap<String, (i64, Option<f64>)>;
    /// How many, and their sum.
    type Output = (u64, f64);

    fn create(&self) -> Self::Accumulator {
        BTreeMap::new()
    }

    fn add(&self, members: &mut Self::Accumulator, member: Member) {
        Self::take(members, member.child, member.at, member.watts);
    }

    fn merge(&self, members: &mut Self::Accumulator, later: &Self::Accumulator) {
        for (child, (at, watts)) in later {
            Self::take(members, child.clone(), *at, *watts);
        }
    }

    fn result(&self, members: &Self::Accumulator) -> (u64, f64) {
        let there = members.values().filter_map(|(_, watts)| *watts);
        there.fold((0, 0.0), |(count, sum), watts| (count + 1, sum + watts))
    }
}

/// How many members each group has and what they drew, by the last reading of each in windows of five seconds. It comes again for what is
/// late by up to `grace` (of the benchmark: five seconds). What a group drew is a reading of the group, at the end of its window: it comes
/// back, for the groups that it is in itself.
pub fn uc4(
    topology: &mut TopologyBuilder,
    records: Stream<PowerRecord>,
    memberships: Stream<Membership>,
    tasks: usize,
    grace: Duration,
) -> Stream<GroupPower> {
    let clock = EventTime::of(|record: &PowerRecord| record.timestamp);
    let clocked = topology.event_time("clock", clock, records).parallelism(tasks).outputs();
    let known = EventTime::of(|membership: &Membership| membership.at).idle_after(Duration::from_secs(1));
    let memberships = topology.event_time("memberships-clock", known, memberships).outputs();
    let back = Stream::<PowerRecord>::named("group-readings", "default").feedback();
    let members = topology
        .bolt("parents", Parents::default)
        .keyed_by_as(clocked, |record: &PowerRecord| record.identifier.clone(), Known::Reading)
        .keyed_by_as(back, |record: &PowerRecord| record.identifier.clone(), Known::Reading)
        .keyed_by_as(memberships, |membership: &Membership| membership.child.clone(), Known::Membership)
        .parallelism(tasks)
        .outputs();
    let window = Window::tumbling(PERIOD).event_time(|member: &Member| member.at).allowed_lateness(grace);
    let powers = topology
        .flow(members)
        .key_by(|member| member.group.clone())
        .named("groups")
        .parallelism(tasks)
        .window(window)
        .aggregate_in_state(Latest)
        .named("powers")
        .parallelism(tasks)
        .map(group_power)
        .stream();
    let readings = topology.flow(&powers).named("group-readings").parallelism(tasks);
    // Declared as a step of its own, which is where the cycle closes.
    let _ = readings.map(reading).stream();
    powers
}

fn group_power(result: WindowResult<String, (u64, f64)>) -> GroupPower {
    let (end, (count, sum_in_w)) = (window_end(&result), result.value);
    let average_in_w = if count == 0 { 0.0 } else { sum_in_w / count as f64 };
    GroupPower { group: result.key, end, count, sum_in_w, average_in_w }
}

fn reading(power: GroupPower) -> PowerRecord {
    PowerRecord { identifier: power.group, timestamp: power.end, value_in_w: power.sum_in_w }
}

/// How many levels of groups there can be over so many sensors, with four children each.
pub fn levels_over(sensors: u64) -> u32 {
    sensors.max(4).ilog(4)
}

/// [`uc4`] with a window for each level of a [`tree`] that does not change, instead of a way back: what a level's groups drew in a window
/// are readings of the next level in the next window. Each result comes once, so that it can be compared with other systems'.
pub fn uc4_unrolled(
    topology: &mut TopologyBuilder,
    records: Stream<PowerRecord>,
    tasks: usize,
    levels: u32,
) -> Stream<GroupPower> {
    let parents: HashMap<String, Vec<String>> =
        tree(levels, 0).into_iter().map(|membership| (membership.child, membership.parents)).collect();
    let parents = Arc::new(parents);
    let clock = EventTime::of(|record: &PowerRecord| record.timestamp);
    let mut readings = topology.event_time("clock", clock, records).parallelism(tasks).outputs();
    let mut all = Vec::new();
    for level in (0..levels).rev() {
        let parents = parents.clone();
        let of_level = topology
            .flow(&readings)
            .named(format!("members-{level}"))
            .parallelism(tasks)
            .flat_map(move |record: PowerRecord| {
                let PowerRecord { identifier: child, timestamp: at, value_in_w } = record;
                let groups = parents.get(&child).cloned().unwrap_or_default();
                groups.into_iter().map(move |group| Member {
                    group,
                    child: child.clone(),
                    at,
                    watts: Some(value_in_w),
                })
            })
            .key_by(|member| member.group.clone())
            .named(format!("groups-{level}"))
            .parallelism(tasks)
            .window(Window::tumbling(PERIOD).event_time(|member: &Member| member.at))
            .aggregate_in_state(Latest)
            .named(format!("powers-{level}"))
            .parallelism(tasks)
            .map(group_power)
            .stream();
        if level > 0 {
            let flow = topology.flow(&of_level).named(format!("readings-{level}")).parallelism(tasks);
            readings = flow.map(reading).stream();
        }
        all.push(of_level);
    }
    let powers = topology.map("powers", |power: GroupPower| power).parallelism(tasks);
    all.into_iter().fold(powers, |powers, of_level| powers.local_or_shuffle(of_level)).outputs()
}

//! Random work on a task whose memory has room for few of its keys, beside a plain map.

use std::collections::BTreeMap;
use std::time::Duration;

use galerna_state::{
    CheckpointStore, FolderCheckpoints, KeyGroups, Manifest, SimulatedFiles, SqliteSpill, StateSpec,
    TaskState,
};
use proptest::prelude::*;

use crate::Hand;

#[derive(Debug, Clone)]
enum Work {
    Set(u8, u16),
    Remove(u8),
    Insert(u8, u8, u16),
    RemoveField(u8, u8),
    Push(u8, u16),
    Pop(u8),
    Replace(u8, Vec<u16>),
    Wait(u16),
    Move,
    Checkpoint,
    Crash,
}

fn work() -> impl Strategy<Value = Work> {
    let key = 0_u8..40;
    prop_oneof![
        6 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Work::Set(k, v)),
        2 => key.clone().prop_map(Work::Remove),
        6 => (key.clone(), 0_u8..4, any::<u16>()).prop_map(|(k, f, v)| Work::Insert(k, f, v)),
        2 => (key.clone(), 0_u8..4).prop_map(|(k, f)| Work::RemoveField(k, f)),
        6 => (key.clone(), any::<u16>()).prop_map(|(k, v)| Work::Push(k, v)),
        2 => key.clone().prop_map(Work::Pop),
        1 => (key, prop::collection::vec(any::<u16>(), 0..3)).prop_map(|(k, v)| Work::Replace(k, v)),
        3 => (1_u16..400).prop_map(Work::Wait),
        1 => Just(Work::Move),
        2 => Just(Work::Checkpoint),
        1 => Just(Work::Crash),
    ]
}

/// A value and when it is gone.
type Timed = (u16, i64);

#[derive(Default, Clone)]
struct Model {
    values: BTreeMap<u8, Timed>,
    maps: BTreeMap<u8, BTreeMap<u8, Timed>>,
    lists: BTreeMap<u8, Vec<u16>>,
    now: i64,
}

const LIFE: i64 = 1000;

struct Tested {
    state: TaskState,
    folder: tempfile::TempDir,
    files: u32,
    hand: Hand,
    runtime: tokio::runtime::Runtime,
    store: FolderCheckpoints,
    /// The last checkpoint, and what it holds.
    committed: Option<(Manifest, Model)>,
}

impl Tested {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let store = FolderCheckpoints::open_on(SimulatedFiles::new(), "/c", "t");
        let store = runtime.block_on(store).expect("opened");
        let (hand, folder) = (Hand::default(), tempfile::tempdir().expect("a folder"));
        let mut tested =
            Self { state: crate::alone(), folder, files: 0, hand, runtime, store, committed: None };
        tested.state = tested.open(KeyGroups::all());
        tested
    }

    /// An incremental checkpoint of the only task.
    fn checkpoint(&mut self, model: &Model) {
        let previous = self.committed.as_ref().map(|(manifest, _)| manifest);
        let manifest = self.runtime.block_on(async {
            let id = self.store.begin().await.expect("begun");
            let part = self.state.snapshot(id, previous.map(|manifest| manifest.id)).expect("a snapshot");
            let part = self.store.put(id, part).await.expect("put");
            let manifest = Manifest::assemble(id, "t", 0, previous, &[part], BTreeMap::new()).expect("whole");
            self.store.commit(&manifest).await.expect("committed");
            self.state.committed(id);
            self.store.collect(std::num::NonZeroUsize::MIN).await.expect("collected");
            manifest
        });
        self.committed = Some((manifest, model.clone()));
    }

    /// Ends the task, and begins with the last checkpoint; what the model is then.
    fn crash(&mut self, now: i64) -> Model {
        self.state = self.open(KeyGroups::all());
        let Some((manifest, model)) = &self.committed else { return Model { now, ..Model::default() } };
        self.runtime.block_on(self.state.restore(&self.store, manifest)).expect("restored");
        Model { now, ..model.clone() }
    }

    fn open(&mut self, groups: KeyGroups) -> TaskState {
        self.files += 1;
        let spill =
            SqliteSpill::open(&self.folder.path().join(format!("{}.db", self.files))).expect("it opens");
        let options = self.hand.options(6000, Some(Box::new(spill)));
        TaskState::new("c", self.files, groups, options).expect("a state")
    }
}

fn value_spec() -> StateSpec {
    StateSpec::new("value").time_to_live(Duration::from_millis(LIFE as u64))
}

fn map_spec() -> StateSpec {
    StateSpec::new("map").time_to_live(Duration::from_millis(LIFE as u64))
}

fn run(tested: &mut Tested, model: &mut Model, work: &Work) {
    let state = tested.state.clone();
    let mut values = state.value::<u16>(value_spec()).expect("a handle");
    let mut maps = state.map::<u8, u16>(map_spec()).expect("a handle");
    let mut lists = state.list::<u16>("list").expect("a handle");
    let expires = model.now + LIFE;
    match work {
        Work::Set(key, value) => {
            values.set(key, value).expect("set");
            model.values.insert(*key, (*value, expires));
        }
        Work::Remove(key) => {
            values.remove(key).expect("removed");
            model.values.remove(key);
        }
        Work::Insert(key, field, value) => {
            maps.insert(key, field, value).expect("inserted");
            model.maps.entry(*key).or_default().insert(*field, (*value, expires));
        }
        Work::RemoveField(key, field) => {
            maps.remove(key, field).expect("removed");
            model.maps.entry(*key).or_default().remove(field);
        }
        Work::Push(key, value) => {
            lists.push(key, value).expect("pushed");
            model.lists.entry(*key).or_default().push(*value);
        }
        Work::Pop(key) => {
            let list = model.lists.entry(*key).or_default();
            let first = (!list.is_empty()).then(|| list.remove(0));
            assert_eq!(lists.pop_front(key).expect("popped"), first);
        }
        Work::Replace(key, items) => {
            lists.replace(key, items).expect("replaced");
            model.lists.insert(*key, items.clone());
        }
        Work::Wait(millis) => {
            tested.hand.advance(i64::from(*millis));
            model.now += i64::from(*millis);
        }
        Work::Checkpoint => tested.checkpoint(model),
        Work::Crash => *model = tested.crash(model.now),
        Work::Move => {
            let to = tested.open(KeyGroups::none());
            to.import(&state.export(&KeyGroups::all()).expect("exported")).expect("imported");
            tested.state = to;
        }
    }
}

fn compare(state: &TaskState, model: &Model) {
    let values = state.value::<u16>(value_spec()).expect("a handle");
    let maps = state.map::<u8, u16>(map_spec()).expect("a handle");
    let lists = state.list::<u16>("list").expect("a handle");
    let lives = |(value, expires): &Timed| (*expires > model.now).then_some(*value);
    for key in 0..40 {
        assert_eq!(values.get(&key).expect("read"), model.values.get(&key).and_then(lives), "value {key}");
        let fields = model.maps.get(&key).into_iter().flatten();
        let fields: Vec<(u8, u16)> =
            fields.filter_map(|(field, value)| Some((*field, lives(value)?))).collect();
        assert_eq!(maps.entries(&key).expect("read"), fields, "map {key}");
        assert_eq!(
            lists.get(&key).expect("read"),
            model.lists.get(&key).cloned().unwrap_or_default(),
            "list {key}"
        );
    }
    let mut all: Vec<(u8, u16)> = values.collect().expect("read");
    all.sort_unstable();
    let expected: Vec<_> =
        model.values.iter().filter_map(|(key, value)| Some((*key, lives(value)?))).collect();
    assert_eq!(all, expected);
    let mut all: Vec<(u8, Vec<u16>)> = lists.collect().expect("read");
    all.sort_unstable();
    let expected: Vec<_> =
        model.lists.iter().filter(|(_, list)| !list.is_empty()).map(|(k, l)| (*k, l.clone())).collect();
    assert_eq!(all, expected);
    assert!(state.size().bytes_in_memory <= 6000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn state_that_spills_expires_moves_and_is_restored_is_a_map(works in prop::collection::vec(work(), 1..200)) {
        let mut tested = Tested::new();
        let mut model = Model::default();
        for (n, work) in works.iter().enumerate() {
            run(&mut tested, &mut model, work);
            if n % 50 == 49 {
                compare(&tested.state, &model);
            }
        }
        compare(&tested.state, &model);
    }
}

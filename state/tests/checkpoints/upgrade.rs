//! What another program would make of a checkpoint.

use galerna_state::{
    CheckpointStore, FolderCheckpoints, SimulatedFiles, StateDeclaration, StateFate, StateKind, StateSpec,
    plan_upgrade,
};

use crate::Topology;

fn declared(component: &str, kind: StateKind, spec: StateSpec) -> StateDeclaration {
    StateDeclaration { component: component.to_owned(), kind, spec }
}

#[tokio::test]
async fn each_state_is_claimed_migrated_orphaned_refused_or_new() {
    let store = FolderCheckpoints::open_on(SimulatedFiles::new(), "/c", "t").await.expect("opened");
    let mut topology = Topology::new(2);
    (0..20).for_each(|n| topology.execute(n, 1));
    topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    let manifest = store.latest().await.expect("read").expect("there");

    let plan = plan_upgrade(
        &manifest,
        &[
            declared("count", StateKind::Value, StateSpec::new("count")),
            declared("count", StateKind::Map, StateSpec::new("by hour")),
        ],
    );
    let fates: Vec<_> =
        plan.states.iter().map(|s| (s.component.as_str(), s.state.as_str(), &s.fate)).collect();
    assert!(matches!(
        fates[..],
        [
            ("count", "by hour", StateFate::New),
            ("count", "count", StateFate::Claimed { version: 1 }),
            ("join", "recent", StateFate::Orphaned { version: 1 }),
        ]
    ));
    assert_eq!((plan.refused().count(), plan.orphaned().count()), (0, 1));
    assert!(plan.states[1].bytes > 0);
    let text = plan.to_string();
    assert!(text.contains("join/recent: orphaned") && text.contains("count/by hour: new"), "{text}");

    let plan = plan_upgrade(
        &manifest,
        &[
            declared(
                "count",
                StateKind::Value,
                StateSpec::new("count").version(3).migrate(1, |n: u64| Ok(n)).migrate(2, |n: u64| Ok(n)),
            ),
            declared("join", StateKind::Value, StateSpec::new("recent")),
        ],
    );
    assert!(matches!(&plan.states[0].fate, StateFate::Migrated { versions } if *versions == [1, 2, 3]));
    assert!(matches!(&plan.states[1].fate, StateFate::Refused(_)));
    assert!(plan.to_string().contains("versions 1 -> 2 -> 3"), "{plan}");
    assert!(plan.to_string().contains("kept as a list, not a value"), "{plan}");

    let gap = StateSpec::new("count").version(3).migrate(1, |n: u64| Ok(n));
    let plan = plan_upgrade(&manifest, &[declared("count", StateKind::Value, gap)]);
    assert_eq!(plan.refused().count(), 1);
    let twice = declared("join", StateKind::List, StateSpec::new("recent"));
    let plan = plan_upgrade(&manifest, &[twice.clone(), twice]);
    assert!(plan.to_string().contains("declared twice"), "{plan}");
}

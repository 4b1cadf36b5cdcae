//! Many seeds, and that the checks see what is wrong. `GALERNA_SIMULATION_SEEDS=FIRST..END` runs others.

use galerna_simulation::{Options, run};

/// The seeds to run: some, or those asked for.
fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("GALERNA_SIMULATION_SEEDS") else { return 0..120 };
    let (first, end) = asked.split_once("..").expect("GALERNA_SIMULATION_SEEDS is FIRST..END");
    first.parse().expect("FIRST is a number")..end.parse().expect("END is a number")
}

#[test]
fn nothing_is_lost_and_no_queue_has_two_holders_whatever_fails() {
    for seed in seeds() {
        let outcome = run(&Options::new(seed)).expect("it is set up");
        assert_eq!(
            outcome.violation, None,
            "seed {seed}; `cargo run -p galerna-simulation -- {seed}` shows its steps"
        );
    }
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 0..20 {
        let [first, second] = [(); 2].map(|()| run(&Options::new(seed)).expect("it is set up"));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn workers_that_go_on_when_their_lease_is_over_are_found() {
    let careless = |seed| run(&Options { careless: true, ..Options::new(seed) }).expect("it is set up");
    let found = (0..40).filter_map(|seed| careless(seed).violation);
    assert!(found.into_iter().any(|violation| violation.contains("at most one live lease")));
}

//! Each example runs and prints what it is there to show.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// So long may an example take on a machine that compiles meanwhile.
const LIMIT: Duration = Duration::from_secs(180);

/// Cargo builds the examples before it runs the tests, beside the folder that these are in.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let folder = test.ancestors().nth(2).expect("tests are in `deps`");
    folder.join("examples").join(name)
}

/// The lines that an example prints.
async fn run(name: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let mut command = Command::new(program(name));
    command.envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .unwrap_or_else(|_| panic!("`{name}` did not end in {LIMIT:?}"))
        .unwrap_or_else(|error| {
            panic!("`{name}` cannot be run, is it built (`cargo build --examples`)? {error}")
        });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{name}` ended with {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test]
async fn word_count_counts_every_word() {
    let lines = run("word_count", &[]).await;
    let words: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    for expected in ["the 4", "seven 2", "and 2", "dwarfs 1", "sentences: 4 emitted, 4 acked"] {
        assert!(words.contains(&expected), "{expected} is not in {lines:#?}");
    }
}

#[tokio::test]
async fn several_topologies_run_in_one_process() {
    let lines = run("control", &[("EXIT", "1")]).await;
    assert!(lines[0].starts_with("see http://127.0.0.1:"), "{lines:#?}");
    assert_eq!(lines[1..], ["words is active", "clock is inactive"]);
}

#[tokio::test]
async fn a_call_goes_through_a_topology_and_comes_back() {
    assert_eq!(run("drpc", &[("EXIT", "1")]).await, ["aaa!!!"]);
}

#[tokio::test]
async fn a_bolt_in_python_splits_sentences() {
    let python = galerna_test_servers::pystorm_python();
    // The example runs the bolt in another folder. Links stay: a virtual environment is known by them.
    let folder = python.parent().and_then(|folder| folder.canonicalize().ok()).expect("it is in a folder");
    let python = folder.join(python.file_name().expect("it has a name"));
    let lines = run("python_bolt", &[("PYTHON", python.to_str().expect("it is text"))]).await;
    for expected in ["the 4", "seven 1", "and 2", "sentences: 4 emitted, 4 acked"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in {lines:#?}");
    }
}

#[tokio::test]
async fn windows_take_what_comes_out_of_order_and_tell_of_what_comes_too_late() {
    let lines = run("windows", &[]).await;
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    for expected in [
        "attic  0 to 15 min: 3 readings, mean 22 (OnTime)",
        "cellar  0 to 15 min: 1 readings, mean 9 (OnTime)",
        "cellar  0 to 15 min: 2 readings, mean 8 (Late)",
        "cellar 15 to 30 min: 1 readings, mean 11 (OnTime)",
        "attic 45 to 60 min: 1 readings, mean 28 (OnTime)",
        "cellar of minute 2 is 51 min late",
    ] {
        assert!(trimmed.contains(&expected), "{expected} is not in {lines:#?}");
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
}

#[tokio::test]
async fn windows_in_state_count_each_reading_once_though_the_process_is_killed() {
    let lines = run("durable_windows", &[]).await;
    let mut expected = vec!["killed".to_owned(); 3];
    for device in ["attic", "cellar", "garage"] {
        expected.extend((0..4).map(|hour| format!("{device} hour {hour}: 60 readings")));
    }
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn each_word_counts_once_though_all_are_delivered_twice() {
    let lines = run("state", &[]).await;
    for expected in [
        "the 3",
        "moon 2",
        "acked before the checkpoint: 0",
        "checkpoint 1: 8 messages in doubt",
        "counted again: 0, acked: 8",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in {lines:#?}");
    }
    assert_eq!(lines.len(), 12, "{lines:#?}");
}

#[tokio::test]
async fn a_schedule_over_the_night_in_which_the_clocks_go_forward() {
    let lines = run("schedules", &[]).await;
    assert_eq!(
        lines,
        [
            "next 2026-03-29T01:00:00Z",
            "next 2026-03-30T00:30:00Z",
            "next 2026-03-31T00:30:00Z",
            "running reports/nightly@2026-03-31T11:00:00Z#triggered-1",
            "reports/nightly@2026-03-29T01:00:00Z missed.catchup_window",
            "reports/nightly@2026-03-30T00:30:00Z missed.catchup_window",
            "reports/nightly@2026-03-31T00:30:00Z missed.catchup_window",
            "reports/nightly@2026-03-31T11:00:00Z#triggered-1 done",
        ]
    );
}

#[tokio::test]
async fn several_outputs_go_several_ways() {
    let lines = sorted(run("several_outputs", &[]).await);
    assert_eq!(
        lines,
        [
            "\"\" is no temperature: cannot parse float from empty string",
            "\"warm\" is no temperature: invalid float literal",
            "-3 °C",
            "21.5 °C",
            "400 °C",
        ]
    );
}

#[tokio::test]
async fn feedback_goes_round_until_each_number_has_arrived() {
    let lines = run("feedback", &[]).await;
    assert_eq!(lines.len(), 28, "{lines:#?}");
    for expected in ["1 takes 0 steps", "7 takes 16 steps", "27 takes 111 steps"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in {lines:#?}");
    }
    assert_eq!(lines[27], "27 roots are done");
}

#[tokio::test]
async fn calls_are_made_again_unless_their_fault_is_permanent() {
    let lines = run("calls", &[]).await;
    let priced = (1..=20_u32).filter(|article| *article != 13);
    let mut expected: Vec<String> = priced
        .map(|article| (article, 100 + 25 * article))
        .map(|(article, cents)| format!("article {article}: {}.{:02}", cents / 100, cents % 100))
        .collect();
    expected.push("19 priced, 1 without a price".to_owned());
    assert_eq!(lines, expected, "in their order");
}

#[tokio::test]
async fn anchored_to_four_roots_a_mean_that_fails_brings_back_all_four() {
    let lines = run("anchoring", &[]).await;
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[..2].iter().all(|line| line.starts_with("stored ")), "{lines:#?}");
    assert_eq!(lines[2], "4 roots failed, 8 are done");
}

#[tokio::test]
async fn a_custom_spout_emits_again_what_may_succeed() {
    let lines = sorted(run("custom_spout", &[]).await);
    assert_eq!(lines, ["coffee is shipped", "lead balloon is given up: nobody ships that", "tea is shipped"]);
}

#[tokio::test]
async fn the_harness_tests_two_minutes_in_no_time() {
    let lines = run("testing", &[]).await;
    assert_eq!(lines, ["counted [2, 1] in two minutes that took none"]);
}

#[tokio::test]
async fn rabbitmq_gives_its_messages_and_they_are_acked() {
    let url = galerna_test_servers::RabbitMq::shared().await.vhost().await;
    let lines = run("rabbitmq", &[("AMQP_URL", &url)]).await;
    let (acked, said) = lines.split_last().expect("it printed something");
    let mut expected = Vec::new();
    for account in ["bear", "fox"] {
        for n in 1..=3 {
            expected.push(format!("example-{account}: {account} says {n}"));
        }
    }
    let in_any_order = sorted(said.to_vec());
    assert_eq!(in_any_order, expected);
    assert_eq!(acked, "6 messages acked");
}

#[tokio::test]
async fn without_a_server_the_rabbitmq_example_says_what_to_set() {
    let mut command = Command::new(program("rabbitmq"));
    let output = command.env_remove("AMQP_URL").output().await.expect("it can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("set AMQP_URL"), "{errors}");
}

#[tokio::test]
async fn energy_stores_every_reading_and_raises_alerts() {
    let lines = run("energy", &[]).await;
    let last = lines.last().expect("it printed something");
    let numbers: Vec<u64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(last.contains("readings published"), "{last}");
    assert_eq!(numbers.len(), 3, "{last}");
    assert!(numbers[0] > 0 && numbers[0] == numbers[1] && numbers[2] > 0, "{last}");
}

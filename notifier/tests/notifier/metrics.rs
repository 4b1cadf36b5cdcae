//! Metrics as Prometheus wants them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::receiver::{Answer, Receiver};
use crate::world::{World, options, raised, resolved};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_accepts_the_metrics() {
    let mut world = World::embedded().await;
    let receiver = Receiver::answering(|_, before| Answer::Status(if before == 0 { 500 } else { 200 })).await;
    world.hook(&receiver.url()).await;
    let notifier = world.start(options()).await;
    world.raise(&[raised("d", 0), resolved("d", 10)]).await;
    world.quiet(2).await;
    let metrics = notifier.metrics_text();

    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("servers/bin/promtool");
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let program = named.unwrap_or(if fetched.is_file() { fetched } else { PathBuf::from("promtool") });
    let mut promtool = Command::new(&program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!(
                "{} does not run ({e}): run scripts/servers, which fetches it, or name one in PROMTOOL",
                program.display()
            )
        });
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{metrics}");
}

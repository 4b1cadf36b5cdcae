//! How the program is asked to stop.

use tokio_util::sync::CancellationToken;

/// Exit code of a stop that did not wait: that of a process ended by SIGINT, as shells report it.
const HARD: i32 = 130;

/// Listens for SIGTERM and Ctrl-C. The first cancels the token: services drain. The second ends the process at once,
/// which loses nothing either, since what was not settled comes again.
///
/// # Errors
/// When signals cannot be listened for.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let stop = token.clone();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(
            signal = name,
            "stopping: draining what is in flight; send the signal again to stop at once"
        );
        stop.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "stopping at once; what was in flight will be delivered again");
        std::process::exit(HARD);
    });
    Ok(token)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        // Without a handler the system ends the process, which is the hard stop.
        drop(tokio::signal::ctrl_c().await);
        "Ctrl-C"
    }
}

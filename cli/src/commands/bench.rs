//! `galerna bench`: a module under load.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use async_trait::async_trait;
use galerna_dispatcher::load::{self, LoadOptions, LoadReport};
use galerna_dispatcher::{ClientOptions, DispatcherClient, Leases, MaintainerLink, Ping, PingError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::args::BenchDispatcherArgs;
use galerna_server::{backends, modules};
use galerna_settings::Settings;
use galerna_terminal::{print, print_json, table, thousands};

/// Says that the counts are fresh: nothing else runs that would count.
struct Counted;

#[async_trait]
impl Ping for Counted {
    async fn ping(&self) -> Result<(), PingError> {
        Ok(())
    }
}

/// Leases and releases queues from many callers at once, on the store of the configuration.
///
/// # Errors
/// When the store holds queues of others: the load would lease them.
pub(crate) async fn dispatcher(args: &BenchDispatcherArgs, settings: Settings) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("galerna-bench-").tempdir()?;
    let settings = if settings.data_is_set() { settings } else { settings.with_data(folder.path()) };
    let store = backends::store(&settings).await?;
    let foreign = store.queues.all().await?.into_iter().find(|record| {
        let name = record.queue.as_str();
        !name
            .strip_prefix('L')
            .is_some_and(|digits| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()))
    });
    ensure!(
        foreign.is_none(),
        "the store has queues that are not of a load, such as `{}`; name a database of its own with --store",
        foreign.map_or(String::new(), |record| record.queue.to_string())
    );
    load::prepare(&store, args.queues).await?;
    let link = MaintainerLink::Local(Arc::new(Counted));
    let dispatcher = modules::dispatcher(&settings, &store, link, Default::default()).await?;
    let services = CancellationToken::new();
    let leases: Arc<dyn Leases> = if args.http {
        let listener = modules::listen(([127, 0, 0, 1], 0).into(), "the load").await?;
        let url = format!("http://{}", listener.local_addr()?);
        drop(galerna_server::serve_api(
            &settings,
            listener,
            (dispatcher.clone(), &store),
            Default::default(),
            services.clone(),
        )?);
        let token = settings.api.token.clone();
        Arc::new(DispatcherClient::new(&url, ClientOptions { token, ..ClientOptions::default() })?)
    } else {
        Arc::new(dispatcher.clone())
    };
    let mut reports: Vec<LoadReport> = Vec::new();
    for callers in &args.callers {
        let options = LoadOptions {
            callers: *callers,
            time: Duration::from_secs(args.seconds),
            ..LoadOptions::default()
        };
        reports.push(load::run(Arc::clone(&leases), &options).await);
    }
    services.cancel();
    dispatcher.shutdown().await;
    if args.json {
        return print_json(&json!({
            "queues": args.queues,
            "http": args.http,
            "strategy": dispatcher.view().strategy.to_string(),
            "runs": reports,
        }));
    }
    let mut shown = table(&["#callers", "#leases/s", "#mean ms", "#p50 ms", "#p99 ms", "#max ms", "#errors"]);
    for r in &reports {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate: positive, far below 2^52"
        )]
        let rate = thousands(r.leases_per_second as u64);
        let ms = |v: f64| format!("{v:.2}");
        let cells = [r.callers.to_string(), rate, ms(r.mean_ms), ms(r.p50_ms), ms(r.p99_ms), ms(r.max_ms)];
        shown.add_row(cells.into_iter().chain([r.errors.to_string()]));
    }
    print(shown)
}

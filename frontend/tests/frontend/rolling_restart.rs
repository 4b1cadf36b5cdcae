//! Two frontends are restarted one after the other, as in an update, while concentrators post: no call is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use galerna_frontend::{Limits, Options, Rate, Timeouts};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::world::{DEADLINE, World};

/// Chooses among frontends as a load balancer does: by what `/readyz` says.
struct Balancer {
    addresses: [String; 2],
    ready: [AtomicBool; 2],
    next: AtomicU64,
}

impl Balancer {
    async fn watch(&self) {
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        loop {
            for (address, ready) in self.addresses.iter().zip(&self.ready) {
                let answer = http.get(format!("http://{address}/readyz")).send().await;
                ready.store(answer.is_ok_and(|a| a.status() == 200), Ordering::SeqCst);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn choose(&self) -> &str {
        let turn = usize::try_from(self.next.fetch_add(1, Ordering::SeqCst) % 2).unwrap();
        let chosen = if self.ready[turn].load(Ordering::SeqCst) { turn } else { 1 - turn };
        &self.addresses[chosen]
    }

    async fn until(&self, frontend: usize, ready: bool) {
        let changed = async {
            while self.ready[frontend].load(Ordering::SeqCst) != ready {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, changed).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_under_load_loses_no_call() {
    let broker = galerna_broker::open("embedded::memory:").await.unwrap();
    // Longer than the balancer needs to notice on a machine that does other things too.
    let timeouts = Timeouts { notice: Duration::from_secs(3), ..Timeouts::default() };
    // No call is to be refused because its source sends many.
    let limits = Limits { calls: Rate::new(u32::MAX, u32::MAX), ..Limits::default() };
    let options = Options { limits, timeouts, ..Options::default() };
    let mut frontends = Vec::new();
    for _ in 0..2 {
        frontends.push(World::on(Arc::clone(&broker), options.clone(), &[("c1", "a")]).await);
    }
    let balancer = Arc::new(Balancer {
        addresses: [frontends[0].address.clone(), frontends[1].address.clone()],
        ready: [AtomicBool::new(false), AtomicBool::new(false)],
        next: AtomicU64::new(0),
    });
    let watching = tokio::spawn({
        let balancer = Arc::clone(&balancer);
        async move { balancer.watch().await }
    });
    for frontend in 0..2 {
        balancer.until(frontend, true).await;
    }

    let (stop, posted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // Half of the clients keep their connections, half make one for each call.
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (balancer, stop, posted) = (Arc::clone(&balancer), Arc::clone(&stop), Arc::clone(&posted));
            tokio::spawn(async move {
                let idle = if client % 2 == 0 { usize::MAX } else { 0 };
                let http = reqwest::Client::builder().pool_max_idle_per_host(idle).timeout(DEADLINE).build().unwrap();
                let mut taken = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let did = format!("d{}", posted.fetch_add(1, Ordering::SeqCst));
                    let reading =
                        json!({"did": did, "values": [{"p": 401, "v": 1.5}], "sqn": 1, "ts": "2015-04-21T23:15:00Z"});
                    let address = balancer.choose();
                    let url = format!("http://{address}/readings?source_key=c1&x-dexcell-source-token=token-c1");
                    // Each call is made once: a call that fails is a call that is lost.
                    let answer = http.post(url).json(&reading).send().await.unwrap_or_else(|e| panic!("lost at {address}: {e:?}"));
                    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
                    assert_eq!(status, 202, "{body}");
                    taken.push(did);
                    sleep(Duration::from_millis(2)).await;
                }
                taken
            })
        })
        .collect();
    let calls = async |more: u64| {
        let goal = posted.load(Ordering::SeqCst) + more;
        let reached = async {
            while posted.load(Ordering::SeqCst) < goal {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap();
    };

    calls(200).await;
    for frontend in 0..2 {
        let old = frontends.remove(0);
        let address = old.address.clone();
        old.begin_stop();
        balancer.until(frontend, false).await;
        let (folder, broker) = old.stopped().await;
        calls(100).await;
        let listener = TcpListener::bind(&address).await.unwrap();
        frontends.push(World::listening(listener, folder, broker, options.clone()).await);
        balancer.until(frontend, true).await;
        calls(200).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut taken = HashSet::new();
    for client in clients {
        taken.extend(timeout(DEADLINE, client).await.unwrap().unwrap());
    }
    watching.abort();
    let arrived: HashSet<String> = frontends[0].take_all("a").await.into_iter().map(|r| r.did).collect();
    assert!(taken.len() >= 600, "{}", taken.len());
    assert_eq!(taken.difference(&arrived).count(), 0, "what was answered 202 is in the queue");
    for frontend in frontends {
        frontend.stopped().await;
    }
}

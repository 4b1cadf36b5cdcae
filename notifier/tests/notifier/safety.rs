//! Webhooks do not reach into the network.

use galerna_notifier::{AllowList, Options};
use galerna_storage::DeliveryStatus::{Dead, Delivered};

use crate::receiver::Receiver;
use crate::world::{World, hook, options, raised};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_addresses_are_refused_however_they_are_written() {
    let mut world = World::embedded().await;
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let urls = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.0.0.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "https://[fd00::1]/".to_owned(),
        "http://100.64.0.1/".to_owned(),
    ];
    let ids: Vec<String> = (0..urls.len()).map(|i| format!("e{i}")).collect();
    for (id, url) in ids.iter().zip(&urls) {
        world.endpoint(hook(id, url)).await;
    }
    world.rule("r", &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.start(Options { allow: AllowList::default(), ..options() }).await;
    world.raise(&[raised("d", 0)]).await;
    world.quiet(urls.len()).await;
    let deliveries = world.deliveries().await;
    assert_eq!(deliveries.len(), urls.len());
    for delivery in deliveries {
        assert_eq!((delivery.status, delivery.tries), (Dead, 1), "{delivery:?}");
        let reason = delivery.reason.unwrap();
        assert!(reason.starts_with("url: ") && reason.contains("is an internal address"), "{reason}");
    }
    assert_eq!(receiver.calls().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_configured_is_allowed() {
    for allowed in ["127.0.0.0/8", "localhost"] {
        let mut world = World::embedded().await;
        let receiver = Receiver::start().await;
        world.endpoint(hook("name", &format!("http://localhost:{}/", receiver.address.port()))).await;
        world.endpoint(hook("address", &receiver.url())).await;
        world.rule("r", &["name", "address"]).await;
        world.start(Options { allow: AllowList::parse([allowed]).unwrap(), ..options() }).await;
        world.raise(&[raised("d", 0)]).await;
        world.quiet(2).await;
        for delivery in world.deliveries().await {
            let expected =
                if delivery.endpoint == "name" || allowed != "localhost" { Delivered } else { Dead };
            assert_eq!(delivery.status, expected, "{allowed}: {delivery:?}");
        }
    }
}

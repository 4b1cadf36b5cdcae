//! The way of a reading, from leased queues to the store, on embedded parts and on the real servers.

mod faults;
mod leases;
mod way;
mod world;

/// Makes two tests of a scenario: one on the embedded broker and store, one on RabbitMQ and MongoDB.
macro_rules! on_both {
    ($($(#[$doc:meta])* $scenario:ident ($lease_ms:literal)),+ $(,)?) => {
        $(
            mod $scenario {
                use std::time::Duration;

                const LEASE: Duration = Duration::from_millis($lease_ms);

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn embedded() {
                    super::scenarios::$scenario(crate::world::World::embedded(LEASE).await).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn servers() {
                    super::scenarios::$scenario(crate::world::World::servers(LEASE).await).await;
                }
            }
        )+
    };
}
pub(crate) use on_both;

//! What this process did with its broker, as Prometheus reads it.

use std::collections::HashMap;
use std::sync::Arc;

use galerna_broker::Broker;
use galerna_control::metrics::Families;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use crate::modules::Workers;

const BROKER_MESSAGES: &str = "galerna_broker_messages_total";
const BROKER_MESSAGES_HELP: &str = "Messages by what this process did with them: published, confirmed, delivered, acked, retried, dead_lettered.";

/// What was done through this process's handle of the broker. The broker counts by itself, so it is made when it is read.
struct BrokerMessages {
    broker: Arc<dyn Broker>,
    description: Desc,
}

/// Has the registry tell of the topologies and of the broker of this process.
///
/// # Errors
/// When it does so already.
pub(crate) fn register(
    registry: &Registry,
    workers: &Workers,
    broker: Arc<dyn Broker>,
) -> Result<(), prometheus::Error> {
    galerna_control::metrics::register(registry, workers.topologies().clone())?;
    let labels = vec!["event".to_owned()];
    let (name, help) = (BROKER_MESSAGES.to_owned(), BROKER_MESSAGES_HELP.to_owned());
    let description = Desc::new(name, help, labels, HashMap::new())?;
    registry.register(Box::new(BrokerMessages { broker, description }))
}

impl Collector for BrokerMessages {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let broker = self.broker.counts();
        for (event, count) in [
            ("published", broker.published),
            ("confirmed", broker.confirmed),
            ("delivered", broker.delivered),
            ("acked", broker.acked),
            ("retried", broker.retried),
            ("dead_lettered", broker.dead_lettered),
        ] {
            families.counter(BROKER_MESSAGES, BROKER_MESSAGES_HELP, &[("event", event)], count);
        }
        families.into_families()
    }
}

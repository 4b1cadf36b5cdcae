//! What goes wrong, in which order, for how long.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::network;
use crate::node::Program;

/// A kind of process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A worker.
    Worker,
    /// A dispatcher.
    Dispatcher,
    /// A frontend.
    Frontend,
    /// A maintainer.
    Maintainer,
    /// A node of RabbitMQ.
    RabbitMq,
    /// The primary of MongoDB.
    MongoDb,
}

impl Kind {
    fn program(self) -> Program {
        match self {
            Self::Worker => Program::Worker,
            Self::Dispatcher => Program::Dispatcher,
            Self::Frontend => Program::Frontend,
            Self::Maintainer => Program::Maintainer,
            Self::RabbitMq => Program::RabbitMq,
            Self::MongoDb => Program::MongoDb,
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing does.
    None,
    /// `kill -9` of one process, which is started again at the end.
    Kill(Kind),
    /// `kill -9` of all dispatchers at once.
    KillDispatchers,
    /// A worker is frozen, and continued at the end.
    Freeze,
    /// The node of MongoDB's primary is cut off from the others.
    Partition,
    /// The same node can send nothing to the others, but hears them.
    OneWay,
    /// A node is cut off and joined again, every two seconds.
    Flapping,
    /// A node has a link of 256 kbit/s.
    Slow,
    /// Two of three nodes die with all that runs on them, and come back.
    QuorumLost,
    /// A node dies, and its disk with it.
    NodeLost,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Kill(Kind::Worker) => "kill -9 of a worker",
            Self::Kill(Kind::Dispatcher) => "kill -9 of a dispatcher",
            Self::Kill(Kind::Frontend) => "kill -9 of a frontend",
            Self::Kill(Kind::Maintainer) => "kill -9 of a maintainer",
            Self::Kill(Kind::RabbitMq) => "kill -9 of a RabbitMQ node",
            Self::Kill(Kind::MongoDb) => "kill -9 of MongoDB's primary",
            Self::KillDispatchers => "kill -9 of all dispatchers",
            Self::Freeze => "a worker frozen past its leases",
            Self::Partition => "partition: a node cut off",
            Self::OneWay => "partition: one way",
            Self::Flapping => "partition: flapping",
            Self::Slow => "a slow link",
            Self::QuorumLost => "quorum lost, and back",
            Self::NodeLost => "a node lost for good",
        })
    }
}

/// Faults one after the other, each with how long it lasts.
#[derive(Clone, Debug)]
pub struct Plan(pub Vec<(Fault, Duration)>);

impl Plan {
    /// A few, that take about two minutes.
    #[must_use]
    pub fn short() -> Self {
        let seconds = Duration::from_secs;
        Self(vec![
            (Fault::Kill(Kind::Worker), seconds(4)),
            (Fault::Partition, seconds(12)),
            (Fault::OneWay, seconds(12)),
        ])
    }

    /// All of them, so many times; a node is lost at the very end.
    #[must_use]
    pub fn long(rounds: usize, seconds: u64) -> Self {
        let kinds =
            [Kind::Worker, Kind::Dispatcher, Kind::Frontend, Kind::Maintainer, Kind::RabbitMq, Kind::MongoDb];
        let others = [
            Fault::KillDispatchers,
            Fault::Freeze,
            Fault::Partition,
            Fault::OneWay,
            Fault::Flapping,
            Fault::Slow,
            Fault::QuorumLost,
        ];
        let round: Vec<Fault> = kinds.map(Fault::Kill).into_iter().chain(others).collect();
        let all = std::iter::once(Fault::None).chain((0..rounds).flat_map(|_| round.clone()));
        let lasting = Duration::from_secs(seconds);
        Self(all.chain([Fault::NodeLost]).map(|fault| (fault, lasting)).collect())
    }
}

impl Fault {
    /// Makes it happen, and ends it after `lasting`; `turn` says which node is concerned where that is all the same.
    pub(crate) async fn happen(
        self,
        cluster: &mut Cluster,
        lasting: Duration,
        turn: usize,
    ) -> Result<String> {
        let node = network::NODES[turn % network::NODES.len()];
        let name = network::name;
        match self {
            Self::None => {
                tokio::time::sleep(lasting).await;
                Ok(String::new())
            }
            Self::Kill(kind) => {
                let node = if kind == Kind::MongoDb { cluster.primary().await? } else { node };
                cluster.node(node).kill(kind.program()).await?;
                tokio::time::sleep(lasting).await;
                Ok(name(node))
            }
            Self::KillDispatchers => {
                for node in network::NODES {
                    cluster.node(node).kill(Program::Dispatcher).await?;
                }
                tokio::time::sleep(lasting).await;
                Ok("all".to_owned())
            }
            Self::Freeze => {
                cluster.node(node).signal(Program::Worker, "STOP").await?;
                tokio::time::sleep(lasting).await;
                cluster.node(node).signal(Program::Worker, "CONT").await?;
                Ok(name(node))
            }
            Self::Partition => {
                let node = cluster.primary().await?;
                network::isolate(node)?;
                tokio::time::sleep(lasting).await;
                network::join(node)?;
                Ok(name(node))
            }
            Self::OneWay => {
                let node = cluster.primary().await?;
                network::mute(node)?;
                tokio::time::sleep(lasting).await;
                network::join(node)?;
                Ok(name(node))
            }
            Self::Flapping => {
                let began = Instant::now();
                while began.elapsed() < lasting {
                    network::isolate(node)?;
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    network::join(node)?;
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                Ok(name(node))
            }
            Self::Slow => {
                network::narrow(node, 256)?;
                tokio::time::sleep(lasting).await;
                network::widen(node)?;
                Ok(name(node))
            }
            Self::QuorumLost => {
                let primary = cluster.primary().await?;
                let other = network::NODES[primary % network::NODES.len()];
                for node in [primary, other] {
                    cluster.node(node).kill_all().await?;
                }
                tokio::time::sleep(lasting).await;
                Ok(format!("{}, {}", name(primary), name(other)))
            }
            Self::NodeLost => {
                let lost = cluster.node(node);
                lost.lost = true;
                lost.kill_all().await?;
                std::fs::remove_dir_all(&lost.folder)?;
                network::isolate(node)?;
                tokio::time::sleep(lasting).await;
                Ok(name(node))
            }
        }
    }
}

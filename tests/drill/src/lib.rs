//! Faults of a cluster, and a checker of what comes of them.
//!
//! Three nodes on one machine, each a network namespace with an address of its own. On each run a RabbitMQ of one cluster, a MongoDB
//! of one replica set, a dispatcher, a maintainer, a frontend and a worker. Clients post readings to the frontends all the time, and
//! a reading counts as accepted when a frontend has said so. Meanwhile processes are killed and links cut; after each fault the
//! checker waits until everything that was accepted is stored, and compares.
//!
//! The checker knows nothing of the product but what is documented of it: its HTTP API, and what it writes to MongoDB, which it reads
//! with the driver. It uses no crate of the product. Two things are held to:
//!
//! - **Readings** (`load`, `stored`): what was accepted is stored once; nothing else is; no message is left in a queue, and none is
//!   among the dead letters.
//! - **Leases** (`leases`): every state that a queue had, in the order in which a majority had it, read from a change stream; and
//!   clients that lease queues beside the workers, each asking any dispatcher, also one that is cut off. No queue has two holders.
//!
//! Everything is in namespaces of this run ([`namespace`]), so that it needs no free ports, changes nothing of the machine, and ends with
//! the run, however that ends.

mod cluster;
mod faults;
mod leases;
mod load;
pub mod namespace;
mod network;
mod node;
mod report;
mod run;
mod stored;

pub use faults::{Fault, Kind, Plan};
pub use report::{Report, Row};
pub use run::{Options, run};

//! What a broker's server has left of what it needs.

use serde::Serialize;

/// Something that a server can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Open files and sockets; each queue and each connection takes some.
    Files,
    /// Bytes of memory.
    Memory,
    /// Bytes of the disk that holds the messages: those that are free, and those that must stay free.
    Disk,
    /// Erlang processes; each queue, channel and connection takes some.
    Processes,
}

/// How near a server is to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Nearness {
    /// Far.
    Far,
    /// So near that it should be raised.
    Near,
    /// It is reached: the server refuses or blocks.
    Reached,
}

/// One limit of one node of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The node.
    pub node: String,
    /// What is limited.
    pub resource: Resource,
    /// What is used; of the disk, what is free.
    pub used: u64,
    /// The most that may be used; of the disk, the least that must be free.
    pub limit: u64,
    /// How near it is.
    pub nearness: Nearness,
}

#[cfg(any(feature = "rabbitmq", test))]
impl Limit {
    /// Files and processes are scarce from here on, and so is memory: four fifths.
    const NEAR_PERCENT: u64 = 80;

    pub(crate) fn of_use(node: &str, resource: Resource, used: u64, limit: u64, alarm: bool) -> Self {
        let nearness = if alarm || used >= limit {
            Nearness::Reached
        } else if used >= limit / 100 * Self::NEAR_PERCENT {
            Nearness::Near
        } else {
            Nearness::Far
        };
        Self { node: node.to_owned(), resource, used, limit, nearness }
    }

    pub(crate) fn of_free(node: &str, resource: Resource, free: u64, least: u64, alarm: bool) -> Self {
        let nearness = if alarm || free <= least {
            Nearness::Reached
        } else if free < least.saturating_mul(2) {
            Nearness::Near
        } else {
            Nearness::Far
        };
        Self { node: node.to_owned(), resource, used: free, limit: least, nearness }
    }
}

impl Limit {
    /// What to set or to free.
    pub fn remedy(&self) -> &'static str {
        match self.resource {
            Resource::Files => {
                "raise the limit of open files of the RabbitMQ service (LimitNOFILE= of its systemd unit, or `ulimit -n`) to \
                 65536 or more and restart it"
            }
            Resource::Memory => {
                "give the server more memory, raise `vm_memory_high_watermark` in rabbitmq.conf, or let consumers catch up"
            }
            Resource::Disk => {
                "free the disk of RabbitMQ's data folder, or lower `disk_free_limit` in rabbitmq.conf"
            }
            Resource::Processes => {
                "raise the limit of Erlang processes (RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=\"+P 4194304\") and restart it"
            }
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, used, limit, .. } = self;
        match self.resource {
            Resource::Files => write!(f, "node {node} has {used} of {limit} files open")?,
            // Known by its alarm alone.
            Resource::Memory if *limit == u64::MAX => {
                write!(f, "node {node} has raised its alarm for memory")?
            }
            Resource::Disk if *used == u64::MAX => {
                write!(f, "node {node} has raised its alarm for the disk")?
            }
            Resource::Memory => write!(f, "node {node} uses {} of {} MB of memory", used >> 20, limit >> 20)?,
            Resource::Disk => {
                write!(f, "node {node} has {} MB of disk left and needs {}", used >> 20, limit >> 20)?;
            }
            Resource::Processes => write!(f, "node {node} has {used} of {limit} Erlang processes")?,
        }
        write!(f, "; {}", self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_near_at_four_fifths_and_says_what_to_set() {
        for (used, nearness) in
            [(0, Nearness::Far), (799, Nearness::Far), (800, Nearness::Near), (1000, Nearness::Reached)]
        {
            let limit = Limit::of_use("rabbit@a", Resource::Files, used, 1000, false);
            assert_eq!(limit.nearness, nearness, "{used}");
        }
        assert_eq!(Limit::of_use("n", Resource::Memory, 1, 1000, true).nearness, Nearness::Reached);
        for (free, nearness) in [(2000, Nearness::Far), (1999, Nearness::Near), (1000, Nearness::Reached)] {
            assert_eq!(Limit::of_free("n", Resource::Disk, free, 1000, false).nearness, nearness, "{free}");
        }
        let text = Limit::of_use("rabbit@a", Resource::Files, 1010, 1024, false).to_string();
        assert!(
            text.starts_with("node rabbit@a has 1010 of 1024 files open; raise")
                && text.contains("LimitNOFILE")
        );
    }
}

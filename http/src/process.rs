//! What this process takes of its machine, as every Prometheus client tells it: from `/proc/self`.
//!
//! Own code: what `prometheus` brings for it needs a second version of three crates.

use prometheus::core::Collector;
use prometheus::{Counter, Gauge, Registry};

use crate::metrics::OnScrape;

/// The unit of times in `/proc`, the same on every machine: `USER_HZ` of Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// The unit of memory in `/proc/self/status`.
const KIB: f64 = 1_024.0;

/// What this process takes of its machine now; zeroes where there is no `/proc`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessUsage {
    /// User and system time of its threads, in seconds.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: f64,
    /// Bytes of address space.
    pub virtual_bytes: f64,
    /// Bytes in memory.
    pub resident_bytes: f64,
    /// Files that are open.
    pub open_files: f64,
    /// Files that may be open.
    pub most_files: f64,
    /// When it started, in seconds since the epoch.
    pub started_seconds: f64,
}

impl ProcessUsage {
    /// Reads it.
    pub fn read() -> Self {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let of_self =
            Self::parse(&text("self/stat"), &text("self/status"), &text("self/limits"), &text("stat"));
        // Counting them opens one more.
        Self { open_files: open_files.saturating_sub(1) as f64, ..of_self }
    }

    fn parse(stat: &str, status: &str, limits: &str, machine: &str) -> Self {
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse().ok()).unwrap_or(0.0);
        let value = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
        };
        Self {
            cpu_seconds: (field(14) + field(15)) / TICKS_PER_SECOND,
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: value(status, "VmRSS:") * KIB,
            open_files: 0.0,
            most_files: value(limits, "Max open files"),
            started_seconds: value(machine, "btime ") + field(22) / TICKS_PER_SECOND,
        }
    }
}

/// Registers the `process_*` metrics.
pub(crate) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    let cpu = Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?;
    let gauge = |name: &str, help: &str| Gauge::new(name, help);
    let started =
        gauge("process_start_time_seconds", "Start time of the process since the epoch in seconds.")?;
    started.set(ProcessUsage::read().started_seconds);
    let threads = gauge("process_threads", "Number of threads of the process.")?;
    let virtual_bytes = gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")?;
    let resident_bytes = gauge("process_resident_memory_bytes", "Resident memory size in bytes.")?;
    let open_files = gauge("process_open_fds", "Number of open file descriptors.")?;
    let most_files = gauge("process_max_fds", "Maximum number of open file descriptors.")?;
    let all: Vec<Box<dyn Collector>> = vec![
        Box::new(cpu.clone()),
        Box::new(started),
        Box::new(threads.clone()),
        Box::new(virtual_bytes.clone()),
        Box::new(resident_bytes.clone()),
        Box::new(open_files.clone()),
        Box::new(most_files.clone()),
    ];
    let set = move || {
        let taken = ProcessUsage::read();
        cpu.inc_by((taken.cpu_seconds - cpu.get()).max(0.0));
        threads.set(taken.threads);
        virtual_bytes.set(taken.virtual_bytes);
        resident_bytes.set(taken.resident_bytes);
        open_files.set(taken.open_files);
        most_files.set(taken.most_files);
    };
    registry.register(Box::new(OnScrape::new(all, set)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells_is_read_whatever_the_program_is_called() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 4096000 300 18446744073709551615";
        let status = "Name:\ta\nVmRSS:\t    1200 kB\nThreads:\t7\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max open files            1024                 524288               files     \n";
        let taken = ProcessUsage::parse(stat, status, limits, "cpu 1 2\nbtime 1700000000\n");
        let expected = ProcessUsage {
            cpu_seconds: 3.0,
            threads: 7.0,
            virtual_bytes: 4_096_000.0,
            resident_bytes: 1_200.0 * 1_024.0,
            open_files: 0.0,
            most_files: 1_024.0,
            started_seconds: 1_700_000_010.0,
        };
        assert_eq!(taken, expected);
        let unlimited = ProcessUsage::parse(
            "",
            "",
            "Max open files            unlimited            unlimited            files\n",
            "",
        );
        assert_eq!(unlimited, ProcessUsage::default());
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let taken = ProcessUsage::read();
        assert!(taken.resident_bytes > 0.0 && taken.threads >= 1.0 && taken.open_files >= 3.0, "{taken:?}");
        assert!(taken.started_seconds > 1e9, "{taken:?}");
    }
}

//! What the topologies of this process do, as Prometheus reads it.

use std::collections::{BTreeMap, HashMap};

use galerna_engine::{ComponentMetrics, LATENCY_BOUNDS, Latency, SpoutState};
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::topologies::Topologies;

/// Families of metrics by name, each with its help, for collectors of what is counted elsewhere.
#[derive(Debug, Default)]
pub struct Families(BTreeMap<&'static str, MetricFamily>);

/// Names and values of labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Families {
    fn family(&mut self, name: &'static str, help: &str, kind: MetricType) -> &mut MetricFamily {
        self.0.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        })
    }

    /// Adds a count.
    pub fn counter(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: u64) {
        self.total(name, help, labels, of(value));
    }

    /// What only grows: a count, or time.
    fn total(&mut self, name: &'static str, help: &str, labels: Labels<'_>, total: f64) {
        let mut counter = Counter::default();
        counter.set_value(total);
        let mut metric = labelled(labels);
        metric.set_counter(counter);
        self.family(name, help, MetricType::COUNTER).mut_metric().push(metric);
    }

    /// Adds a value.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = labelled(labels);
        metric.set_gauge(gauge);
        self.family(name, help, MetricType::GAUGE).mut_metric().push(metric);
    }

    /// All of them.
    pub fn into_families(self) -> Vec<MetricFamily> {
        self.0.into_values().collect()
    }

    fn histogram(&mut self, name: &'static str, help: &str, labels: Labels<'_>, latency: &Latency) {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(latency.count);
        histogram.set_sample_sum(latency.sum_ms / 1e3);
        let buckets = LATENCY_BOUNDS.iter().zip(latency.within).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.family(name, help, MetricType::HISTOGRAM).mut_metric().push(metric);
    }
}

/// Counts far below 2^52 are exact.
#[allow(clippy::cast_precision_loss)]
fn of(count: u64) -> f64 {
    count as f64
}

fn labelled(labels: Labels<'_>) -> Metric {
    let mut metric = Metric::default();
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    metric.set_label(pairs.collect());
    metric
}

/// The metrics of all topologies of this process, of which several of one name are told apart by the label `worker`, from 1. The
/// engine counts by itself, so they are made when they are read.
struct Observed {
    topologies: Topologies,
    /// Stands for all of them: which there are depends on what runs.
    description: Desc,
}

const EMITTED: &str = "galerna_engine_emitted_total";
const EMITTED_HELP: &str = "Tuples emitted.";

/// Has the registry tell of the topologies of this process.
///
/// # Errors
/// When it does so already.
pub fn register(registry: &Registry, topologies: Topologies) -> Result<(), prometheus::Error> {
    let labels = ["topology", "component", "worker"].map(str::to_owned).to_vec();
    let description = Desc::new(EMITTED.to_owned(), EMITTED_HELP.to_owned(), labels, HashMap::new())?;
    registry.register(Box::new(Observed { topologies, description }))
}

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for (_, metrics) in self.topologies.metrics() {
            let number = numbers.entry(metrics.topology.clone()).or_default();
            *number += 1;
            let number = number.to_string();
            for component in &metrics.components {
                let labels = [
                    ("topology", metrics.topology.as_str()),
                    ("component", &component.id),
                    ("worker", &number),
                ];
                add(&mut families, component, &labels);
            }
        }
        families.into_families()
    }
}

fn add(families: &mut Families, component: &ComponentMetrics, labels: &[(&str, &str); 3]) {
    let spout = component.kind == "spout";
    families.counter(EMITTED, EMITTED_HELP, labels, component.emitted);
    families.counter(
        "galerna_engine_acked_total",
        "Tuples acked by a bolt, or roots of a spout that are done.",
        labels,
        component.acked,
    );
    for (kind, count) in &component.failed {
        let [topology, id, worker] = *labels;
        let help = "Tuples failed by a bolt, or roots of a spout that failed, by kind of reason.";
        families.counter(
            "galerna_engine_failed_total",
            help,
            &[topology, id, worker, ("reason_kind", kind)],
            *count,
        );
    }
    for (kind, count) in &component.faults {
        let [topology, id, worker] = *labels;
        let help = "The same tuples and roots as in galerna_engine_failed_total, by whether trying again can help: transient, \
                    permanent, unavailable.";
        families.counter(
            "galerna_engine_faults_total",
            help,
            &[topology, id, worker, ("fault", kind)],
            *count,
        );
    }
    families.counter(
        "galerna_engine_restarts_total",
        "Instances replaced after a panic.",
        labels,
        component.restarts,
    );
    families.gauge(
        "galerna_engine_capacity_ratio",
        "Share of its executors' time that a component was busy since it was submitted, 0 to 1.",
        labels,
        component.busy,
    );
    if spout {
        families.gauge(
            "galerna_engine_pending_roots",
            "Roots of a spout that are neither done nor failed.",
            labels,
            of(component.pending),
        );
        families.histogram(
            "galerna_engine_complete_seconds",
            "Time from when a root is emitted until it is done.",
            labels,
            &component.complete,
        );
        for reason in ["emitting", "no_data", "pending_full", "downstream_full", "paused", "done", "draining"]
        {
            let tasks = component.states.iter().filter(|state| word(state) == reason).count();
            let [topology, id, worker] = *labels;
            families.gauge(
                "galerna_engine_spout_waiting",
                "Tasks of a spout by what they do or wait for.",
                &[topology, id, worker, ("reason", reason)],
                of(tasks as u64),
            );
        }
    } else {
        families.gauge(
            "galerna_engine_executors",
            "Executors of a bolt: with the rate of galerna_engine_busy_seconds_total, how busy it is now.",
            labels,
            of(component.executors as u64),
        );
        families.total(
            "galerna_engine_busy_seconds_total",
            "Time that the executors of a bolt were busy: executing, or, of a bolt that waits, with a tuple not settled.",
            labels,
            component.busy_ms / 1e3,
        );
        families.gauge(
            "galerna_engine_queue_depth",
            "Batches that wait for a bolt.",
            labels,
            of(component.queued as u64),
        );
        families.histogram(
            "galerna_engine_execute_seconds",
            "Time that a tuple takes to be executed by a bolt; what a bolt does later with tuples that it kept is not in it.",
            labels,
            &component.execute,
        );
        families.histogram(
            "galerna_engine_process_seconds",
            "Time from when a tuple reaches a bolt until the bolt acks it.",
            labels,
            &component.process,
        );
    }
}

fn word(state: &SpoutState) -> &'static str {
    match state {
        SpoutState::Emitting => "emitting",
        SpoutState::NoData => "no_data",
        SpoutState::PendingFull => "pending_full",
        SpoutState::DownstreamFull(_) => "downstream_full",
        SpoutState::Paused => "paused",
        SpoutState::Done => "done",
        SpoutState::Draining => "draining",
    }
}

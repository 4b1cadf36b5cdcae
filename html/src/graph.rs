//! A topology as a drawing: components in layers from the spouts on, with what they do now.

use std::collections::HashMap;

use maud::{Markup, html};
use serde::Deserialize;

use crate::cells::{Cells, Tone};

/// A topology as `galerna_topology::Topology::json` tells it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// How long a root may take, unless that is off.
    pub message_timeout_ms: Option<u64>,
    /// Its components.
    pub components: Vec<Node>,
}

/// A component as it was declared.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// `spout`, `bolt`, or what kind of bolt.
    pub kind: String,
    /// Executors that it was declared with.
    pub executors: usize,
    /// Its tasks.
    pub tasks: usize,
    /// Of a spout: how many roots may be pending.
    pub max_pending: Option<u64>,
    /// What it subscribes to.
    pub inputs: Vec<Input>,
}

/// What a component subscribes to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Input {
    /// Whose output.
    pub component: String,
    /// Which output.
    pub output: String,
    /// How tuples are dealt over tasks.
    pub grouping: String,
    /// Whether it closes a cycle.
    pub feedback: bool,
}

/// How a component stands now.
#[derive(Debug, Clone, Copy)]
pub struct NodeState {
    /// Its executors.
    pub executors: usize,
    /// How it does.
    pub tone: Tone,
}

impl NodeState {
    /// By what it does a second, what of that fails, and how busy it is; nothing where that is not known yet.
    pub fn new(executors: usize, rate: Option<f64>, failed_rate: Option<f64>, capacity: Option<f64>) -> Self {
        let tone = match () {
            () if failed_rate.is_some_and(|r| r > 0.0) => Tone::Bad,
            () if capacity.is_some_and(|b| b >= 0.8) => Tone::Warn,
            () if rate.is_some_and(|r| r > 0.0) => Tone::Good,
            () => Tone::Plain,
        };
        Self { executors, tone }
    }
}

const WIDTH: f64 = 214.0;
const HEIGHT: f64 = 112.0;
const GAP_X: f64 = 118.0;
const GAP_Y: f64 = 26.0;
const MARGIN: f64 = 8.0;

impl Graph {
    /// The layer of each component: one beyond the furthest that it subscribes to, feedback aside.
    fn layers(&self) -> Vec<usize> {
        let index: HashMap<&str, usize> =
            self.components.iter().enumerate().map(|(i, c)| (c.id.as_str(), i)).collect();
        let mut layers = vec![0; self.components.len()];
        // As often as there are components is enough for the longest way; a cycle that is not marked ends too.
        for _ in 0..self.components.len() {
            for (at, component) in self.components.iter().enumerate() {
                let before = component.inputs.iter().filter(|i| !i.feedback);
                let furthest =
                    before.filter_map(|i| index.get(i.component.as_str())).map(|i| layers[*i] + 1).max();
                layers[at] = furthest.unwrap_or(0).min(self.components.len());
            }
        }
        layers
    }

    /// The drawing. Each component leads to its row (`#component-<id>`).
    pub fn draw(&self, cells: &Cells, now: impl Fn(&str) -> Option<NodeState>) -> Markup {
        let layers = self.layers();
        let depth = layers.iter().max().map_or(0, |l| l + 1);
        let mut rows = vec![0_usize; depth];
        let tallest = (0..depth).map(|l| layers.iter().filter(|x| **x == l).count()).max().unwrap_or(0);
        let height = |n: usize| n as f64 * HEIGHT + n.saturating_sub(1) as f64 * GAP_Y;
        let place: Vec<(f64, f64)> = layers
            .iter()
            .map(|&layer| {
                let row = rows[layer];
                rows[layer] += 1;
                let in_layer = layers.iter().filter(|l| **l == layer).count();
                let top = MARGIN + (height(tallest) - height(in_layer)) / 2.0;
                (MARGIN + layer as f64 * (WIDTH + GAP_X), top + row as f64 * (HEIGHT + GAP_Y))
            })
            .collect();
        let index: HashMap<&str, usize> =
            self.components.iter().enumerate().map(|(i, c)| (c.id.as_str(), i)).collect();
        let full_width = 2.0 * MARGIN + depth as f64 * WIDTH + depth.saturating_sub(1) as f64 * GAP_X;
        let full_height = 2.0 * MARGIN + height(tallest);
        let edges = self.components.iter().enumerate().flat_map(|(to, c)| {
            let index = &index;
            c.inputs.iter().filter_map(move |input| Some((*index.get(input.component.as_str())?, to, input)))
        });
        html! {
            svg.graph width=(full_width) height=(full_height) viewBox={ "0 0 " (full_width) " " (full_height) }
                role="group" aria-label={ "Topology " (self.name) ": its components and how tuples go between them; the table below says the same" } {
                defs {
                    marker #arrow viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto" {
                        path.head d="M0,0 L8,4 L0,8 z" {}
                    }
                }
                @for (from, to, input) in edges {
                    @let (a, b) = (place[from], place[to]);
                    @let (x1, y1, x2, y2) = (a.0 + WIDTH, a.1 + HEIGHT / 2.0, b.0 - 2.0, b.1 + HEIGHT / 2.0);
                    @let bend = (x2 - x1).abs().max(60.0) / 2.0;
                    path.edge.feedback[input.feedback] marker-end="url(#arrow)"
                        d={ "M" (x1) "," (y1) " C" (x1 + bend) "," (y1) " " (x2 - bend) "," (y2) " " (x2) "," (y2) } {}
                    text.edge-name text-anchor="middle" x=(f64::midpoint(x1, x2)) y=(f64::midpoint(y1, y2) - 8.0) { (input.output) }
                    text.edge-how text-anchor="middle" x=(f64::midpoint(x1, x2)) y=(f64::midpoint(y1, y2) + 14.0) { (input.grouping) }
                }
                @for (node, (x, y)) in self.components.iter().zip(&place) {
                    @let now = now(&node.id);
                    @let tone = now.map_or("plain", |now| now.tone.as_str());
                    @let cell = |what: &str| format!("c-{}-{what}", node.id);
                    @let is_spout = node.kind == "spout";
                    a.node href={ "#component-" (node.id) } data-tone=(tone) {
                        rect x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="8" {}
                        rect.bar x=(x) y=(y) width="4" height=(HEIGHT) rx="2" {}
                        text.node-name x=(x + 16.0) y=(y + 24.0) { (node.id) }
                        text.node-kind x=(x + WIDTH - 12.0) y=(y + 24.0) text-anchor="end" {
                            (node.kind) " ×" (now.map_or(node.executors, |now| now.executors))
                        }
                        (cells.svg(&cell("rate"), x + 16.0, y + 50.0, "node-rate"))
                        @if is_spout {
                            (cells.svg(&cell("state"), x + 100.0, y + 50.0, "node-state"))
                        } @else {
                            text.node-label x=(x + 100.0) y=(y + 50.0) { "busy" }
                            (cells.svg(&cell("capacity"), x + 134.0, y + 50.0, "node-value"))
                        }
                        text.node-label x=(x + 16.0) y=(y + 76.0) { "p50" }
                        (cells.svg(&cell("p50"), x + 42.0, y + 76.0, "node-value"))
                        text.node-label x=(x + 112.0) y=(y + 76.0) { "p99" }
                        (cells.svg(&cell("p99"), x + 138.0, y + 76.0, "node-value"))
                        text.node-label x=(x + 16.0) y=(y + 98.0) { @if is_spout { "pending" } @else { "queued" } }
                        (cells.svg(&cell(if is_spout { "pending" } else { "queued" }), x + 70.0, y + 98.0, "node-value"))
                        text.node-label x=(x + 112.0) y=(y + 98.0) { "failed" }
                        (cells.svg(&cell("failed"), x + 152.0, y + 98.0, "node-value"))
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_stand_in_layers_and_feedback_does_not_count() {
        let graph: Graph = serde_json::from_value(serde_json::json!({"name": "t", "components": [
            {"id": "sink", "inputs": [{"component": "b"}, {"component": "s"}]},
            {"id": "s", "kind": "spout"},
            {"id": "b", "inputs": [{"component": "s"}, {"component": "sink", "feedback": true}]},
        ]}))
        .unwrap();
        assert_eq!(graph.layers(), [2, 0, 1]);
    }

    #[test]
    fn an_unmarked_cycle_is_drawn_all_the_same() {
        let graph: Graph = serde_json::from_value(serde_json::json!({"components": [
            {"id": "a", "inputs": [{"component": "b"}]}, {"id": "b", "inputs": [{"component": "a"}]},
        ]}))
        .unwrap();
        assert!(graph.layers().iter().all(|l| *l <= 2));
    }
}

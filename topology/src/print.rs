//! A topology as a table, DOT, Mermaid and JSON.

use std::fmt::Write;

use crate::component::Component;
use crate::topology::Topology;

/// The last part of each path in a type's name: `a::b::Foo<c::Bar>` is `Foo<Bar>`.
fn short(type_name: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in type_name.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
        } else if c == ':' {
            word.clear();
        } else {
            out.push_str(&word);
            word.clear();
            out.push(c);
        }
    }
    out + &word
}

fn executors(component: &Component) -> String {
    let settings = &component.settings;
    match settings.tasks() {
        tasks if tasks == settings.parallelism => format!("{tasks}"),
        tasks => format!("{} of {tasks} tasks", settings.parallelism),
    }
}

/// A string in JSON, quotes included.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn millis(duration: Option<std::time::Duration>) -> String {
    duration.map_or_else(|| "null".to_owned(), |duration| duration.as_millis().to_string())
}

impl Topology {
    /// One line for each component: kind, id, executors, inputs, outputs. Below, where state is kept, one for each spout whose messages may
    /// count more than once.
    pub fn table(&self) -> String {
        let mut rows =
            vec![["component", "kind", "executors", "inputs", "outputs"].map(String::from).to_vec()];
        for component in &self.components {
            let inputs = component.inputs.iter().map(|input| {
                let feedback = if input.feedback { ", feedback" } else { "" };
                format!("{}.{} ({}{feedback})", input.component, input.stream, input.grouping)
            });
            let outputs = component
                .outputs
                .iter()
                .map(|output| format!("{}: {}", output.name, short(output.type_name)));
            rows.push(vec![
                component.id.to_string(),
                component.factory.name().to_owned(),
                executors(component),
                inputs.collect::<Vec<_>>().join(", "),
                outputs.collect::<Vec<_>>().join(", "),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        let mut out = format!("topology {}\n", self.name);
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        for spout in self.at_least_once() {
            let _ = writeln!(
                out,
                "at least once: `{spout}` does not say that its messages have stable ids (`Spout::STABLE_IDS`); what it delivers again after a \
                 crash counts again"
            );
        }
        out
    }

    /// A graph for Graphviz.
    pub fn dot(&self) -> String {
        let mut out = format!("digraph {} {{\n    rankdir=LR;\n", quoted(&self.name));
        for component in &self.components {
            let shape = if component.factory.is_spout() { "house" } else { "box" };
            let label = format!("{}\n×{}", component.id, executors(component));
            let label = quoted(&label).replace("\\u000a", "\\n");
            let _ = writeln!(out, "    {} [shape={shape}, label={label}];", quoted(&component.id));
        }
        for component in &self.components {
            for input in &component.inputs {
                let label = format!("{} ({})", input.stream, input.grouping);
                let style = if input.feedback { ", style=dashed" } else { "" };
                let _ = writeln!(
                    out,
                    "    {} -> {} [label={}{style}];",
                    quoted(&input.component),
                    quoted(&component.id),
                    quoted(&label)
                );
            }
        }
        out + "}\n"
    }

    /// A graph for Mermaid, as Markdown renderers draw it.
    pub fn mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let node = |id: &str| self.components.iter().position(|c| &*c.id == id).unwrap_or(0);
        for (at, component) in self.components.iter().enumerate() {
            let (open, close) = if component.factory.is_spout() { ("([", "])") } else { ("[", "]") };
            let _ = writeln!(out, "    n{at}{open}\"{} ×{}\"{close}", component.id, executors(component));
        }
        for (at, component) in self.components.iter().enumerate() {
            for input in &component.inputs {
                let arrow = if input.feedback { "-.->" } else { "-->" };
                let from = node(&input.component);
                let _ = writeln!(out, "    n{from} {arrow}|\"{} ({})\"| n{at}", input.stream, input.grouping);
            }
        }
        out
    }

    /// Everything declared, for programs: `{"name", "message_timeout_ms", "components": [{"id", "kind",
    /// "type", "executors", "tasks", "max_pending", "tick_ms", "batch", "queue", "inputs", "outputs"}]}`.
    pub fn json(&self) -> String {
        let components = self.components.iter().map(|component| {
            let inputs = component.inputs.iter().map(|input| {
                format!(
                    r#"{{"component":{},"output":{},"grouping":{},"feedback":{}}}"#,
                    quoted(&input.component),
                    quoted(&input.stream),
                    quoted(input.grouping.name()),
                    input.feedback
                )
            });
            let outputs = component.outputs.iter().map(|output| {
                format!(r#"{{"name":{},"type":{}}}"#, quoted(output.name), quoted(&short(output.type_name)))
            });
            let settings = &component.settings;
            let max_pending = match component.factory.is_spout() {
                true => settings.max_pending.to_string(),
                false => "null".to_owned(),
            };
            format!(
                concat!(
                    r#"{{"id":{},"kind":{},"type":{},"executors":{},"tasks":{},"max_pending":{},"#,
                    r#""tick_ms":{},"batch":{},"queue":{},"inputs":[{}],"outputs":[{}]}}"#
                ),
                quoted(&component.id),
                quoted(component.factory.name()),
                quoted(&short(component.type_name)),
                settings.parallelism,
                settings.tasks(),
                max_pending,
                millis(settings.tick),
                settings.batch,
                settings.queue,
                inputs.collect::<Vec<_>>().join(","),
                outputs.collect::<Vec<_>>().join(",")
            )
        });
        format!(
            r#"{{"name":{},"message_timeout_ms":{},"components":[{}]}}"#,
            quoted(&self.name),
            millis(self.message_timeout),
            components.collect::<Vec<_>>().join(",")
        )
    }
}

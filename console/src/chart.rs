//! Charts as SVG, made by hand: lines over the last hour, without script.

use galerna_model::Timestamp;
use galerna_storage::Sample;
use maud::{Markup, html};

use super::format;

/// The time that charts show.
pub(super) const SHOWN_MS: i64 = 3_600_000;
/// Samples further apart than this have nothing between them.
const GAP_MS: i64 = 45_000;

/// A line.
pub(super) struct Line {
    /// The number's name in the samples.
    pub(super) key: &'static str,
    /// What it is, for people.
    pub(super) name: &'static str,
    /// Its colour: 1 to 4.
    pub(super) tone: u8,
}

/// A chart.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) lines: &'static [Line],
}

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 140.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 20.0;

/// A step of 1, 2 or 5 times a power of ten that divides `top` in about four.
fn step(top: f64) -> f64 {
    let rough = top / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough * 0.999).unwrap_or(power * 10.0)
}

/// A time in milliseconds and a value.
type Point = (i64, f64);
/// Points without a gap between them.
type Run = Vec<Point>;

/// Runs of points without a gap between them.
fn runs(samples: &[Sample], key: &str) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for sample in samples {
        let Some(value) = sample.values.get(key).copied().filter(|v| v.is_finite()) else { continue };
        let at = sample.at.as_millis();
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|(last, _)| at - last <= GAP_MS) => run.push((at, value)),
            _ => runs.push(vec![(at, value)]),
        }
    }
    runs
}

impl Chart {
    /// Draws it up to `now`.
    pub(super) fn draw(&self, samples: &[Sample], now: Timestamp) -> Markup {
        let (until, from) = (now.as_millis(), now.as_millis() - SHOWN_MS);
        let lines: Vec<(&Line, Vec<Run>)> =
            self.lines.iter().map(|line| (line, runs(samples, line.key))).collect();
        let values = lines.iter().flat_map(|(_, runs)| runs.iter().flatten().map(|(_, v)| *v));
        let top = values.fold(0.0_f64, f64::max);
        let is_empty = lines.iter().all(|(_, runs)| runs.is_empty());
        let step = step(if top > 0.0 { top } else { 4.0 });
        let top = (top / step).ceil().max(1.0) * step;
        let x = |at: i64| LEFT + (at - from) as f64 / SHOWN_MS as f64 * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| TOP + (1.0 - v / top) * (HEIGHT - TOP - BOTTOM);
        let rows = (0_u32..).map(|i| f64::from(i) * step).take_while(|v| *v <= top * 1.0001);
        let quarter = 900_000;
        let marks = (0..=5).map(|i| (from / quarter + i) * quarter).filter(|at| (from..=until).contains(at));
        let last = |runs: &[Run]| runs.last().and_then(|run| run.last()).map(|(_, v)| *v);
        let told = lines
            .iter()
            .map(|(line, runs)| {
                format!("{}: {}", line.name, last(runs).map_or("no data".to_owned(), format::value))
            })
            .collect::<Vec<_>>()
            .join(", ");
        html! {
            figure.chart {
                figcaption {
                    span.chart-title { (self.title) " " small { (self.unit) } }
                    span.legend {
                        @for (line, runs) in &lines {
                            span { i.{ "key tone-" (line.tone) } {} (line.name) " "
                                b { (last(runs).map_or("–".to_owned(), format::value)) } }
                        }
                    }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (self.title) " in the last hour, " (self.unit) ". Last: " (told) } {
                    @for v in rows {
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(v))) y2=(format!("{:.1}", y(v))) {}
                        text.tick x=(LEFT - 6.0) y=(format!("{:.1}", y(v) + 3.5)) text-anchor="end" { (format::value(v)) }
                    }
                    @for at in marks {
                        text.tick x=(format!("{:.1}", x(at))) y=(HEIGHT - 5.0) text-anchor="middle" { (format::clock(Timestamp(at))) }
                    }
                    @for (line, runs) in &lines {
                        @for run in runs {
                            @if lines.len() == 1 {
                                polygon.{ "area tone-" (line.tone) } points=(area(run, x, y)) {}
                            }
                            polyline.{ "line tone-" (line.tone) } points=(points(run, x, y)) {}
                        }
                    }
                    @if is_empty {
                        text.tick x=(WIDTH / 2.0) y=(HEIGHT / 2.0) text-anchor="middle" { "no samples yet: one is taken every 10 s" }
                    }
                }
            }
        }
    }
}

fn points(run: &[Point], x: impl Fn(i64) -> f64, y: impl Fn(f64) -> f64) -> String {
    // A lone point is drawn as a short dash.
    let one = if run.len() == 1 { run.first().map(|(at, v)| (at + 5_000, *v)) } else { None };
    let all = run.iter().copied().chain(one);
    all.map(|(at, v)| format!("{:.1},{:.1}", x(at), y(v))).collect::<Vec<_>>().join(" ")
}

fn area(run: &[Point], x: impl Fn(i64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return String::new() };
    format!("{:.1},{:.1} {} {:.1},{:.1}", x(first.0), y(0.0), points(run, &x, &y), x(last.0), y(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHART: Chart =
        Chart { title: "Readings", unit: "a second", lines: &[Line { key: "r", name: "stored", tone: 1 }] };

    fn samples(values: &[(i64, f64)]) -> Vec<Sample> {
        let sample = |(at, v): &(i64, f64)| Sample {
            at: Timestamp(*at),
            values: [("r".to_owned(), *v)].into_iter().collect(),
        };
        values.iter().map(sample).collect()
    }

    #[test]
    fn a_gap_in_the_samples_is_a_gap_in_the_line() {
        let drawn =
            CHART.draw(&samples(&[(10_000, 1.0), (20_000, 2.0), (300_000, 3.0)]), Timestamp(SHOWN_MS));
        assert_eq!(drawn.into_string().matches("<polyline").count(), 2);
    }

    #[test]
    fn the_axis_has_round_numbers_and_holds_the_largest_value() {
        for (top, wanted) in [(4.0, 1.0), (7.0, 2.0), (100.0, 50.0), (83_000.0, 50_000.0), (0.3, 0.1)] {
            assert!((step(top) - wanted).abs() < wanted / 1e6, "{top}: {}", step(top));
        }
        let drawn = CHART.draw(&samples(&[(10_000, 83_000.0)]), Timestamp(SHOWN_MS)).into_string();
        assert!(drawn.contains(">100 k<"), "{drawn}");
    }

    #[test]
    fn without_samples_it_says_so() {
        let drawn = CHART.draw(&[], Timestamp(SHOWN_MS)).into_string();
        assert!(drawn.contains("no samples yet") && drawn.contains("no data"), "{drawn}");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let drawn = CHART.draw(&samples(&[(1, f64::NAN), (2, f64::INFINITY)]), Timestamp(SHOWN_MS));
        assert!(!drawn.into_string().contains("NaN"));
    }
}

//! Charts as SVG, made by hand: lines over the last minutes or days, without script.

use std::collections::{BTreeMap, HashMap};

use galerna_model::Timestamp;
use galerna_storage::Sample;
use maud::{Markup, html};

use super::format;
use super::layout::Query;
use super::samples::{EVERY_MS, KEPT_FINE_MS, highest};

/// Samples further apart than this have nothing between them.
const GAP_MS: i64 = 45_000;
/// Points of a line, at most.
const POINTS: i64 = 360;
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How far back charts show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// In the query.
    key: &'static str,
    /// For people.
    name: &'static str,
    length_ms: i64,
    /// Between two labels of the axis.
    marks_ms: i64,
}

const fn range(key: &'static str, name: &'static str, length_ms: i64, marks_ms: i64) -> Range {
    Range { key, name, length_ms, marks_ms }
}

/// The ranges to choose from.
const RANGES: [Range; 6] = [
    range("15m", "15 minutes", 15 * MINUTE_MS, 5 * MINUTE_MS),
    Range::HOUR,
    range("6h", "6 hours", 6 * HOUR_MS, 2 * HOUR_MS),
    range("24h", "24 hours", DAY_MS, 6 * HOUR_MS),
    range("7d", "7 days", 7 * DAY_MS, 2 * DAY_MS),
    range("30d", "30 days", 30 * DAY_MS, 10 * DAY_MS),
];

impl Range {
    /// The one shown unless another is asked for.
    pub(super) const HOUR: Self = range("1h", "hour", HOUR_MS, 15 * MINUTE_MS);

    /// The one that a query asks for as `range`.
    pub(super) fn of(params: &HashMap<String, String>) -> Self {
        let asked = params.get("range").map(String::as_str);
        RANGES.into_iter().find(|range| Some(range.key) == asked).unwrap_or(Self::HOUR)
    }

    /// Where it begins.
    pub(super) fn from(self, now: Timestamp) -> Timestamp {
        now.plus_millis(-self.length_ms)
    }

    /// Whether it goes back beyond the samples that are kept one by one.
    pub(super) fn is_coarse(self) -> bool {
        self.length_ms > KEPT_FINE_MS
    }

    /// Time that becomes one point.
    fn bucket_ms(self) -> i64 {
        let samples = self.length_ms / EVERY_MS;
        ((samples + POINTS - 1) / POINTS).max(1) * EVERY_MS
    }

    /// For captions: "the last …".
    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// Links that choose another, up to `longest_ms`.
    pub(super) fn choice(self, path: &str, query: &Query<'_>, longest_ms: i64) -> Markup {
        html! {
            nav.chips aria-label="Range of the charts" {
                @for other in RANGES.into_iter().filter(|other| other.length_ms <= longest_ms) {
                    @let asked = if other == Self::HOUR { "" } else { other.key };
                    a.chip href=(query.with("range", asked).link(path)) aria-current=[(other == self).then_some("true")] { (other.key) }
                }
            }
        }
    }

    fn label(self, at: Timestamp) -> String {
        if self.marks_ms >= DAY_MS { format::day(at) } else { format::clock(at) }
    }
}

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

/// Runs of points without a gap between them. What falls into one point has the highest value of its time.
fn runs(samples: &[Sample], key: &str, range: Range) -> Vec<Run> {
    let bucket = range.bucket_ms();
    let mut points: BTreeMap<i64, f64> = BTreeMap::new();
    for sample in samples {
        let of_long = range.is_coarse().then(|| sample.values.get(&highest(key))).flatten();
        let Some(value) = of_long.or_else(|| sample.values.get(key)).copied().filter(|v| v.is_finite())
        else {
            continue;
        };
        let at = sample.at.as_millis();
        let point = points.entry(at - at.rem_euclid(bucket)).or_insert(value);
        *point = point.max(value);
    }
    let gap = GAP_MS.max(bucket * 2);
    let mut runs: Vec<Run> = Vec::new();
    for (at, value) in points {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|(last, _)| at - last <= gap) => run.push((at, value)),
            _ => runs.push(vec![(at, value)]),
        }
    }
    runs
}

impl Chart {
    /// Draws it up to `now`.
    pub(super) fn draw(&self, samples: &[Sample], now: Timestamp, range: Range) -> Markup {
        let (until, from) = (now.as_millis(), range.from(now).as_millis());
        let lines: Vec<(&Line, Vec<Run>)> =
            self.lines.iter().map(|line| (line, runs(samples, line.key, range))).collect();
        let values = lines.iter().flat_map(|(_, runs)| runs.iter().flatten().map(|(_, v)| *v));
        let top = values.fold(0.0_f64, f64::max);
        let is_empty = lines.iter().all(|(_, runs)| runs.is_empty());
        let step = step(if top > 0.0 { top } else { 4.0 });
        let top = (top / step).ceil().max(1.0) * step;
        let x = |at: i64| LEFT + (at - from).max(0) as f64 / range.length_ms as f64 * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| TOP + (1.0 - v / top) * (HEIGHT - TOP - BOTTOM);
        let rows = (0_u32..).map(|i| f64::from(i) * step).take_while(|v| *v <= top * 1.0001);
        let every = range.marks_ms;
        let marks = (0..=5).map(|i| (from / every + i) * every).filter(|at| (from..=until).contains(at));
        let bucket = range.bucket_ms();
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
                    span.chart-title { (self.title) " " small { (self.unit) @if bucket > EVERY_MS { ", highest of each " (format::written(bucket.unsigned_abs())) } } }
                    span.legend {
                        @for (line, runs) in &lines {
                            span { i.{ "key tone-" (line.tone) } {} (line.name) " "
                                b { (last(runs).map_or("–".to_owned(), format::value)) } }
                        }
                    }
                }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (self.title) " in the last " (range.name()) ", " (self.unit) ". Last: " (told) } {
                    @for v in rows {
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(v))) y2=(format!("{:.1}", y(v))) {}
                        text.tick x=(LEFT - 6.0) y=(format!("{:.1}", y(v) + 3.5)) text-anchor="end" { (format::value(v)) }
                    }
                    @for at in marks {
                        text.tick x=(format!("{:.1}", x(at))) y=(HEIGHT - 5.0) text-anchor="middle" { (range.label(Timestamp(at))) }
                    }
                    @for (line, runs) in &lines {
                        @for run in runs {
                            @if lines.len() == 1 {
                                polygon.{ "area tone-" (line.tone) } points=(area(run, x, y, bucket)) {}
                            }
                            polyline.{ "line tone-" (line.tone) } points=(points(run, x, y, bucket)) {}
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

fn points(run: &[Point], x: impl Fn(i64) -> f64, y: impl Fn(f64) -> f64, bucket: i64) -> String {
    // A lone point is drawn as a short dash.
    let one = if run.len() == 1 { run.first().map(|(at, v)| (at + bucket / 2, *v)) } else { None };
    let all = run.iter().copied().chain(one);
    all.map(|(at, v)| format!("{:.1},{:.1}", x(at), y(v))).collect::<Vec<_>>().join(" ")
}

fn area(run: &[Point], x: impl Fn(i64) -> f64, y: impl Fn(f64) -> f64, bucket: i64) -> String {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return String::new() };
    format!("{:.1},{:.1} {} {:.1},{:.1}", x(first.0), y(0.0), points(run, &x, &y, bucket), x(last.0), y(0.0))
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
        let drawn = CHART.draw(
            &samples(&[(10_000, 1.0), (20_000, 2.0), (300_000, 3.0)]),
            Timestamp(HOUR_MS),
            Range::HOUR,
        );
        assert_eq!(drawn.into_string().matches("<polyline").count(), 2);
    }

    #[test]
    fn the_axis_has_round_numbers_and_holds_the_largest_value() {
        for (top, wanted) in [(4.0, 1.0), (7.0, 2.0), (100.0, 50.0), (83_000.0, 50_000.0), (0.3, 0.1)] {
            assert!((step(top) - wanted).abs() < wanted / 1e6, "{top}: {}", step(top));
        }
        let drawn =
            CHART.draw(&samples(&[(10_000, 83_000.0)]), Timestamp(HOUR_MS), Range::HOUR).into_string();
        assert!(drawn.contains(">100 k<"), "{drawn}");
    }

    #[test]
    fn without_samples_it_says_so() {
        let drawn = CHART.draw(&[], Timestamp(HOUR_MS), Range::HOUR).into_string();
        assert!(drawn.contains("no samples yet") && drawn.contains("no data"), "{drawn}");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let drawn =
            CHART.draw(&samples(&[(1, f64::NAN), (2, f64::INFINITY)]), Timestamp(HOUR_MS), Range::HOUR);
        assert!(!drawn.into_string().contains("NaN"));
    }

    #[test]
    fn a_burst_of_one_sample_stands_out_in_every_range() {
        let fine: Vec<(i64, f64)> =
            (0..360).map(|i| (i * 10_000, if i == 200 { 900.0 } else { 1.0 })).collect();
        for range in RANGES.into_iter().filter(|range| !range.is_coarse()) {
            let highest =
                runs(&samples(&fine), "r", range).concat().iter().map(|(_, v)| *v).fold(0.0, f64::max);
            assert!((highest - 900.0).abs() < f64::EPSILON, "{range:?}: {highest}");
            assert!(runs(&samples(&fine), "r", range).concat().len() <= 361, "{range:?}");
        }
        // Of long ago only every thirtieth sample is kept, with the highest of its time.
        let mut kept = samples(&[(300_000, 1.0), (600_000, 1.0)]);
        kept[1].values.insert("r.max".to_owned(), 900.0);
        let week = Range::of(&HashMap::from([("range".to_owned(), "7d".to_owned())]));
        assert!((runs(&kept, "r", week)[0][0].1 - 900.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_unknown_range_is_the_hour() {
        assert_eq!(Range::of(&HashMap::from([("range".to_owned(), "1y".to_owned())])), Range::HOUR);
        assert!(Range::HOUR.choice("/", &Query::default(), i64::MAX).into_string().contains("/?range=30d"));
    }
}

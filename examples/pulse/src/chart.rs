//! The comparison as a picture.

use std::sync::Once;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle, register_font};

use crate::Table;

const WIDTH: u32 = 960;
const BAR: i32 = 26;
const TOP: i32 = 92;
const LINE: i32 = 20;
const INK: RGBColor = RGBColor(31, 41, 55);
const FAINT: RGBColor = RGBColor(107, 114, 128);
const ALARM: RGBColor = RGBColor(180, 35, 24);
const RATE: RGBColor = RGBColor(29, 98, 163);
const WORDS: RGBColor = RGBColor(176, 114, 16);
/// Accounts that have a bar: more would be a picture that nobody opens. The others are in the CSV.
const BARS: usize = 60;
/// Missing accounts that are named each on its line.
const NAMED: usize = 200;

/// A picture that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the chart of {round} cannot be drawn: {cause}")]
pub struct DrawError {
    round: String,
    cause: String,
}

/// The font that the letters of the PNG are drawn with, so that no system's fonts are needed. An SVG is shown with its viewer's own.
fn fonts() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let font = include_bytes!("../assets/NotoSans-Latin-Regular.ttf");
        if register_font("sans-serif", FontStyle::Normal, font).is_err() {
            tracing::error!("the font that is built in cannot be read");
        }
    });
}

/// How large the picture is.
fn size(table: &Table) -> (u32, u32) {
    let bars = table.fetched.len().min(BARS) as u32;
    let lines = table.missing.len().min(NAMED) as u32 + 2;
    (WIDTH, TOP as u32 + bars * BAR as u32 + lines * LINE as u32 + 24)
}

/// The chart as SVG.
///
/// # Errors
/// [`DrawError`].
pub fn svg(table: &Table) -> Result<String, DrawError> {
    fonts();
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, size(table)).into_drawing_area(), table)
        .map_err(|error| DrawError { round: table.round.to_string(), cause: error.to_string() })?;
    Ok(text)
}

/// The chart as PNG.
///
/// # Errors
/// [`DrawError`].
pub fn png(table: &Table) -> Result<Vec<u8>, DrawError> {
    fonts();
    let failed = |cause: String| DrawError { round: table.round.to_string(), cause };
    let (width, height) = size(table);
    let mut pixels = vec![0; (width * height * 3) as usize];
    draw(BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), table)
        .map_err(|error| failed(error.to_string()))?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|error| failed(error.to_string()))?;
    writer.write_image_data(&pixels).map_err(|error| failed(error.to_string()))?;
    writer.finish().map_err(|error| failed(error.to_string()))?;
    Ok(file)
}

fn draw<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    table: &Table,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let style = |size: u32, color: &RGBColor| ("sans-serif", size).into_font().color(color);
    let right = |style: TextStyle<'static>| style.pos(Pos::new(HPos::Right, VPos::Top));
    area.fill(&plotters::style::WHITE)?;
    let posts = table.rows.len();
    let accounts = table.fetched.len();
    area.draw(&Text::new(format!("Round {}", table.round), (24, 16), style(24, &INK)))?;
    let subtitle = format!("the last posts of {accounts} accounts, {posts} in all");
    area.draw(&Text::new(subtitle, (24, 48), style(15, &FAINT)))?;
    area.draw(&Text::new("posts a day", (190, TOP - 20), style(13, &FAINT)))?;
    area.draw(&Text::new("words in the middle post", (590, TOP - 20), style(13, &FAINT)))?;

    let figures = table.figures();
    let most_rate = figures.values().filter_map(|f| f.per_day).fold(0.0, f64::max);
    let most_words = figures.values().map(|f| f.words).max().unwrap_or(0);
    let mut y = TOP;
    for (account, figures) in figures.iter().take(BARS) {
        area.draw(&Text::new(shortened(account, 22), (180, y + 4), right(style(15, &INK))))?;
        let rate = figures.per_day.map_or(0.0, |rate| rate / most_rate.max(f64::MIN_POSITIVE));
        let end = 190 + (rate * 300.0) as i32;
        area.draw(&Rectangle::new([(190, y + 3), (end.max(191), y + BAR - 5)], RATE.filled()))?;
        let label = figures.per_day.map_or("–".to_owned(), |rate| format!("{rate:.3}"));
        area.draw(&Text::new(label, (end + 6, y + 4), style(13, &INK)))?;
        let words = figures.words as f64 / most_words.max(1) as f64;
        let end = 590 + (words * 280.0) as i32;
        area.draw(&Rectangle::new([(590, y + 3), (end.max(591), y + BAR - 5)], WORDS.filled()))?;
        area.draw(&Text::new(figures.words.to_string(), (end + 6, y + 4), style(13, &INK)))?;
        y += BAR;
    }
    y += 12;
    if table.fetched.len() > BARS {
        let more = format!("and {} more accounts, which are in the CSV", table.fetched.len() - BARS);
        area.draw(&Text::new(more, (24, y), style(13, &FAINT)))?;
        y += LINE;
    }
    for (account, reason) in table.missing.iter().take(NAMED) {
        let line = format!("missing: {}: {}", shortened(account, 40), shortened(reason, 90));
        area.draw(&Text::new(line, (24, y), style(14, &ALARM)))?;
        y += LINE;
    }
    area.present()
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

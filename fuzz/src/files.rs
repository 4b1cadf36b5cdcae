//! Files of meters, as users export them.

use galerna_import::{Amount, History, Import, Mapping, MeterValue, Options};
use galerna_model::SourceId;

/// An export that the mapping files of the target are tried on.
const EXPORT: &[u8] = b"CUPS;Fecha;Hora;Consumo;Unidad\nES1;01/11/2026;1;0,5;kWh\nES1;01/11/2026;2;0,7;kWh\n";

/// Reads the bytes as a table, as it is and with all that options can say of it.
///
/// # Panics
/// When what was read breaks a promise of the import.
pub fn csv(data: &[u8]) {
    file(data, &Options::default());
    let told = Options::default()
        .with_account("A1")
        .and_then(|options| options.with_meter("m1"))
        .and_then(|options| options.with_interval("15m"))
        .and_then(|options| options.with_time_zone("Europe/Madrid"));
    let mut told = told.expect("good options");
    (told.utility, told.unit, told.decimal) = (Some("electricity".into()), Some("kWh".into()), Some(','));
    file(data, &told);
}

/// Reads the bytes as a wide grid: a line a day, a column an interval.
///
/// # Panics
/// When what was read breaks a promise of the import.
pub fn grid(data: &[u8]) {
    csv(data);
}

/// Reads the bytes as lines of JSON.
///
/// # Panics
/// When what was read breaks a promise of the import.
pub fn ndjson(data: &[u8]) {
    csv(data);
}

/// Reads the bytes as Green Button XML.
///
/// # Panics
/// When what was read breaks a promise of the import.
pub fn green_button(data: &[u8]) {
    file(data, &Options::default());
    file(data, &Options::default().with_account("A1").expect("a good name"));
}

/// Reads the bytes as a mapping file; with one that is right, reads an export.
///
/// # Panics
/// When what was read breaks a promise of the import.
pub fn mapping(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(mapping) = Mapping::parse("fuzz", text) else { return };
    let options = Options::default().with_account("A1").expect("a good name");
    let mut options = options.with_meter("m1").expect("a good name");
    options.mapping = Some(mapping);
    file(EXPORT, &options);
}

fn file(data: &[u8], options: &Options) {
    let Ok(import) = Import::open(data.to_vec(), options) else { return };
    let (good, bad) = import.rows().fold((0, 0), |(good, bad), row| match row {
        Ok(_) => (good + 1, bad),
        Err(error) => {
            assert!(error.line >= 1 && error.last_line >= error.line && error.rows >= 1, "{error:?}");
            (good, bad + 1)
        }
    });
    let meters = import.meters();
    let kept: usize = meters.values.values().map(Vec::len).sum();
    let conflicts = meters.errors.len() - bad;
    let duplicates = usize::try_from(meters.duplicates).expect("fewer than bytes");
    assert!(kept + duplicates + conflicts <= good + meters.errors.len(), "rows of nothing");
    // A row whose value alone was refused keeps its place, with nothing in it.
    let is_empty = |value: &&MeterValue| matches!(value.amount, Amount::Missing(_) | Amount::MissingValue(_));
    let with_value = meters.values.values().flatten().filter(|value| !is_empty(value)).count();
    assert!(
        with_value <= good && (good == 0 || kept > 0),
        "{good} rows, {kept} kept, {with_value} of them with a value: a row is lost without an error"
    );
    let source = SourceId::new("fuzz").expect("a name");
    for values in meters.values.values() {
        assert!(values.is_sorted_by_key(|value| value.ts), "not in the order of times");
        let mut history = History::default();
        let added = history.add(&source, values, &());
        assert!(added.readings.is_sorted_by_key(|reading| reading.ts));
        for reading in &added.readings {
            assert!(reading.values.iter().all(|m| m.v.is_finite()), "{reading:?}");
        }
        let chunks = history.chunks();
        let again = History::from_chunks(chunks.values().map(Vec::as_slice));
        let mut again = again.expect("what was kept can be read");
        assert_eq!(again.chunks(), chunks);
        let known = again.add(&source, values, &());
        assert_eq!((known.readings, known.revised), (added.readings, 0), "what is known adds nothing");
    }
}

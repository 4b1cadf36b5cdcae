use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::*;
use crate::file::open_file;

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bad_csv").join(name)
}

fn read<T: DeserializeOwned>(path: &Path, form: FileForm) -> Vec<Result<Row<T>, BadRow>> {
    RowReader::new(path, form, open_file(path).unwrap()).collect()
}

fn lines<T: DeserializeOwned>(form: FileForm, text: impl AsRef<[u8]>) -> Vec<Result<Row<T>, BadRow>> {
    RowReader::new(Path::new("f"), form, text.as_ref()).collect()
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Value {
    meter: String,
    value: Option<f64>,
}

#[test]
fn a_files_form_is_told_by_its_name() {
    let cases = [
        ("a.csv", Some(FileForm::Csv)),
        ("a.CSV.gz", Some(FileForm::Csv)),
        ("x/a.ndjson", Some(FileForm::Ndjson)),
        ("a.jsonl.gz", Some(FileForm::Ndjson)),
        ("a.json", Some(FileForm::Ndjson)),
        ("a.xlsx", None),
        ("csv", None),
        ("a.gz", None),
        ("", None),
    ];
    for (name, form) in cases {
        assert_eq!(FileForm::of(Path::new(name)), form, "{name}");
    }
}

#[test]
fn bad_rows_of_a_csv_are_told_with_line_and_column_and_the_others_are_read() {
    let text = b"meter,value\na,1\nb,much\n\nc,2,3\nd\n\"e\nf\",5\ng,\xff\nh,8\n";
    let rows: Vec<Result<Row<Value>, BadRow>> = lines(FileForm::Csv, text);
    let told: Vec<_> = rows
        .iter()
        .map(|row| match row {
            Ok(row) => format!("{}: {}", row.line, row.value.meter.replace('\n', "|")),
            Err(bad) => bad.to_string(),
        })
        .collect();
    assert_eq!(
        told,
        [
            "2: a",
            "f, line 3, column 2: `value`: invalid float literal",
            "f, line 5, column 3: 3 fields, the header has 2",
            "f, line 6, column 2: 1 fields, the header has 2",
            "7: e|f",
            "f, line 9, column 2: it is not UTF-8 text",
            "10: h",
        ]
    );
}

#[test]
fn bad_lines_of_json_are_told_with_line_and_column_and_the_others_are_read() {
    let text = "\u{feff}{\"meter\":\"a\",\"value\":1}\n\n{\"meter\":7}\n{\"meter\":\n{\"value\":null}\n{\"meter\":\"z\"}";
    let rows: Vec<Result<Row<Value>, BadRow>> = lines(FileForm::Ndjson, text);
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            row.as_ref()
                .map(|row| row.line)
                .map_err(|bad| (bad.line, bad.column.is_some(), bad.reason.clone()))
        })
        .collect();
    assert_eq!(told[0], Ok(1));
    assert_eq!(told[1], Err((3, true, "invalid type: integer `7`, expected a string".to_owned())));
    assert_eq!(told[2].as_ref().unwrap_err().0, 4);
    assert_eq!(told[3], Err((5, true, "missing field `meter`".to_owned())));
    assert_eq!(told[4], Ok(6));
    assert_eq!(told.len(), 5);
}

#[test]
fn a_line_that_is_too_long_is_one_bad_row() {
    let long = "x".repeat(LONGEST_LINE + 10);
    let text = format!("{{\"meter\":\"a\"}}\n\"{long}\"\n{{\"meter\":\"b\"}}\n");
    let rows: Vec<Result<Row<Value>, BadRow>> = lines(FileForm::Ndjson, text);
    assert_eq!(rows.len(), 3);
    let bad = rows[1].as_ref().unwrap_err();
    assert!(bad.reason.contains("longer than") && bad.text.len() == SHOWN_CHARS);
    assert_eq!(rows[2].as_ref().unwrap().line, 3);
}

#[test]
fn an_empty_file_has_no_rows() {
    for form in [FileForm::Csv, FileForm::Ndjson] {
        for text in ["", "\n\n", "meter,value\n"] {
            if form == FileForm::Ndjson && text.len() > 2 {
                continue;
            }
            assert!(lines::<Value>(form, text).is_empty(), "{form:?} {text:?}");
        }
    }
}

/// A row of the half-hourly files of the Bath importer, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct HalfHours {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Date", deserialize_with = "day")]
    _date: String,
    #[serde(rename = "[24:00]")]
    _last: f64,
}

fn day<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    if text.split(' ').count() == 4 {
        Ok(text)
    } else {
        Err(serde::de::Error::custom(format!("`{text}` is no date")))
    }
}

#[test]
fn the_badly_formed_files_of_a_real_importer_are_told_with_line_and_column() {
    let csv = |name: &str| read::<HalfHours>(&fixture(name), FileForm::Csv);

    let good = csv("banes-example-file.csv");
    assert_eq!(good.len(), 5);
    assert_eq!(good[0].as_ref().unwrap().value.id, "98ded2104de8362acd87490c9cc0369d");

    let bad_date = csv("banes-bad-example-date-file.csv");
    let bad = bad_date[0].as_ref().unwrap_err();
    assert_eq!((bad.line, bad.reason.as_str()), (2, "`KABOOM` is no date"));

    let missing = csv("banes-bad-example-missing-data-file.csv");
    let places: Vec<_> =
        missing.iter().map(|row| row.as_ref().map(|r| r.line).map_err(|b| (b.line, b.column))).collect();
    assert_eq!(places, [Err((2, Some(55))), Ok(3)]);

    let png = csv("not_a_csv.csv");
    assert_eq!(png.len(), 1);
    let bad = png[0].as_ref().unwrap_err();
    assert_eq!((bad.line, bad.column), (1, Some(1)));
    assert!(bad.reason.starts_with("the header is not text"), "{}", bad.reason);
}

#[test]
fn a_first_line_may_name_the_separator() {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    #[allow(non_snake_case)]
    struct Reading {
        read_datetime: String,
        #[serde(rename = "kWh")]
        kwh: f64,
    }
    let rows = read::<Reading>(&fixture("example-highlands-file.csv"), FileForm::Csv);
    assert_eq!(rows.len(), 48);
    let first = rows[0].as_ref().unwrap();
    assert_eq!(
        (first.line, first.value.read_datetime.as_str(), first.value.kwh),
        (3, "04 Nov 2019 00:30:00", 1.9)
    );

    let semicolons: Vec<Result<Row<Value>, BadRow>> = lines(FileForm::Csv, "sep=;\nmeter;value\na,b;1.5\n");
    assert_eq!(semicolons[0].as_ref().unwrap().value.meter, "a,b");
}

#[test]
fn a_gzipped_file_is_unpacked_and_a_broken_one_ends_with_a_bad_row() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.csv.gz");
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(b"meter,value\n").unwrap();
    for n in 0..5_000 {
        writeln!(gz, "m{n},{}", f64::from(n) / 7.0).unwrap();
    }
    let packed = gz.finish().unwrap();
    std::fs::write(&whole, &packed).unwrap();
    let rows = read::<Value>(&whole, FileForm::Csv);
    assert_eq!(rows.len(), 5_000);
    assert!(rows.iter().all(Result::is_ok));

    let torn = folder.path().join("torn.csv.gz");
    std::fs::write(&torn, &packed[..packed.len() / 2]).unwrap();
    let rows = read::<Value>(&torn, FileForm::Csv);
    let (last, read) = rows.split_last().unwrap();
    assert!(read.iter().all(Result::is_ok) && !read.is_empty());
    assert!(last.as_ref().unwrap_err().reason.starts_with("the file cannot be read any further"));
}

//! Files that users really have, each with the readings that are right.

use crate::store::{Store, case, options, owned};
use galerna_import::{Import, ImportError, Mapping};

fn refusal(name: &str) -> ImportError {
    Import::open(case(name), &options()).err().unwrap_or_else(|| panic!("{name} was read"))
}

#[test]
fn a_counter_goes_on_from_the_last_file() {
    for files in [["cases/month1.csv", "cases/month2.csv"], ["cases/month2.csv", "cases/month1.csv"]] {
        let mut store = Store::default();
        for file in files {
            assert!(store.publish(case(file), &options()).unwrap().errors().is_empty());
        }
        assert_eq!(store.values("CaseA", "c_mon", 402), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "{files:?}");
        assert_eq!(store.values("CaseA", "c_mon", 401), [1000.0; 6]);
    }
}

#[test]
fn each_account_has_its_own_meter_1() {
    let mut store = Store::default();
    store.publish(case("cases/multi_account_meter.csv"), &options()).unwrap();
    assert_eq!(store.values("CaseA", "1", 402), [10.0, 20.0]);
    assert_eq!(store.values("CaseB", "1", 402), [1.0, 2.0]);
}

#[test]
fn rows_with_the_newest_first_are_put_in_order() {
    let mut store = Store::default();
    store.publish(case("cases/newest_first.csv"), &options()).unwrap();
    assert_eq!(store.values("CaseA", "m_nf", 402), [1.0, 3.0, 7.0, 15.0]);
}

#[test]
fn power_is_energy_over_the_interval() {
    let mut store = Store::default();
    store.publish(case("cases/half_hourly.csv"), &options()).unwrap();
    assert_eq!(store.values("CaseA", "c_hh", 401), [1000.0; 4]);
    assert_eq!(store.values("CaseA", "c_hh", 402), [0.5, 1.0, 1.5, 2.0]);
}

#[test]
fn a_row_that_cannot_be_stored_adds_nothing() {
    let mut store = Store::default();
    let errors = store.publish(case("cases/lost_decimal_point.csv"), &options()).unwrap().errors();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("line 2: ") && errors[0].contains("out of range"), "{errors:?}");
    assert_eq!(store.values("CaseA", "c_huge", 402), [1.5]);
    assert_eq!(store.values("CaseA", "c_huge", 401), [1500.0]);
}

#[test]
fn what_is_negative_is_exported() {
    let mut store = Store::default();
    store.publish(case("cases/negative_interval.csv"), &options()).unwrap();
    assert_eq!(store.values("CaseA", "m_neg", 402), [1.0, 1.0, 1.0, 3.0]);
    assert_eq!(store.values("CaseA", "m_neg", 452), [0.221, 0.793]);
    assert_eq!(store.values("CaseA", "m_neg", 401), [1000.0, -221.0, -572.0, 2000.0]);
}

#[test]
fn a_quote_that_is_not_closed_is_told_with_what_it_takes() {
    let published = Store::default().publish(case("cases/unclosed_quote.csv"), &options()).unwrap();
    let error = &published.meters.errors[0];
    assert_eq!((error.line, error.last_line, error.rows), (2, 5, 4));
    assert!(error.found.contains("a quote opened on line 2 is not closed"), "{error}");
    assert!(error.found.contains("lines 2 to 5 (4 lines)"), "{error}");
}

#[test]
fn the_form_of_a_table_is_told_apart() {
    for (file, meter, delimiter, header, comma) in [
        ("semicolon.csv", "m_semi", "`;`", 1, false),
        ("tab.csv", "m_tab", "a tab", 1, false),
        ("sep_line.csv", "m_sep", "`,`", 2, false),
        ("preamble.csv", "m_pre", "`,`", 4, false),
        ("header_case.csv", "m_hc", "`,`", 1, false),
        ("semicolon_decimal_comma.csv", "m_semic", "`;`", 1, true),
        ("utf16.csv", "m_u16", "`,`", 1, false),
    ] {
        let bytes = case(&format!("cases/{file}"));
        let import = Import::open(bytes.clone(), &options()).unwrap();
        let found = import.found();
        assert_eq!(
            (found.delimiter.as_deref(), found.header_line, found.decimal_comma),
            (Some(delimiter), Some(header), comma),
            "{file}"
        );
        let mut store = Store::default();
        assert!(store.publish(bytes, &options()).unwrap().errors().is_empty(), "{file}");
        assert_eq!(store.values("CaseA", meter, 402), [1.0, 2.1, 3.3], "{file}");
        assert_eq!(store.values("CaseA", meter, 401), [1000.0, 1100.0, 1200.0], "{file}");
        let times = ["2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z", "2026-11-01T02:00:00Z"];
        assert_eq!(store.times(meter), times, "{file}");
    }
}

#[test]
fn what_the_file_lacks_is_named_and_can_be_said() {
    let error = refusal("cases/no_account_col.csv").to_string();
    assert!(error.contains("whose the readings are") && error.contains("--account"), "{error}");
    let mut store = Store::default();
    store.publish(case("cases/no_account_col.csv"), &owned("Acme", None)).unwrap();
    assert_eq!(store.values("Acme", "no_acc", 402), [0.5]);
    assert_eq!(store.values("Acme", "no_acc", 401), [500.0]);
}

#[test]
fn hour_24_is_the_next_day() {
    let mut store = Store::default();
    assert!(store.publish(case("cases/h24.csv"), &options()).unwrap().errors().is_empty());
    assert_eq!(store.times("m_h24"), ["2026-11-01T22:00:00Z", "2026-11-01T23:00:00Z"]);
    assert_eq!(store.values("CaseA", "m_h24", 402), [1.0, 2.1]);
}

/// A meter, its times, and parameters with their values.
type Shape<'a> = (&'a str, &'a [&'a str], &'a [(u32, &'a [f64])]);

fn reads(file: &str, options: &galerna_import::Options, (meter, times, values): Shape<'_>) {
    let mut store = Store::default();
    let published = store.publish(case(file), options).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert!(published.errors().is_empty(), "{file}: {:?}", published.errors());
    assert_eq!(store.times(meter), times, "{file}");
    for (parameter, expected) in values {
        assert_eq!(store.values("Acme", meter, *parameter), *expected, "{file} {parameter}");
    }
}

#[test]
fn shapes_of_suppliers_are_read_by_the_mappings_that_come_along() {
    // With and without the name of the mapping, which the header tells.
    let acme = |mapping: Option<&str>| owned("Acme", mapping);
    for named in [true, false] {
        let name = |mapping: &'static str| named.then_some(mapping);
        reads(
            "cases/shape_edistribucion.csv",
            &acme(name("edistribucion")),
            (
                "ES0000000000000000XX",
                // The 25th hour of the day that has 25 ends at midnight, the first an hour after the last midnight.
                &["2026-10-24T23:00:00Z", "2026-10-25T22:00:00Z", "2026-10-25T23:00:00Z"],
                &[(402, &[0.123, 0.221, 0.311]), (452, &[0.045, 0.045, 0.045]), (401, &[78.0, 98.0, 90.0])],
            ),
        );
        reads(
            "cases/shape_enedis.csv",
            &acme(name("enedis")),
            (
                "00000000000000",
                &["2025-12-31T23:00:00Z", "2025-12-31T23:30:00Z"],
                &[(401, &[460.0, 478.0]), (402, &[])],
            ),
        );
        reads(
            "cases/shape_esb_hdf.csv",
            &acme(name("esb-hdf")),
            ("10000000000", &["2026-11-30T00:00:00Z"], &[(402, &[0.246]), (401, &[492.0])]),
        );
        reads(
            "cases/shape_octopus.csv",
            &acme(name("octopus")).with_meter("home").unwrap(),
            (
                "home",
                &["2026-05-31T23:30:00Z", "2026-06-01T00:00:00Z"],
                &[(402, &[0.25, 0.75]), (401, &[500.0, 1000.0])],
            ),
        );
        reads(
            "cases/shape_shelly_em.csv",
            &acme(name("shelly-em")).with_meter("em").unwrap().with_interval("1m").unwrap(),
            ("em", &["2026-11-01T00:00:00Z"], &[(402, &[0.0123]), (452, &[0.0]), (401, &[738.0])]),
        );
        reads(
            "cases/shape_green_button.csv",
            &acme(name("green-button-csv"))
                .with_meter("g")
                .unwrap()
                .with_time_zone("America/Los_Angeles")
                .unwrap(),
            ("g", &["2026-01-15T08:15:00Z"], &[(402, &[0.05]), (401, &[200.0])]),
        );
        reads(
            "cases/shape_datadis.ndjson",
            &acme(name("datadis")),
            (
                "ES0000000000000000XX",
                &["2026-07-01T22:00:00Z"],
                &[(402, &[0.123]), (452, &[0.0]), (401, &[123.0])],
            ),
        );
    }
    let mut xml = acme(None).with_meter("gb").unwrap();
    xml.unit = Some("Wh".to_owned());
    reads(
        "cases/shape_green_button.xml",
        &xml,
        ("gb", &["2026-11-01T00:30:00Z"], &[(402, &[0.25]), (401, &[500.0])]),
    );
}

#[test]
fn a_shape_that_does_not_say_all_names_what_it_lacks_and_the_remedy() {
    for (file, parts) in [
        ("shape_edistribucion.csv", &["edistribucion", "--account"][..]),
        ("shape_enedis.csv", &["enedis", "--account"]),
        ("shape_esb_hdf.csv", &["esb-hdf", "--account"]),
        ("shape_octopus.csv", &["octopus", "--account", "--meter"]),
        ("shape_shelly_em.csv", &["shelly-em", "--account", "--meter"]),
        ("shape_green_button.csv", &["green-button-csv", "--account", "--meter", "--time-zone"]),
        ("shape_green_button.xml", &["Green Button", "--account"]),
        ("shape_datadis.ndjson", &["datadis", "--account"]),
    ] {
        let error = refusal(&format!("cases/{file}")).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{file}: {error}");
    }
    let error =
        Import::open(case("cases/shape_green_button.xml"), &owned("A", None).with_meter("m").unwrap());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ReadingType") && error.contains("--unit Wh"), "{error}");
}

#[test]
fn half_hourly_grids_are_read() {
    let mut store = Store::default();
    let published = store.publish(case("grids/banes-example-file.csv"), &owned("Bath", None)).unwrap();
    assert!(published.errors().is_empty(), "{:?}", published.errors());
    assert_eq!(published.meters.values.len(), 5);
    let energy = store.values("Bath", "2200012767323", 402);
    assert_eq!((energy.len(), energy[0], energy[47]), (48, 0.969, 226.103));
    assert_eq!(store.values("Bath", "2200012767323", 401)[..2], [1938.0, 2324.0]);
    let times = store.times("2200012767323");
    assert_eq!((times[0].as_str(), times[47].as_str()), ("2019-11-13T00:30:00Z", "2019-11-14T00:00:00Z"));

    let mut store = Store::default();
    assert!(
        store
            .publish(case("grids/example-highlands-file.csv"), &owned("H", None))
            .unwrap()
            .errors()
            .is_empty()
    );
    let times = store.times("1712423842469");
    assert_eq!(
        (times.len(), times[0].as_str(), times[47].as_str()),
        (48, "2019-11-04T00:30:00Z", "2019-11-05T00:00:00Z")
    );
    assert_eq!(store.values("H", "1712423842469", 401)[0], 3800.0);

    for file in ["grids/example-sheffield-file.csv", "grids/example-bad-sheffield-file.csv"] {
        let mut store = Store::default();
        assert!(store.publish(case(file), &owned("S", None)).unwrap().errors().is_empty());
        let times = store.times("2336533093112");
        assert_eq!((times.len(), times[0].as_str()), (96, "2019-12-10T00:30:00Z"), "{file}");
        assert_eq!(store.values("S", "2336533093112", 402)[..2], [6.25, 12.45]);
        assert_eq!(store.values("S", "2336533093112", 401)[0], 12500.0);
        assert!(store.values("S", "2336533093112", 404).is_empty(), "its reactive columns are empty");
    }
}

#[test]
fn the_day_of_a_clock_change_is_refused_where_a_grid_does_not_say_what_it_means() {
    let mut store = Store::default();
    let published =
        store.publish(case("grids/example-bad-sheffield-proper-file.csv"), &owned("S", None)).unwrap();
    let errors = published.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("2019-10-27 has 25 hours in Europe/London"), "{errors:?}");
    assert!(errors[0].contains("clock_change") && errors[0].contains("--time-zone UTC"), "{errors:?}");
    // 88 days, one of them refused.
    assert_eq!(store.times("2380001727391").len(), 87 * 48);
    let mut store = Store::default();
    let utc = owned("S", None).with_time_zone("UTC").unwrap();
    let published = store.publish(case("grids/example-bad-sheffield-proper-file.csv"), &utc).unwrap();
    assert!(published.errors().is_empty());
    assert_eq!(store.times("2380001727391").len(), 88 * 48);
}

#[test]
fn broken_grids_lose_only_the_lines_that_are_broken() {
    for (file, lines, part) in [
        ("banes-bad-example-date-file.csv", &[2][..], "KABOOM"),
        ("banes-bad-example-file.csv", &[3], "KABOOM"),
        ("banes-bad-example-missing-mpan-file.csv", &[3], "m1_code1 is empty"),
        ("banes-bad-example-missing-data-file.csv", &[], ""),
    ] {
        let published = Store::default().publish(case(&format!("grids/{file}")), &owned("B", None)).unwrap();
        let errors = &published.meters.errors;
        assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), lines, "{file}: {errors:?}");
        assert!(errors.iter().all(|error| error.found.contains(part)), "{file}: {errors:?}");
    }
    let error = refusal("grids/not_a_csv.csv").to_string();
    assert!(error.contains("PNG"), "{error}");
}

#[test]
fn what_was_read_before_is_read_still() {
    let header = "source,account,building,meter_id,utility,ts,value,unit";
    let rows = [
        "s,CaseA,b,m,electricity,2026-11-01T00:00:00Z,1.5E+00,kWh",
        "s,CaseA,b,m,electricity,2026-11-01T01:00:00Z,2,kWh",
    ];
    let plain = format!("{header}\n{}\n{}\n", rows[0], rows[1]);
    let quoted = |row: &str| row.split(',').map(|field| format!("\"{field}\"")).collect::<Vec<_>>().join(",");
    for (what, text) in [
        ("plain", plain.clone()),
        ("byte order mark", format!("\u{feff}{plain}")),
        ("CRLF", plain.replace('\n', "\r\n")),
        ("CR alone", plain.replace('\n', "\r")),
        ("quoted", format!("{}\n{}\n{}\n", quoted(header), quoted(rows[0]), quoted(rows[1]))),
        ("blank lines", plain.replace('\n', "\n\n")),
        ("spaces in the header", plain.replacen(',', " , ", 7)),
        ("trailing comma", plain.replace('\n', ",\n")),
        ("trailing comma in the rows", plain.replace("kWh\n", "kWh,\n")),
        ("no line end", plain.trim_end().to_owned()),
    ] {
        let mut store = Store::default();
        let published =
            store.publish(text.into_bytes(), &options()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(published.errors().is_empty(), "{what}: {:?}", published.errors());
        assert_eq!(store.values("CaseA", "m", 402), [1.5, 3.5], "{what}");
    }
    // A repeated autumn hour whose offsets tell it apart.
    let mut store = Store::default();
    let autumn = format!(
        "{header}\ns,A,b,m,electricity,2026-10-25T02:00:00+02:00,1,kWh\ns,A,b,m,electricity,2026-10-25T02:00:00+01:00,2,kWh\n"
    );
    store.publish(autumn.into_bytes(), &options()).unwrap();
    assert_eq!(store.times("m"), ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"]);
}

#[test]
fn a_wrong_line_is_named_and_the_others_are_read() {
    let text = "account,meter_id,utility,ts,value,unit\n\
        A,m,electricity,2026-11-01T00:00:00Z,1,kWh\n\
        A,m,steam,2026-11-01T01:00:00Z,1,kWh\n\
        A,m,electricity,2026-11-01T02:00:00,1,kWh\n\
        A,m,electricity,2026-11-01T03:00:00Z,NaN,kWh\n\
        A,,electricity,2026-11-01T04:00:00Z,1,kWh\n\
        A B,m,electricity,2026-11-01T05:00:00Z,1,kWh\n\
        x.dead,m,electricity,2026-11-01T06:00:00Z,1,kWh\n\
        A,m\n\
        A,m,electricity,2026-11-01T07:00:00Z,1,5,kWh\n\
        A,m,electricity,2026-11-01T08:00:00Z,1,kWh\n\
        A,m,electricity,2026-11-01T08:00:00Z,2,kWh\n\
        A,m,electricity,2026-11-01T09:00:00Z,1,kWh\n\
        A,m,electricity,2026-11-01T09:00:00Z,1,kWh\n\
        A,m,gas,2026-11-01T09:00:00Z,-1,kWh\n\
        A,m\u{7},gas,2026-11-01T09:00:00Z,1,kWh\n";
    let mut store = Store::default();
    let published = store.publish(text.as_bytes().to_vec(), &options()).unwrap();
    let errors = published.errors();
    for (error, parts) in errors.iter().zip([
        &["line 3", "utility `steam`"][..],
        &["line 4", "no zone"],
        &["line 5", "value `NaN`"],
        &["line 6", "meter_id is empty"],
        &["line 7: account", "space"],
        &["line 8: account", "reserved"],
        &["line 9", "2 fields"],
        &["line 10", "7 fields, the header has 6", "quotes"],
        &["line 11", "line 12", "neither"],
        &["line 12", "line 11", "neither"],
        &["line 15", "negative"],
        &["line 16", "control character"],
    ]) {
        assert!(parts.iter().all(|part| error.contains(part)), "{error} lacks {parts:?}");
    }
    assert_eq!(errors.len(), 12, "{errors:?}");
    assert_eq!(published.meters.duplicates, 1);
    assert_eq!(store.values("A", "m", 402), [1.0, 2.0]);
}

#[test]
fn two_utilities_of_one_meter_both_stay() {
    let text = "account,meter_id,utility,ts,value,unit\n\
        A,m,electricity,2026-11-01T00:00:00Z,1,kWh\n\
        A,m,gas,2026-11-01T00:00:00Z,5,kWh\n\
        A,m,water,2026-11-01T00:00:00Z,0.0007781194872222841,ml/s\n";
    let mut store = Store::default();
    store.publish(text.as_bytes().to_vec(), &options()).unwrap();
    assert_eq!(store.readings.len(), 1);
    assert_eq!(store.values("A", "m", 402), [1.0]);
    assert_eq!(store.values("A", "m", 420), [5.0]);
    assert_eq!(store.values("A", "m", 902), [2.801_230_154_000_222_8e-6]);
}

#[test]
fn a_corrected_file_is_taken_and_told() {
    let file = |value: &str| {
        format!(
            "account,meter_id,utility,ts,value,unit\n\
             A,m,electricity,2026-11-01T00:00:00Z,1,kWh\n\
             A,m,electricity,2026-11-01T01:00:00Z,{value},kWh\n\
             A,m,electricity,2026-11-01T02:00:00Z,1,kWh\n"
        )
    };
    let mut store = Store::default();
    store.publish(file("1").into_bytes(), &options()).unwrap();
    let published = store.publish(file("3").into_bytes(), &options()).unwrap();
    let added = &published.added[0];
    assert_eq!((added.known, added.revised, added.readings.len()), (2, 1, 3));
    let correction = &added.corrections[0];
    assert_eq!((correction.line, correction.before, correction.after), (3, 1.0, 3.0));
    assert_eq!(store.values("A", "m", 402), [1.0, 4.0, 5.0]);
    assert_eq!(store.values("A", "m", 401), [1000.0, 3000.0, 1000.0]);
}

#[test]
fn local_half_hours_of_a_clock_change_are_told_apart_by_their_order() {
    let file = |day: &str, times: &[&str], newest_first: bool| {
        let mut rows: Vec<String> = times
            .iter()
            .zip(1..)
            .map(|(time, n)| format!("1,0,{n},Active Import Interval (kWh),{day} {time}"))
            .collect();
        if newest_first {
            rows.reverse();
        }
        let header = "MPRN,Meter Serial Number,Read Value,Read Type,Read Date and End Time";
        format!("{header}\n{}\n", rows.join("\n"))
    };
    let clocks = |store: &Store| -> Vec<String> {
        store.times("1").iter().map(|time| time[11..16].to_owned()).collect()
    };
    let autumn = ["00:30", "01:00", "01:30", "01:00", "01:30", "02:00"];
    for newest_first in [false, true] {
        let mut store = Store::default();
        let text = file("25-10-2026", &autumn, newest_first);
        let published = store.publish(text.into_bytes(), &owned("E", None)).unwrap();
        assert!(published.errors().is_empty(), "{:?}", published.errors());
        assert_eq!(clocks(&store), ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]);
        assert_eq!(store.values("E", "1", 402), [1.0, 3.0, 6.0, 10.0, 15.0, 21.0]);
    }
    // In spring the half hour before the change ends at 01:00, which the clock shows as 02:00.
    for second in ["01:00", "02:00"] {
        let mut store = Store::default();
        let text = file("29-03-2026", &["00:30", second, "02:30"], false);
        let published = store.publish(text.into_bytes(), &owned("E", None)).unwrap();
        assert!(published.errors().is_empty(), "{:?}", published.errors());
        assert_eq!(clocks(&store), ["00:30", "01:00", "01:30"]);
    }
}

/// A meter that counts both directions in a row has both of its counters.
#[test]
fn registers_of_both_directions_have_their_own_counters() {
    let text = r#"
        description = "registers"
        utility = "electricity"
        unit = "Wh"
        meter = { column = "m" }
        [time]
        column = "t"
        [[value]]
        column = "in"
        kind = "counter"
        direction = "import"
        [[value]]
        column = "out"
        kind = "counter"
        direction = "export"
    "#;
    let mut options = owned("A", None);
    options.mapping = Some(Mapping::parse("registers", text).unwrap());
    let file = "m,t,in,out\nr,2026-11-01T00:00:00Z,1234567,10\nr,2026-11-01T01:00:00Z,1234667,30\n";
    let mut store = Store::default();
    let published = store.publish(file.as_bytes().to_vec(), &options).unwrap();
    assert!(published.errors().is_empty(), "{:?}", published.errors());
    assert_eq!(store.values("A", "r", 402), [1234.567, 1234.667]);
    assert_eq!(store.values("A", "r", 452), [0.01, 0.03]);
}

/// Counters of other senders stand where they stand; what is imported goes on from them.
#[test]
fn counters_that_others_stored_are_gone_on_from_and_not_changed() {
    use galerna_import::{History, StoredValue};
    use galerna_model::{ParameterCode, SourceId, Timestamp};

    let rows = |from: u32, count: u32| {
        let rows: Vec<String> = (from..from + count)
            .map(|hour| format!("A,m,electricity,2026-11-01T{hour:02}:00:00Z,1,kWh"))
            .collect();
        let text = format!("account,meter_id,utility,ts,value,unit\n{}\n", rows.join("\n"));
        Import::open(text.into_bytes(), &options()).unwrap().meters().values.into_values().next().unwrap()
    };
    let at = |hour: u32, value| StoredValue {
        ts: Timestamp::parse(&format!("2026-11-01T{hour:02}:00:00Z")).unwrap(),
        parameter: ParameterCode(402),
        value,
    };
    let source = SourceId::new("A").unwrap();
    let mut history = History::default();
    history.know_stored([at(1, 100.0), at(4, 110.0)]);
    let added = history.add(&source, &rows(2, 4), &());
    assert!(added.errors.is_empty(), "{:?}", added.errors);
    let counters: Vec<f64> = added.readings.iter().map(|reading| reading.values[0].v).collect();
    assert_eq!((counters.as_slice(), added.stored), (&[101.0, 102.0, 111.0][..], 1));

    let mut history = History::default();
    history.know_stored([at(4, 110.0)]);
    let added = history.add(&source, &rows(2, 2), &());
    assert!(added.readings.is_empty(), "nothing tells how the counter stood before");
    assert_eq!(added.errors.len(), 2);
    assert!(added.errors[0].found.contains("402 = 110"), "{}", added.errors[0]);
}

#[test]
fn what_copying_and_spreadsheets_leave_behind_is_seen() {
    let mut store = Store::default();
    let header = "\u{feff}account\u{a0},\u{200b}meter_id,utility, ts ,va\u{ad}lue,unit\u{feff}\n";
    let text = format!("{header}A,m,electricity,2026-11-01T00:00:00Z,1,kWh\n");
    assert_eq!(store.publish(text.into_bytes(), &options()).unwrap().errors(), Vec::<String>::new());
    assert_eq!(store.values("A", "m", 402), [1.0]);

    let text = "account,meter_id,utility,ts,value,unit\n\
        A,8.71687E+17,electricity,2026-11-01T01:00:00Z,1,kWh\n\
        8.71687E+17,m,electricity,2026-11-01T01:00:00Z,1,kWh\n\
        A,m,electricity,2026-11-01T01:00:00Z,1,kWh\n";
    let errors = store.publish(text.as_bytes().to_vec(), &options()).unwrap().errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    for (error, parts) in errors.iter().zip([["line 2", "meter_id is `8.71687E+17`"], ["line 3", "account"]])
    {
        assert!(
            parts.iter().all(|part| error.contains(part)) && error.contains("formatted as text"),
            "{error}"
        );
    }
    assert_eq!(store.values("A", "m", 402), [1.0, 2.0]);
}

#[test]
fn a_web_page_in_place_of_an_export_is_told() {
    for page in ["<!DOCTYPE html>\n<p>Please log in<br>", "\u{feff}  <HTML><body>Session over</body></HTML>"]
    {
        let read = Import::open(page.as_bytes().to_vec(), &options());
        let refused = read.err().unwrap_or_else(|| panic!("{page} was read"));
        assert!(refused.to_string().contains("web page"), "{refused}");
    }
}

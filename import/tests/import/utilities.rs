//! Exports of utilities and devices in the forms that they have, with numbers of these tests' own.

use crate::store::{Store, options, owned};
use galerna_import::{Import, Mapping, Options};

/// What a file is to give: parameters with their values.
type Expected<'a> = &'a [(u32, &'a [f64])];

fn publish(what: &str, text: &str, options: &Options) -> Store {
    let mut store = Store::default();
    let published =
        store.publish(text.as_bytes().to_vec(), options).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(published.errors().is_empty(), "{what}: {:?}", published.errors());
    store
}

fn reads(what: &str, text: &str, options: &Options, meter: &str, times: &[&str], expected: Expected<'_>) {
    let store = publish(what, text, options);
    assert_eq!(store.times(meter), times, "{what}");
    for (parameter, values) in expected {
        assert_eq!(store.values("A", meter, *parameter), *values, "{what} {parameter}");
    }
}

/// What opening refuses, or the first line that is refused.
fn refused(what: &str, text: &str, options: &Options) -> String {
    match Store::default().publish(text.as_bytes().to_vec(), options) {
        Err(error) => error.to_string(),
        Ok(published) => published.errors().first().unwrap_or_else(|| panic!("{what} was read")).clone(),
    }
}

fn says(what: &str, text: &str, options: &Options, parts: &[&str]) {
    let error = refused(what, text, options);
    assert!(parts.iter().all(|part| error.contains(part)), "{what}: {error} lacks some of {parts:?}");
}

fn acme() -> Options {
    owned("A", None)
}

fn of_meter() -> Options {
    acme().with_meter("m").unwrap()
}

fn american() -> Options {
    of_meter().with_time_zone("America/Los_Angeles").unwrap()
}

/// An Enedis export of this kind: type, quantity, direction, unit, minutes.
fn enedis([kind, quantity, direction, unit, minutes]: [&str; 5]) -> String {
    format!(
        "Identifiant PRM;Type de donnees;Date de debut;Date de fin;Grandeur physique;Grandeur metier;Etape metier;Unite;Pas en minutes\n\
         007;{kind};31/12/2025;31/12/2026;{quantity};{direction};Comptage Brut;{unit};{minutes}\n\
         Horodate;Valeur\n\
         2026-01-01T00:00:00+01:00;460\n\
         2026-01-01T00:30:00+01:00;500\n"
    )
}

#[test]
fn an_enedis_export_is_what_the_lines_before_its_header_say() {
    const CURVE: &str = "Courbe de charge";
    const ACTIVE: &str = "Energie active";
    let half_hours = &["2025-12-31T23:00:00Z", "2025-12-31T23:30:00Z"];
    for (kind, expected) in [
        ([CURVE, ACTIVE, "Consommation", "W", ""], &[(401, &[460.0, 500.0][..]), (402, &[]), (452, &[])][..]),
        // Half an hour of 460 W.
        (
            [CURVE, ACTIVE, "Production", "W", "30"],
            &[(452, &[0.23, 0.48]), (401, &[-460.0, -500.0]), (402, &[])],
        ),
        ([CURVE, ACTIVE, "Production", "W", ""], &[(452, &[0.23, 0.48]), (401, &[-460.0, -500.0])]),
        ([CURVE, ACTIVE, "Production", "Wh", "30"], &[(452, &[0.46, 0.96]), (401, &[-920.0, -1000.0])]),
        ([CURVE, "Energie reactive", "Consommation", "VAr", "30"], &[(403, &[460.0, 500.0]), (401, &[])]),
        (
            [CURVE, "Énergie réactive capacitive", "Consommation", "VAr", "30"],
            &[(407, &[460.0, 500.0]), (401, &[])],
        ),
        (["Index", ACTIVE, "Consommation", "Wh", ""], &[(402, &[0.46, 0.5]), (401, &[]), (452, &[])]),
        (["Index", ACTIVE, "Production", "Wh", ""], &[(452, &[0.46, 0.5]), (401, &[]), (402, &[])]),
    ] {
        let text = enedis(kind);
        reads(&kind.join(" "), &text, &acme(), "007", half_hours, expected);
        // With its accents.
        let accents =
            text.replace("donnees", "données").replace("metier", "métier").replace("Unite", "Unité");
        reads(&kind.join(" "), &accents, &acme(), "007", half_hours, expected);
    }
    for (kind, parts) in [
        (
            ["Puissance maximale", "Puissance apparente", "Consommation", "VA", ""],
            &["`Type de donnees` is `Puissance maximale`", "`Index`"][..],
        ),
        ([CURVE, "Energie reactive", "Consommation", "W", ""], &["`Unite` is `W`", "`VAr`"]),
        ([CURVE, "Energie reactive", "Production", "VAr", ""], &["`Grandeur metier` is `Production`"]),
        ([CURVE, ACTIVE, "", "W", ""], &["do not say `Grandeur metier`", "`Consommation`, `Production`"]),
        ([CURVE, ACTIVE, "Consommation", "31/12/2026", ""], &["`31/12/2026` is a date", "--unit"]),
    ] {
        says(&kind.join(" "), &enedis(kind), &acme(), parts);
    }
    let bare = "Horodate;Valeur\n2026-01-01T00:00:00+01:00;460\n";
    let mut told = of_meter();
    told.unit = Some("W".to_owned());
    says("no lines before the header", bare, &told, &["do not say `Type de donnees`", "mapping of your own"]);

    // In the encoding of Windows, and not said so.
    let (kind, latin) = ([CURVE, ACTIVE, "Consommation", "W", ""], |text: &str| -> Vec<u8> {
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
    });
    let bytes = latin(&enedis(kind).replace("Unite", "Unité"));
    let error = Import::open(bytes.clone(), &acme()).unwrap_err().to_string();
    assert!(error.contains("line before its header") && error.contains("--encoding"), "{error}");
    let mut windows = acme();
    windows.encoding = Some("windows-1252".to_owned());
    assert!(Import::open(bytes, &windows).is_ok());
}

#[test]
fn what_was_used_and_what_was_given_back_of_one_meter_both_stay() {
    let mut store = Store::default();
    for direction in ["Consommation", "Production"] {
        let text = enedis(["Courbe de charge", "Energie active", direction, "W", "30"]);
        assert!(store.publish(text.into_bytes(), &acme()).unwrap().errors().is_empty());
    }
    assert_eq!(store.values("A", "007", 401), [460.0, 500.0]);
    assert_eq!(store.values("A", "007", 452), [0.23, 0.48]);
}

/// A Green Button table with these rows.
fn green_button(columns: &str, rows: &[&str]) -> String {
    let rows: Vec<String> = rows.iter().map(|row| format!("Electric usage,{row},,\n")).collect();
    format!(
        "Name,TEST\nAddress,\"1 ST, TOWN\"\n\nTYPE,DATE,START TIME,END TIME,{columns},COST,NOTES\n{}",
        rows.concat()
    )
}

#[test]
fn green_button_tables_are_read_in_the_forms_that_utilities_have() {
    let usage = "USAGE (kWh)";
    let quarter = &["2026-01-15T08:15:00Z"][..];
    for (columns, rows, times, expected) in [
        (
            usage,
            &["1/15/2026,12:00 AM,12:14 AM,0.25"][..],
            quarter,
            &[(402, &[0.25][..]), (401, &[1000.0])][..],
        ),
        (usage, &["01/15/26,00:00,00:14,0.25"], quarter, &[(402, &[0.25])]),
        ("USAGE,UNITS", &["2026-01-15,00:00,00:14,0.25,kWh"], quarter, &[(402, &[0.25])]),
        (
            "IMPORT (kWh),EXPORT (kWh)",
            &["2026-01-15,00:00,00:14,0.25,0.05"],
            quarter,
            &[(402, &[0.25]), (452, &[0.05])],
        ),
        // The last interval ends at midnight.
        (
            usage,
            &["2026-01-15,23:45,00:00,0.25"],
            &["2026-01-16T08:00:00Z"],
            &[(402, &[0.25]), (401, &[1000.0])],
        ),
        // Here the minute after the last is named.
        (
            usage,
            &["2026-01-15,00:00,00:15,0.25", "2026-01-15,00:15,00:30,0.5"],
            &["2026-01-15T08:15:00Z", "2026-01-15T08:30:00Z"],
            &[(402, &[0.25, 0.75]), (401, &[1000.0, 2000.0])],
        ),
        // The clock goes back before the end, and forward.
        (
            usage,
            &[
                "2026-11-01,01:00,01:30,1",
                "2026-11-01,01:30,01:00,2",
                "2026-11-01,01:00,01:30,3",
                "2026-11-01,01:30,02:00,4",
            ],
            &["2026-11-01T08:30:00Z", "2026-11-01T09:00:00Z", "2026-11-01T09:30:00Z", "2026-11-01T10:00:00Z"],
            &[(402, &[1.0, 3.0, 6.0, 10.0]), (401, &[2000.0, 4000.0, 6000.0, 8000.0])],
        ),
        (usage, &["2026-03-08,01:30,03:00,1"], &["2026-03-08T10:00:00Z"], &[(401, &[2000.0])]),
        // A day of 25 hours.
        (
            usage,
            &["2026-11-01,00:00,23:59,25"],
            &["2026-11-02T08:00:00Z"],
            &[(402, &[25.0]), (401, &[1000.0])],
        ),
        // The hour that occurs twice is each of them once.
        (
            usage,
            &[
                "2026-11-01,00:00,00:59,1",
                "2026-11-01,01:00,01:59,2",
                "2026-11-01,01:00,01:59,3",
                "2026-11-01,02:00,02:59,4",
            ],
            &["2026-11-01T08:00:00Z", "2026-11-01T09:00:00Z", "2026-11-01T10:00:00Z", "2026-11-01T11:00:00Z"],
            &[(402, &[1.0, 3.0, 6.0, 10.0]), (401, &[1000.0, 2000.0, 3000.0, 4000.0])],
        ),
    ] {
        let text = green_button(columns, rows);
        reads(&text, &text, &american(), "m", times, expected);
    }
    says(
        "a day that may be a month",
        &green_button(usage, &["1/2/2026,00:00,00:59,1", "1/2/2026,01:00,01:59,1"]),
        &american(),
        &["`1/2/2026` on line 5 may be 2026-01-02", "2026-02-01", "--date-order"],
    );
    for (order, time) in [("mdy", "2026-01-02T09:00:00Z"), ("dmy", "2026-02-01T09:00:00Z")] {
        let told = american().with_date_order(order).unwrap();
        let text = green_button(usage, &["1/2/2026,00:00,00:59,1"]);
        reads(order, &text, &told, "m", &[time], &[(402, &[1.0])]);
    }
    let therms = "TYPE,DATE,START TIME,END TIME,USAGE (therms)\nNatural gas usage,2026-01-15,00:00,23:59,1\n";
    says(
        "therms",
        therms,
        &american(),
        &["`USAGE (therms)`", "nearest to `green-button-csv`", "`USAGE (kWh)`", "--mapping"],
    );
}

#[test]
fn an_hour_that_is_repeated_is_told_by_which_of_the_times_is() {
    // 25 hours, each of as many kWh as its number.
    let wall = ["01:00", "02:00", "02:00", "03:00", "04:00"];
    let by_start = ["01:00", "02:00", "03:00", "03:00", "04:00"];
    let ends = ["23:00", "00:00", "01:00", "02:00", "03:00"];
    for (what, times) in [("as a clock shows it", wall), ("by the beginning", by_start)] {
        for newest_first in [false, true] {
            let mut rows: Vec<(&str, i32)> = times.into_iter().zip(1..).collect();
            if newest_first {
                rows.reverse();
            }
            let objects: Vec<String> = rows
                .iter()
                .map(|(time, n)| {
                    format!(r#"{{"cups":"m","date":"2026/10/25","time":"{time}","consumptionKWh":{n},"surplusEnergyKWh":0}}"#)
                })
                .collect();
            let cells: Vec<String> =
                rows.iter().map(|(time, n)| format!("m;2026/10/25;{time};{n}")).collect();
            for text in [
                objects.join("\n"),
                format!("[{}]", objects.join(",\n")),
                format!("cups;fecha;hora;consumo_kWh\n{}\n", cells.join("\n")),
            ] {
                let store = publish(what, &text, &acme());
                let clocks: Vec<String> =
                    store.times("m").iter().map(|time| time[11..16].to_owned()).collect();
                assert_eq!(clocks, ends, "{what}: {text}");
                assert_eq!(store.values("A", "m", 402), [1.0, 3.0, 6.0, 10.0, 15.0], "{what}: {text}");
            }
        }
    }
    // An hour by its number.
    let text = "CUPS;Fecha;Hora;Consumo_kWh;Metodo_obtencion\nm;25/10/2026;3;1,5;R\nm;25/10/2026;25;2;R\n";
    let times = &["2026-10-25T01:00:00Z", "2026-10-25T23:00:00Z"];
    reads("numbers", text, &acme(), "m", times, &[(402, &[1.5, 3.5])]);
}

#[test]
fn other_exports_are_read() {
    let mut kwh = acme();
    kwh.unit = Some("kWh".to_owned());
    for (what, text, options, meter, times, expected) in [
        (
            "octopus, gas",
            "Consumption (m³), Start, End\n0.25,2026-06-01T00:00:00+01:00,2026-06-01T00:30:00+01:00\n",
            of_meter(),
            "m",
            &["2026-05-31T23:30:00Z"][..],
            &[(419, &[0.25][..])][..],
        ),
        (
            "octopus, with costs",
            "Consumption (kWh), Estimated Cost Inc. Tax (p), Start, End\n0.25,4.1,2026-06-01T00:00:00+01:00,2026-06-01T00:30:00+01:00\n",
            of_meter(),
            "m",
            &["2026-05-31T23:30:00Z"],
            &[(402, &[0.25]), (401, &[500.0])],
        ),
        (
            "octopus-api",
            "{\n \"count\": 2, \"next\": null,\n \"results\": [\n\
             {\"consumption\": 0.5, \"interval_start\": \"2026-10-25T01:30:00+01:00\", \"interval_end\": \"2026-10-25T01:00:00Z\"},\n\
             {\"consumption\": 0.25, \"interval_start\": \"2026-10-25T01:00:00+0100\", \"interval_end\": \"2026-10-25T01:30:00+0100\"}]}",
            of_meter(),
            "m",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"],
            &[(402, &[0.25, 0.75]), (401, &[500.0, 1000.0])],
        ),
        (
            "tibber",
            "{\"data\":{\"viewer\":{\"homes\":[{\"consumption\":{\"nodes\":[\
             {\"from\":\"2026-11-01T00:00:00.000+01:00\",\"to\":\"2026-11-01T01:00:00.000+01:00\",\"consumption\":1.5,\"consumptionUnit\":\"kWh\"},\
             {\"from\":\"2026-11-01T01:00:00.000+01:00\",\"to\":\"2026-11-01T02:00:00.000+01:00\",\"consumption\":null,\"consumptionUnit\":\"kWh\"}]}}]}}}",
            of_meter(),
            "m",
            &["2026-11-01T00:00:00Z"],
            &[(402, &[1.5]), (401, &[1500.0])],
        ),
        (
            "sdge",
            "Meter Number,Date,Start Time,Duration,Consumption,Generation,Net\n\
             0112,11/1/2026,12:00 AM,60,0.5,0,0.5\n\
             0112,11/1/2026,1:00 AM,60,0.5,0.1,0.4\n\
             0112,11/1/2026,1:00 AM,60,0.75,0,0.75\n",
            acme(),
            "0112",
            &["2026-11-01T08:00:00Z", "2026-11-01T09:00:00Z", "2026-11-01T10:00:00Z"],
            &[(402, &[0.5, 1.0, 1.75]), (452, &[0.0, 0.1, 0.1]), (401, &[500.0, 400.0, 750.0])],
        ),
        (
            "fluvius",
            "Van (datum);Van (tijdstip);Tot (datum);Tot (tijdstip);EAN-code;Meter;Metertype;Register;Volume;Eenheid;Validatiestatus;Omschrijving\n\
             15-11-2026;23:30:00;15-11-2026;23:45:00;=\"541448800000000001\";1S;Digitale meter;Afname Nacht;0,125;kWh;Uitgelezen;\n\
             15-11-2026;23:45:00;16-11-2026;00:00:00;=\"541448800000000001\";1S;Digitale meter;Afname Nacht;0,250;kWh;Uitgelezen;\n\
             15-11-2026;23:45:00;16-11-2026;00:00:00;=\"541448800000000001\";1S;Digitale meter;Injectie Nacht;0,050;kWh;Uitgelezen;\n",
            acme(),
            "541448800000000001",
            &["2026-11-15T22:45:00Z", "2026-11-15T23:00:00Z"],
            &[(402, &[0.125, 0.375]), (452, &[0.05]), (401, &[500.0, 800.0])],
        ),
        (
            "e-redes",
            "CPE;PT0002000000000000XX\n\nData;Hora;Consumo registado (kW);Estado\n2026/11/01;00:15;0,400;Real\n2026/11/01;24:00;0,800;Real\n",
            of_meter(),
            "m",
            &["2026-11-01T00:15:00Z", "2026-11-02T00:00:00Z"],
            &[(402, &[0.1, 0.3]), (401, &[400.0, 800.0])],
        ),
        (
            "home-assistant",
            "entity_id,state,last_changed\nsensor.total,100.5,2026-11-01T00:00:00.123Z\nsensor.total,unavailable,2026-11-01T00:30:00.000Z\n",
            kwh,
            "sensor.total",
            &["2026-11-01T00:00:00.123Z"],
            &[(402, &[100.5]), (401, &[])],
        ),
        (
            "enedis-index",
            "Identifiant PRM;Type de donnees;Grandeur physique;Grandeur metier;Unite\n007;Index;Energie active;Consommation;Wh\n\
             Horodate;Type de releve;EAS F1;EAS F2;EAS T\n2026-01-02T00:00:00+01:00;Arrete quotidien;100000;50000;150000\n",
            acme(),
            "007",
            &["2026-01-01T23:00:00Z"],
            &[(402, &[150.0])],
        ),
        (
            "esb-hdf, registers",
            "MPRN,Meter Serial Number,Read Value,Read Type,Read Date and End Time\n10,1,1234.5,24 hr Active Import Register (kWh),30-11-2026 00:00\n",
            acme(),
            "10",
            &["2026-11-30T00:00:00Z"],
            &[(402, &[1234.5]), (401, &[])],
        ),
    ] {
        reads(what, text, &options, meter, times, expected);
    }
    let nothing = Import::is_json_export(br#"{"results":[{"did":"m","values":[]}]}"#);
    assert!(
        !nothing
            && Import::is_json_export(
                br#"{"count":1,"results":[{"consumption":1,"interval_start":"a","interval_end":"b"},{"cons"#
            )
    );
}

#[test]
fn what_no_mapping_reads_says_what_it_found_and_what_to_give() {
    for (what, text, parts) in [
        (
            "netze bw",
            "Zählpunkt;DE0001\nDatum von;Datum bis;Verbrauch in kWh;Status\n01.07.2026 00:00;01.07.2026 00:15;0,123;W\n",
            &["line 2 has 4 columns", "`Verbrauch in kWh`", "--mapping"][..],
        ),
        (
            "n3rgy",
            "timestamp (UTC),energyConsumption (kWh)\n2026-01-01 00:00,0.5\n",
            &["`energyConsumption (kWh)`", "--mapping"],
        ),
        (
            "a day of two tariffs",
            "Van (datum);Van (tijdstip);Tot (datum);Tot (tijdstip);EAN-code;Register;Volume;Eenheid\n\
             24-10-2026;00:00:00;25-10-2026;00:00:00;541;Afname Dag;3,5;kWh\n\
             24-10-2026;00:00:00;25-10-2026;00:00:00;541;Afname Nacht;2,5;kWh\n",
            &["line 2", "line 3", "neither"],
        ),
        (
            "numbers in front of the year",
            "account,meter_id,utility,ts,value,unit\nA,m,electricity,01/11/2026 00:00,1,kWh\n",
            &["01/11/2026", "--date-order dmy"],
        ),
        (
            "lines in quotes",
            "\"account,meter_id,utility,ts,value,unit\"\n\"A,m,electricity,2026-11-01T00:00:00Z,1,kWh\"\n",
            &["line 1 stands in quotes as a whole"],
        ),
        (
            "a line of totals",
            "account,meter_id,utility,ts,value,unit\nA,m,electricity,2026-11-01T00:00:00Z,1,kWh\nA,m,electricity,,2,\n",
            &["line 3", "the unit is empty", "--unit"],
        ),
        (
            "epoch in a text",
            "account,meter_id,utility,ts,value,unit\nA,m,electricity,1793491200.0,1,kWh\n",
            &["2026-11-01T00:00:00Z as seconds since 1970"],
        ),
    ] {
        says(what, text, &acme(), parts);
    }
    let text = "account,meter_id,utility,ts,value,unit\nA,m,electricity,01/11/2026 00:00,1,kWh\n";
    let told = options().with_time_zone("UTC").unwrap().with_date_order("dmy").unwrap();
    reads("told", text, &told, "m", &["2026-11-01T00:00:00Z"], &[(402, &[1.0])]);
    let contradicted = owned("A", Some("fluvius")).with_date_order("mdy").unwrap();
    let text = "Van (datum);Van (tijdstip);Tot (datum);Tot (tijdstip);EAN-code;Register;Volume;Eenheid\n";
    says("contradicted", text, &contradicted, &["--date-order", "`%d-%m-%Y`"]);
}

#[test]
fn a_mapping_may_ask_several_things_and_of_the_row_too() {
    let text = r#"
        utility = "electricity"
        unit = "kWh"
        meter = { preamble = "Meter" }
        [time]
        column = "t"
        [[value]]
        column = "v"
        when = [{ preamble = "Kind", equals = ["used", "net"] }, { column = "state", equals = "ok" }]
        [[skip]]
        column = "state"
        equals = "bad"
    "#;
    let mut options = acme();
    options.mapping = Some(Mapping::parse("mine", text).unwrap());
    let file = |kind: &str| {
        format!("Meter,m\nKind,{kind}\nt,v,state\n2026-11-01T00:00:00Z,1,ok\n2026-11-01T01:00:00Z,2,bad\n")
    };
    reads("used", &file("Used"), &options, "m", &["2026-11-01T00:00:00Z"], &[(402, &[1.0])]);
    says("made", &file("made"), &options, &["`Kind` is `made`", "`used`, `net`"]);
    for (text, part) in [
        ("form = 'table'\nrows = 'a'\n[time]\ncolumn = 'a'\n[[value]]\ncolumn = 'v'\n", "`rows`"),
        ("[time]\ndate = 'a'\nclock = 'b'\nend_date = 'c'\n[[value]]\ncolumn = 'v'\n", "`time.end_clock`"),
        ("[time]\ncolumn = 'a'\n[[value]]\ncolumn = 'v'\nkind = 'middle'\n", "middle"),
    ] {
        let error = Mapping::parse("m.toml", text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn beside_a_refused_row_no_power_is_made_of_a_distance_that_is_no_interval() {
    let file = |rows: &[(&str, &str)]| {
        let rows: Vec<String> =
            rows.iter().map(|(ts, value)| format!("A,m,electricity,2026-11-01T{ts},{value},kWh\n")).collect();
        format!("account,meter_id,utility,ts,value,unit\n{}", rows.concat())
    };
    for (what, rows, power) in [
        // Its value is refused, and its time tells that the others are of half an hour.
        ("value", &[("00:00:00Z", "1"), ("00:30:00Z", "NaN"), ("01:00:00Z", "1")][..], &[2000.0, 2000.0][..]),
        // Its time is not known: the others may be of an hour, or of half of one.
        ("time", &[("00:00:00Z", "1"), ("24:30:00Z", "1"), ("01:00:00Z", "1")], &[]),
        ("time, newest first", &[("01:00:00Z", "1"), ("24:30:00Z", "1"), ("00:00:00Z", "1")], &[]),
        (
            "others tell",
            &[("00:00:00Z", "1"), ("00:30:00Z", "1"), ("24:30:00Z", "1"), ("01:30:00Z", "1")],
            &[2000.0, 2000.0, 2000.0],
        ),
        ("alone", &[("00:00:00Z", "1"), ("soon", "1")], &[]),
    ] {
        let mut store = Store::default();
        let published = store.publish(file(rows).into_bytes(), &options()).unwrap();
        assert_eq!(published.errors().len(), 1, "{what}");
        assert_eq!(store.values("A", "m", 401), power, "{what}");
        // What the store keeps of it does not depend on what else was published with it.
        let again = store.publish(file(rows).into_bytes(), &options()).unwrap();
        assert_eq!(again.added[0].corrections, [], "{what}");
        assert_eq!(store.values("A", "m", 401), power, "{what}");
    }
    // When the row comes after all, the distance is that of no other.
    let mut store = Store::default();
    store
        .publish(file(&[("00:00:00Z", "1"), ("24:30:00Z", "1"), ("01:00:00Z", "1")]).into_bytes(), &options())
        .unwrap();
    store.publish(file(&[("00:30:00Z", "1")]).into_bytes(), &options()).unwrap();
    assert_eq!(store.values("A", "m", 401), [2000.0; 3]);
}

//! Arguments of `galerna publish`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Args)]
pub(crate) struct PublishArgs {
    /// Readings in NDJSON or JSON, or a meter's export as table, JSON or Green Button XML, each also gzipped; `-` for standard
    /// input
    pub(crate) file: PathBuf,
    /// Form of the file [default: by its name]
    #[arg(long, value_enum)]
    pub(crate) form: Option<FileForm>,
    /// Account of the readings, where the file names none
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// Source of the readings [default: the account's name]
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Which column of an export is what: a name (octopus, datadis, ...) or a TOML file [default: by the header]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) mapping: Option<String>,
    /// Meter, where the export names none
    #[arg(long, value_name = "ID")]
    pub(crate) meter: Option<String>,
    /// Zone of the export's times that have no offset, such as Europe/Madrid
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// Unit of the export's values, where it names none, such as kWh
    #[arg(long)]
    pub(crate) unit: Option<String>,
    /// Utility of the export, where it names none: electricity, gas, water, heat, fuel, solar
    #[arg(long)]
    pub(crate) utility: Option<String>,
    /// Length of the export's intervals, such as 30m, where neither a column nor the times tell
    #[arg(long, value_name = "TIME")]
    pub(crate) interval: Option<String>,
    /// Encoding of the export, such as windows-1252 [default: by its bytes]
    #[arg(long)]
    pub(crate) encoding: Option<String>,
    /// What separates the export's columns [default: by the header]
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<char>,
    /// What stands before decimals, `.` or `,` [default: by the values]
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) decimal: Option<char>,
    /// In which order the export's dates have day, month and year: dmy, mdy or ymd [default: by the dates]
    #[arg(long, value_name = "ORDER")]
    pub(crate) date_order: Option<String>,
    /// Show the first readings as they would be stored, and publish nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Publish plain JSON messages instead of envelopes
    #[arg(long)]
    pub(crate) plain_json: bool,
    /// Print what was published as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileForm {
    /// One reading, or one `{"source_key","body"}`, a line
    Ndjson,
    /// One reading or an array
    Json,
    /// A meter's export as separated values
    Csv,
    /// A meter's export as Green Button XML
    Xml,
}

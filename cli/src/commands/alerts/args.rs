//! Arguments of the commands about alerts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::{Reason, Sure};
use crate::form::{Form, duration};

/// The commands about alerts; all of them talk to the page (`page.url`).
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AlertingCommand {
    /// See, save, delete and test-fire alert rules
    Rules(KeptArgs),
    /// See, save, delete and test-fire endpoints: who is told of alerts
    Endpoints(KeptArgs),
    /// See, make and end silences: alerts that nobody is told of for a while
    Silences(SilencesArgs),
    /// See what endpoints were told, and tell them again
    Deliveries(DeliveriesArgs),
    /// See what fires, and what has
    Alerts(AlertsArgs),
    /// See what operators did
    Audit(AuditArgs),
}

impl AlertingCommand {
    /// How it prints.
    pub(crate) fn form(&self) -> &Form {
        match self {
            Self::Rules(args) | Self::Endpoints(args) => &args.form,
            Self::Silences(args) => &args.form,
            Self::Deliveries(args) => &args.form,
            Self::Alerts(args) => &args.form,
            Self::Audit(args) => &args.form,
        }
    }

    /// Whether it changes nothing.
    pub(crate) fn reads(&self) -> bool {
        match self {
            Self::Rules(args) | Self::Endpoints(args) => {
                matches!(args.command, KeptCommand::List | KeptCommand::Show { .. })
            }
            Self::Silences(args) => matches!(args.command, SilencesCommand::List),
            Self::Deliveries(args) => !matches!(args.command, DeliveriesCommand::Resend { .. }),
            Self::Alerts(args) => matches!(args.command, AlertsCommand::List { .. }),
            Self::Audit(_) => true,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct KeptArgs {
    #[command(flatten)]
    pub(super) form: Form,
    #[command(subcommand)]
    pub(super) command: KeptCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum KeptCommand {
    /// List them
    List,
    /// Show one; with --json in the form that `save` takes
    Show {
        /// Its id
        id: String,
    },
    /// Make or replace those in a file
    ///
    /// Rules are evaluated by the readings' times. A hole in the data counts as time breached for `for_ms` when the readings on both
    /// sides of it are breached. A reading that comes later than others of its device by more than `ingest.alert_lateness` is stored and
    /// not evaluated. What a rule names and is not there (an endpoint, a parameter) is told as a warning.
    Save {
        /// JSON: one, or a list of them; `-` for standard input. A secret that reads `***` stays as it is
        file: PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// Delete one
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
    /// Send a test alert
    Test {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SilencesArgs {
    #[command(flatten)]
    pub(super) form: Form,
    #[command(subcommand)]
    pub(super) command: SilencesCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum SilencesCommand {
    /// List them, those that have ended too
    List,
    /// Make one; what is not named matches all
    #[command(group = clap::ArgGroup::new("end").required(true).args(["until", "lasting", "minutes"]))]
    Create {
        /// Only alerts of this account
        #[arg(long)]
        account: Option<String>,
        /// Only of devices that match this pattern, for instance `Panther_*`
        #[arg(long)]
        device: Option<String>,
        /// Only of the rule with this id
        #[arg(long)]
        rule: Option<String>,
        /// When it ends, for instance 2030-01-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// How long it lasts, for instance 90m or 3h
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasting: Option<Duration>,
        /// How long it lasts, in minutes
        #[arg(long, value_name = "N")]
        minutes: Option<f64>,
        /// Why, for whoever misses the alerts
        #[arg(long)]
        reason: String,
    },
    /// End one
    End {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DeliveriesArgs {
    #[command(flatten)]
    pub(super) form: Form,
    #[command(subcommand)]
    pub(super) command: DeliveriesCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum DeliveriesCommand {
    /// List them, newest first
    List {
        /// Only those that stand so
        #[arg(long, value_enum)]
        status: Option<Status>,
        /// Only to this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// Only of alerts of this account
        #[arg(long)]
        account: Option<String>,
        /// Only with this text in an id, a rule, a source, a device or a message
        #[arg(long)]
        search: Option<String>,
        #[command(flatten)]
        cut: Cut,
    },
    /// Show one with its attempts
    Show {
        /// Its id
        id: String,
    },
    /// Send one again
    Resend {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Status {
    /// To be sent, or to be tried again
    Pending,
    /// Sent, and taken
    Delivered,
    /// Given up
    Dead,
    /// Not to be sent: silenced, in cooldown, or the endpoint is disabled
    Suppressed,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Suppressed => "suppressed",
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(super) struct Cut {
    /// Which page, from 1
    #[arg(long, default_value_t = 1)]
    pub(super) page: usize,
    /// How many a page, up to 500
    #[arg(long, default_value_t = 50)]
    pub(super) limit: usize,
    /// All pages
    #[arg(long, conflicts_with_all = ["page", "limit"])]
    pub(super) all: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    pub(super) form: Form,
    #[command(subcommand)]
    pub(super) command: AlertsCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum AlertsCommand {
    /// List what was raised and resolved, newest first
    List {
        /// List what fires now
        #[arg(long)]
        firing: bool,
        /// Only of this account
        #[arg(long)]
        account: Option<String>,
        #[command(flatten)]
        cut: Cut,
    },
    /// Close one that fires: it is resolved with the reason, and fires again only after its condition has cleared
    Close {
        /// The rule's id
        #[arg(long)]
        rule: String,
        /// The device's source
        #[arg(long)]
        source: String,
        /// The device
        #[arg(long)]
        device: String,
        /// Why, for whoever was told of it and for the audit log
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(super) form: Form,
    #[command(subcommand)]
    pub(super) command: AuditCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum AuditCommand {
    /// List who did what, to what and why, newest first
    List {
        /// Only with this text in who, what, target, reason or outcome
        #[arg(long)]
        search: Option<String>,
        #[command(flatten)]
        cut: Cut,
    },
}

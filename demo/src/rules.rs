//! Alert rules that the extract's real troubles set off.

use galerna_model::{Comparison, Condition, ParameterCode, Rule, Severity};

const HOUR: u64 = 3_600_000;
const ACTIVE_POWER: ParameterCode = ParameterCode(401);

/// The demo's rules. They go by the devices' names, so that they hold for accounts that replay the same meters too.
pub(crate) fn rules() -> Vec<Rule> {
    let rule = |id: &str, name: &str, devices: &str, severity, condition| Rule {
        id: format!("demo-{id}"),
        name: name.to_owned(),
        account: None,
        devices: devices.to_owned(),
        condition,
        severity,
        endpoints: vec![super::webhook::ENDPOINT.to_owned()],
        cooldown_ms: 0,
        enabled: true,
    };
    let silent = Condition::Silent { after_ms: 3 * HOUR };
    vec![
        // All 85 meters of the site stop for 4 to 5 hours on 14 February.
        rule(
            "panther-silent",
            "Panther meter silent for 3 h",
            "Panther_*",
            Severity::Critical,
            silent.clone(),
        ),
        // All 31 lose a day from 23 January.
        rule("cockatoo-silent", "Cockatoo meter silent for 3 h", "Cockatoo_*", Severity::Critical, silent),
        // Ten times its median of 6.5 kW; it must come down to half of that to be well again.
        rule(
            "ucam-b17-peak",
            "UCam b17 takes ten times its usual power",
            "UCam_b17.elec",
            Severity::Warning,
            Condition::Threshold {
                parameter: ACTIVE_POWER,
                comparison: Comparison::Above,
                limit: 65_000.0,
                clear: Some(32_500.0),
                for_ms: HOUR,
            },
        ),
        // Falls to zero on 26 January and stays there.
        rule(
            "shrew-dead",
            "Shrew meter reads nothing for a day",
            "Shrew_*",
            Severity::Info,
            Condition::Threshold {
                parameter: ACTIVE_POWER,
                comparison: Comparison::Below,
                limit: 1.0,
                clear: None,
                for_ms: 24 * HOUR,
            },
        ),
    ]
}

//! Rules made ready: checked once, their device patterns compiled once.

use std::sync::Arc;

use galerna_model::first_invisible_but_spaces;
use galerna_model::{AccountId, Comparison, Condition, ParameterCode, ParameterRegistry, Rule};
use galerna_storage::Endpoint;
use globset::{Glob, GlobMatcher};

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("alert rule `{rule}`: {problem}")]
pub struct RuleError {
    /// Its id.
    pub rule: String,
    /// What is wrong, naming the field and what to write.
    pub problem: String,
}

/// What keeps a rule, which is right as such, from doing what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleWarning {
    /// It names an endpoint that there is not.
    #[error("there is no endpoint `{0}`: nobody is told there until there is one")]
    UnknownEndpoint(String),
    /// It names an endpoint that only gets the alerts of another account.
    #[error("endpoint `{0}` belongs to another account: it is not told of this rule's alerts")]
    ForeignEndpoint(String),
    /// It watches a parameter that is in no registry.
    #[error(
        "there is no parameter {0}: readings with it are refused, and the rule cannot fire; `ingest.parameters` adds parameters"
    )]
    UnknownParameter(ParameterCode),
}

impl RuleWarning {
    /// Finds what a rule names and is not there.
    pub fn of(rule: &Rule, parameters: &ParameterRegistry, endpoints: &[Endpoint]) -> Vec<Self> {
        let mut warnings = Vec::new();
        if let Condition::Threshold { parameter, .. } = rule.condition
            && parameters.get(parameter).is_none()
        {
            warnings.push(Self::UnknownParameter(parameter));
        }
        for id in &rule.endpoints {
            match endpoints.iter().find(|endpoint| endpoint.id == *id) {
                None => warnings.push(Self::UnknownEndpoint(id.clone())),
                Some(endpoint) => {
                    if let (Some(only), Some(account)) = (&endpoint.account, &rule.account)
                        && only != account
                    {
                        warnings.push(Self::ForeignEndpoint(id.clone()));
                    }
                }
            }
        }
        warnings
    }
}

/// A rule in force.
#[derive(Debug)]
pub struct CompiledRule {
    rule: Rule,
    devices: Pattern,
}

#[derive(Debug)]
enum Pattern {
    All,
    Glob(GlobMatcher),
}

impl CompiledRule {
    /// Checks a rule and compiles its pattern.
    ///
    /// # Errors
    /// [`RuleError`] names the field.
    pub fn new(rule: Rule) -> Result<Self, RuleError> {
        let fail = |problem: String| Err(RuleError { rule: rule.id.clone(), problem });
        if rule.id.is_empty() {
            return fail("id is empty".to_owned());
        }
        if rule.id == "." || rule.id == ".." {
            return fail("id means a folder; write a name".to_owned());
        }
        if let Some(c) = first_invisible_but_spaces(&rule.id) {
            return fail(format!("id holds U+{:04X}, which nobody sees; leave it out", u32::from(c)));
        }
        match &rule.condition {
            Condition::Threshold { comparison, limit, clear, .. } => {
                if !limit.is_finite() {
                    return fail(format!("limit is {limit}; write a number"));
                }
                let clear = clear.unwrap_or(*limit);
                let (wrong, side) = match comparison {
                    Comparison::Above => (clear > *limit, "at most"),
                    Comparison::Below => (clear < *limit, "at least"),
                };
                // Also true of NaN, which is on no side.
                if wrong || clear.is_nan() {
                    return fail(format!("clear is {clear}; it must be {side} the limit {limit}"));
                }
            }
            Condition::Silent { after_ms: 0 } => {
                return fail("after_ms is 0; a device is always silent between two readings".to_owned());
            }
            Condition::Silent { .. } => {}
        }
        let devices = match rule.devices.as_str() {
            "*" | "**" => Pattern::All,
            pattern => match Glob::new(pattern) {
                Ok(glob) => Pattern::Glob(glob.compile_matcher()),
                Err(error) => return fail(format!("devices `{pattern}` is no pattern: {}", error.kind())),
            },
        };
        Ok(Self { rule, devices })
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether it watches some device of this account.
    pub fn watches_account(&self, account: &AccountId) -> bool {
        self.rule.account.as_ref().is_none_or(|only| only == account)
    }

    /// Whether it watches this device.
    pub fn watches(&self, account: &AccountId, device: &str) -> bool {
        self.watches_account(account)
            && match &self.devices {
                Pattern::All => true,
                Pattern::Glob(glob) => glob.is_match(device),
            }
    }

    /// Whether it watches for silence.
    pub fn is_silence(&self) -> bool {
        matches!(self.rule.condition, Condition::Silent { .. })
    }
}

/// The rules in force.
#[derive(Debug, Default, Clone)]
pub struct RuleSet {
    rules: Vec<Arc<CompiledRule>>,
}

impl RuleSet {
    /// The enabled ones of these rules, and what is wrong with those that cannot be used.
    pub fn compile(rules: Vec<Rule>) -> (Self, Vec<RuleError>) {
        let mut set = Self::default();
        let mut errors = Vec::new();
        for rule in rules.into_iter().filter(|rule| rule.enabled) {
            match CompiledRule::new(rule) {
                Ok(rule) => set.rules.push(Arc::new(rule)),
                Err(error) => errors.push(error),
            }
        }
        (set, errors)
    }

    /// Whether any rule watches this account.
    pub fn watch_account(&self, account: &AccountId) -> bool {
        self.rules.iter().any(|rule| rule.watches_account(account))
    }

    /// Whether any rule watches for silence.
    pub fn watch_silence(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_silence())
    }

    /// The rules that watch a device.
    pub fn of_device(&self, account: &AccountId, device: &str) -> impl Iterator<Item = &Arc<CompiledRule>> {
        self.rules.iter().filter(move |rule| rule.watches(account, device))
    }

    /// Whether both hold the same rules in the same order.
    pub fn same_as(&self, other: &Self) -> bool {
        self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(|(a, b)| a.rule == b.rule)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use galerna_model::ParameterCode;
    use galerna_model::Severity;

    use super::*;

    pub(crate) fn rule(id: &str, devices: &str, condition: Condition) -> Rule {
        Rule {
            id: id.to_owned(),
            name: id.to_owned(),
            account: None,
            devices: devices.to_owned(),
            condition,
            severity: Severity::Warning,
            endpoints: Vec::new(),
            cooldown_ms: 0,
            enabled: true,
        }
    }

    pub(crate) fn threshold(
        comparison: Comparison,
        limit: f64,
        clear: Option<f64>,
        for_ms: u64,
    ) -> Condition {
        Condition::Threshold { parameter: ParameterCode(401), comparison, limit, clear, for_ms }
    }

    #[test]
    fn a_rule_that_cannot_be_used_says_why() {
        use Comparison::{Above, Below};
        let cases = [
            ("*", threshold(Above, f64::NAN, None, 0), "limit is NaN"),
            ("*", threshold(Above, 5.0, Some(6.0), 0), "clear is 6; it must be at most the limit 5"),
            ("*", threshold(Below, 5.0, Some(4.0), 0), "clear is 4; it must be at least the limit 5"),
            ("*", threshold(Below, 5.0, Some(f64::NAN), 0), "clear is NaN"),
            ("*", Condition::Silent { after_ms: 0 }, "after_ms is 0"),
            ("a[", threshold(Above, 5.0, None, 0), "devices `a[` is no pattern"),
        ];
        for (devices, condition, expected) in cases {
            let (set, errors) = RuleSet::compile(vec![rule("r", devices, condition)]);
            assert!(!set.watch_account(&"a".parse().unwrap()));
            assert!(errors[0].to_string().starts_with("alert rule `r`: "), "{}", errors[0]);
            assert!(errors[0].to_string().contains(expected), "{} does not say {expected}", errors[0]);
        }
        let silent = Condition::Silent { after_ms: 1 };
        for (id, expected) in
            [("", "id is empty"), ("..", "id means a folder"), ("a\u{200b}", "id holds U+200B")]
        {
            let error = CompiledRule::new(rule(id, "*", silent.clone())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
    }

    #[test]
    fn a_rule_watches_the_devices_of_its_pattern_and_account() {
        let silent = Condition::Silent { after_ms: 1 };
        let of_account = Rule { account: Some("A".parse().unwrap()), ..rule("account", "*", silent.clone()) };
        let off = Rule { enabled: false, ..rule("off", "*", silent.clone()) };
        let (set, errors) = RuleSet::compile(vec![rule("glob", "Panther_*.elec", silent), of_account, off]);
        assert!(errors.is_empty());
        let watching = |account: &str, device: &str| {
            let account = account.parse().unwrap();
            set.of_device(&account, device).map(|r| r.rule().id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(watching("A", "Panther_office_Hannah.elec"), ["glob", "account"]);
        assert_eq!(watching("B", "Panther_office_Hannah.elec"), ["glob"]);
        assert_eq!(watching("B", "Panther_office_Hannah.gas"), Vec::<String>::new());
        assert_eq!(watching("A", "x/y"), ["account"]);
    }
}

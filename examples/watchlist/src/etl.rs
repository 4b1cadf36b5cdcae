//! From posts to targets, and from targets to alerts.

use std::collections::BTreeMap;

use galerna_model::Timestamp;

use crate::config::Rule;
use crate::keywords::Keywords;
use crate::store::{Alert, Mapped, Store, StoreError, Target, day_of};

/// Versions that are counted in one transaction.
const AT_ONCE: u32 = 500;
const DAY_MS: i64 = 86_400_000;

/// Counts the keywords of all versions that are new. How many there were.
pub(crate) async fn count_new(store: &dyn Store, keywords: &Keywords) -> Result<u64, StoreError> {
    let mut counted = 0;
    loop {
        let versions = store.unmapped(AT_ONCE).await?;
        if versions.is_empty() {
            return Ok(counted);
        }
        counted += versions.len() as u64;
        let mapped =
            versions.into_iter().map(|version| Mapped { counts: keywords.count(&version.text), version });
        store.map(mapped.collect()).await?;
    }
}

/// What a group of words had in the seven days that end with a day, and in the seven before.
///
/// `counts` are those of the days, by `2026-05-01`.
pub fn week_change(counts: &BTreeMap<String, u64>, day: &str) -> Option<(u64, u64)> {
    let end = Timestamp::parse(&format!("{day}T00:00:00Z")).ok()?;
    let week = |before: i64| -> u64 {
        (0..7).filter_map(|days| counts.get(&day_of(end.plus_millis(-(before + days) * DAY_MS)))).sum()
    };
    Some((week(0), week(7)))
}

/// The alerts that the rules ask for, of the days from `from` on. Those of a week's change are for the `daily` run, when a day is whole.
pub(crate) fn alerts(rules: &[Rule], targets: &[Target], from: &str, daily: bool) -> Vec<Alert> {
    let mut series: BTreeMap<(&str, &str), BTreeMap<String, u64>> = BTreeMap::new();
    for target in targets {
        let of = series.entry((&target.keyword, &target.group)).or_default();
        of.insert(target.day.clone(), target.count);
    }
    let mut alerts = Vec::new();
    for rule in rules {
        for ((keyword, group), counts) in &series {
            if *keyword != rule.keyword || rule.group.as_deref().is_some_and(|only| only != *group) {
                continue;
            }
            for (day, count) in counts.range(from.to_owned()..) {
                let text = match rule.grown {
                    None if *count >= rule.at_least => {
                        format!("{keyword}: {count} in the posts of {group} on {day}")
                    }
                    Some(grown) if daily => match week_change(counts, day) {
                        Some((week, before))
                            if week >= rule.at_least && week as f64 >= grown * before as f64 =>
                        {
                            format!(
                                "{keyword}: {week} in the posts of {group} in the week up to {day}, {before} in the week before"
                            )
                        }
                        _ => continue,
                    },
                    _ => continue,
                };
                let id = format!("{}/{group}/{day}", rule.name);
                let (rule, group) = (rule.name.clone(), (*group).to_owned());
                alerts.push(Alert { id, rule, group, day: day.clone(), text });
            }
        }
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(group: &str, day: &str, count: u64) -> Target {
        Target { keyword: "security".to_owned(), group: group.to_owned(), day: day.to_owned(), count }
    }

    fn rule(grown: Option<f64>, at_least: u64, group: Option<&str>) -> Rule {
        Rule {
            name: "r".to_owned(),
            keyword: "security".to_owned(),
            group: group.map(str::to_owned),
            at_least,
            grown,
        }
    }

    #[test]
    fn a_week_is_the_seven_days_up_to_a_day_over_the_ends_of_months() {
        let counts: BTreeMap<String, u64> =
            [("2026-02-22", 5), ("2026-02-23", 1), ("2026-03-01", 2), ("2026-03-02", 4)]
                .map(|(day, count)| (day.to_owned(), count))
                .into();
        assert_eq!(week_change(&counts, "2026-03-01"), Some((3, 5)));
        assert_eq!(week_change(&counts, "2026-03-02"), Some((6, 6)));
        assert_eq!(week_change(&counts, "2026-04-01"), Some((0, 0)));
        assert_eq!(week_change(&counts, "nonsense"), None);
    }

    #[test]
    fn rules_ask_for_alerts_by_count_and_by_growth() {
        let targets =
            [target("a", "2026-03-01", 1), target("a", "2026-03-08", 3), target("b", "2026-03-08", 2)];
        for (rule, from, daily, ids) in [
            (rule(None, 2, None), "", false, &["r/a/2026-03-08", "r/b/2026-03-08"][..]),
            (rule(None, 2, Some("b")), "", false, &["r/b/2026-03-08"]),
            (rule(None, 1, Some("a")), "2026-03-02", false, &["r/a/2026-03-08"]),
            (rule(Some(3.0), 3, None), "", true, &["r/a/2026-03-08"]),
            (rule(Some(3.1), 3, None), "", true, &[]),
            (rule(Some(3.0), 3, None), "", false, &[]),
        ] {
            let found: Vec<String> = alerts(std::slice::from_ref(&rule), &targets, from, daily)
                .into_iter()
                .map(|a| a.id)
                .collect();
            assert_eq!(found, ids, "{rule:?}");
        }
    }
}

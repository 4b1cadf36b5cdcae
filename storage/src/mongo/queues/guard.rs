//! How a swap is guarded.
//!
//! An update that looks for an id alone goes straight to its document. One that looks for `{_id, version}` is planned
//! first, which costs the server more than a third of all the rest. So the guard stands in the update itself. Beside
//! `version` a document has `even` and `odd`: the one that `version` is holds it too, the other holds the largest number
//! there is. A swap from an even version `v` sets `odd` to `v + 1` and adds to `even` as much as makes `v` the largest
//! number; from an odd version, the other way round. If the queue is past version `v`, both hold more than `v`, so that sum
//! would be larger than the largest number, and the server refuses the update. A queue is never before `v`: versions only
//! grow, and who swaps from `v` has read it or written it. (After a store was set back, from a backup or by the crash of a
//! standalone server, a dispatcher that knew what is gone may write over what is there; nothing is leased twice by that.)

use serde::Serialize;

use super::RecordFields;
use crate::Swap;
use crate::mongo::documents::int;

/// Which swaps a document lets through: the fields `even` and `odd`.
pub(super) struct VersionGuard {
    pub(super) even: i64,
    pub(super) odd: i64,
}

impl VersionGuard {
    /// Lets none through.
    pub(super) const CLOSED: Self = Self { even: i64::MAX, odd: i64::MAX };

    /// Lets those from this version through.
    pub(super) const fn of(version: i64) -> Self {
        if version % 2 == 0 {
            Self { even: version, odd: i64::MAX }
        } else {
            Self { even: i64::MAX, odd: version }
        }
    }
}

/// The update operators of a swap.
#[derive(Serialize)]
pub(super) struct SwapOperators {
    #[serde(rename = "$set")]
    set: SwapFields,
    #[serde(rename = "$inc")]
    guard: GuardIncrement,
    #[serde(rename = "$currentDate")]
    stamp: Stamp,
}

#[derive(Serialize)]
struct SwapFields {
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    even: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    odd: Option<i64>,
    record: RecordFields,
}

/// Makes the guard of one version the largest number, or more than that if it is past already.
#[derive(Serialize)]
enum GuardIncrement {
    #[serde(rename = "even")]
    Even(i64),
    #[serde(rename = "odd")]
    Odd(i64),
}

impl From<&Swap> for SwapOperators {
    fn from(swap: &Swap) -> Self {
        let (from, to) = (int(swap.expected), int(swap.record.version));
        let (even, odd, guard) = if from % 2 == 0 {
            (None, Some(to), GuardIncrement::Even(i64::MAX - from))
        } else {
            (Some(to), None, GuardIncrement::Odd(i64::MAX - from))
        };
        Self {
            set: SwapFields { version: to, even, odd, record: (&swap.record).into() },
            guard,
            stamp: STAMP,
        }
    }
}

#[derive(Serialize)]
struct Stamp {
    modified: StampType,
}

#[derive(Serialize)]
struct StampType {
    #[serde(rename = "$type")]
    kind: &'static str,
}

const STAMP: Stamp = Stamp { modified: StampType { kind: "timestamp" } };

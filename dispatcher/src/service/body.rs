//! Bodies of requests and answers.

use std::fmt;

use galerna_model::QueueName;
use serde::de::{self, MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use galerna_lease::StrategyName;
use galerna_lease::{GrantedLease, Release};

/// The name of a queue, as the document has it.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 200, pattern = "^(?!\\.{1,2}$)[^\\s/\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ue000-\\uf8ff\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\uffff\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}\u{f0000}-\u{10ffff}]+$")]
#[allow(dead_code)] // only its schema is used
pub(crate) struct QueueNameText(String);

/// Asks for leases.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NextBody {
    /// Who asks; shown to operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1_000)]
    pub(crate) consumer: Option<String>,
    /// How long to wait for a queue when there is none to lease.
    #[serde(default, deserialize_with = "whole")]
    #[schema(maximum = 9_007_199_254_740_991_i64)]
    pub(crate) wait_ms: u64,
    /// At most so many leases, 1 to 1,000.
    #[serde(default = "one", deserialize_with = "whole_count")]
    #[schema(minimum = 1, maximum = 1_000)]
    pub(crate) count: usize,
    /// A lease to give back first, or a list of them.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<OneOrManyReleases>)]
    pub(crate) release: Vec<Release>,
    /// What the caller knows this request by, unique among its requests: asked again with it after an answer that never
    /// came, it is given the leases that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1_000)]
    pub(crate) request_id: Option<String>,
    /// Whether this request was made before, with the same `request_id`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) retry: bool,
}

/// One release, or a list of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[allow(dead_code)] // only its schema is used
pub(crate) enum OneOrManyReleases {
    /// One.
    One(ReleaseOf),
    /// Several.
    Many(Vec<ReleaseOf>),
}

/// A release within `next`.
#[derive(ToSchema)]
#[allow(dead_code)] // only its schema is used
pub(crate) struct ReleaseOf {
    /// The queue.
    queue: QueueNameText,
    /// Epoch of the lease.
    #[schema(maximum = 9_007_199_254_740_991_i64)]
    epoch: u64,
    /// Whether it was found without messages.
    #[serde(default)]
    empty: bool,
}

fn one() -> usize {
    1
}

/// The largest number that every reader of JSON has exactly.
const MAX_EXACT: f64 = 9_007_199_254_740_991.0;

/// A number from 0, which JSON may also write with a fraction of zero.
fn whole<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    struct Whole;
    impl Visitor<'_> for Whole {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number from 0")
        }
        fn visit_u64<E>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is whole and in range
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
            if number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number) {
                Ok(number as u64)
            } else {
                Err(E::invalid_value(de::Unexpected::Float(number), &self))
            }
        }
    }
    d.deserialize_any(Whole)
}

fn whole_count<'de, D: Deserializer<'de>>(d: D) -> Result<usize, D::Error> {
    // More than any count may be is refused where counts are.
    whole(d).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

#[derive(Deserialize)]
struct ReleaseFields {
    queue: QueueName,
    #[serde(deserialize_with = "whole")]
    epoch: u64,
    #[serde(default)]
    empty: bool,
}

impl ReleaseFields {
    fn read<'de, A: MapAccess<'de>>(map: A) -> Result<Release, A::Error> {
        let Self { queue, epoch, empty } = Self::deserialize(value::MapAccessDeserializer::new(map))?;
        Ok(Release { queue, epoch, empty })
    }
}

/// A release that is an object: serde would take an array for it as well, field by field.
struct Object(Release);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a release {\"queue\", \"epoch\", \"empty\"}")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object, A::Error> {
                ReleaseFields::read(map).map(Object)
            }
        }
        d.deserialize_map(Fields)
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Release>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Vec<Release>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a release {\"queue\", \"epoch\", \"empty\"} or a list of them")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            ReleaseFields::read(map).map(|release| vec![release])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut releases = Vec::new();
            while let Some(Object(release)) = seq.next_element()? {
                releases.push(release);
            }
            Ok(releases)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
    }
    d.deserialize_any(Either)
}

/// Leases granted, when more than one was asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct LeasesBody {
    /// The leases.
    #[schema(value_type = Vec<LeaseBody>)]
    pub(crate) leases: Vec<GrantedLease>,
}

/// A lease granted.
#[derive(ToSchema)]
#[allow(dead_code)] // only its schema is used
pub(crate) struct LeaseBody {
    /// The queue.
    queue: String,
    /// Epoch: renew and release with it.
    epoch: u64,
    /// How long it lasts, counted from before the request.
    expires_in_ms: u64,
    /// The strategy that chose it.
    strategy: String,
}

/// Gives a lease back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseBody {
    /// Epoch of the lease.
    #[serde(deserialize_with = "whole")]
    pub(crate) epoch: u64,
    /// Whether the queue was found without messages.
    #[serde(default)]
    pub(crate) empty: bool,
}

/// Extends a lease.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewBody {
    /// Epoch of the lease.
    #[serde(deserialize_with = "whole")]
    pub(crate) epoch: u64,
}

/// A lease extended.
#[derive(ToSchema)]
#[allow(dead_code)] // only its schema is used
pub(crate) struct RenewedBody {
    /// How long it lasts, counted from before the request.
    expires_in_ms: u64,
    /// The queue was paused or is to be deleted: stop consuming and release.
    revoked: bool,
}

/// Why an operator does something.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseBody {
    /// Why, at most 1,000 characters. That of a pause is shown with the queue; the others are for whoever keeps a log of such calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1_000)]
    pub(crate) reason: Option<String>,
}

/// Names a strategy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StrategyBody {
    /// The strategy.
    pub(crate) strategy: StrategyName,
    /// Why: for whoever keeps a log of such calls; the dispatcher itself does not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1_000)]
    pub(crate) reason: Option<String>,
}

/// Says that messages reached queues.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HintBody {
    /// The queues.
    #[schema(value_type = Vec<QueueNameText>)]
    pub(crate) queues: Vec<QueueName>,
}

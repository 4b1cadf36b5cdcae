//! Numbers that look random and depend on nothing but what they are asked for, so that Java makes the same.

/// SplitMix64's step (Steele, Lea and Flood, 2014): one number well mixed.
pub const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The `field`-th number of event `n`, below `bound`. There are at most 64 fields.
pub const fn below(n: u64, field: u64, bound: u64) -> u64 {
    // Java has no unsigned division: the sign bit is left out.
    (mix(n.wrapping_mul(64).wrapping_add(field)) >> 1) % bound
}

/// A number for a text of ASCII: Java's `String.hashCode`.
pub fn text_hash(text: &str) -> u64 {
    let hash = text.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)));
    i64::from(hash) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Java side has these numbers too (`benches/peers/flink`, class `Numbers`).
    #[test]
    fn the_numbers_are_those_of_the_definition() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf, "the first of SplitMix64 with seed 0");
        assert_eq!(text_hash("s_10"), 3_518_827, "of `String.hashCode`");
        assert_eq!(text_hash("polygenelubricants"), i64::from(i32::MIN) as u64, "of `String.hashCode`");
        assert!((0..1_000).all(|n| below(n, 3, 7) < 7));
    }
}

//! Tokens of sources, known only by their hash.
//!
//! A token is a random secret that the platform makes, at least 128 bits of it, and not a password that somebody chose: there
//! is nothing to guess from a dictionary, so a single SHA-256 protects it as well as a slow hash would, and
//! costs the frontend under a microsecond a call. Should tokens ever be chosen by people, this must become a slow hash.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 of a token. As text it is `sha256:` and 64 hexadecimal digits; the digits alone are taken too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// Text that is no hash of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token hash is not `sha256:` followed by 64 hexadecimal digits")]
pub struct TokenHashError;

impl TokenHash {
    /// Of nothing that anybody can send: what a token is compared with when its source is not known.
    pub const NOBODY: Self = Self([0; 32]);

    /// The hash of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads a hash as the list of sources carries it.
    ///
    /// # Errors
    /// [`TokenHashError`], which does not repeat the text: a wrong field may hold the token itself.
    pub fn parse(text: &str) -> Result<Self, TokenHashError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return Err(TokenHashError);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(hash))
    }

    /// Whether this is the hash of `token`. The time it takes depends on the token's length only.
    pub fn matches(&self, token: &str) -> bool {
        self.0.ct_eq(&Self::of(token).0).into()
    }
}

fn nibble(digit: u8) -> Result<u8, TokenHashError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(TokenHashError),
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_own_token_alone() {
        // The hash of `abc` is the first example of FIPS 180-2.
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = TokenHash::parse(text).unwrap();
        assert_eq!(hash, TokenHash::of("abc"));
        assert_eq!(hash.to_string(), text);
        assert_eq!(TokenHash::parse(&text[7..].to_uppercase()).unwrap(), hash);
        assert!(hash.matches("abc"));
        for other in ["", "ab", "abcd", "ABC", "abc "] {
            assert!(!hash.matches(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_repeated() {
        for text in ["", "hunter2", "sha256:", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            let error = TokenHash::parse(text).unwrap_err();
            assert!(!error.to_string().contains("hunter2"));
        }
        assert!(!format!("{:?}", TokenHash::of("abc")).contains("ba78"));
    }
}

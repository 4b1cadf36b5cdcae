//! Standard Webhooks signatures: <https://www.standardwebhooks.com>, version `v1` (HMAC-SHA256).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Begins a written key.
const PREFIX: &str = "whsec_";

/// The key that `whsec_…` stands for.
pub(crate) fn key(secret: &str) -> Result<Vec<u8>, String> {
    let encoded = secret.strip_prefix(PREFIX).ok_or("does not begin with `whsec_`")?;
    let key = STANDARD.decode(encoded).map_err(|_| "is not `whsec_` and base64")?;
    // The bounds of the specification.
    if (24..=64).contains(&key.len()) {
        Ok(key)
    } else {
        Err(format!("holds {} bytes; between 24 and 64 are right", key.len()))
    }
}

/// The value of `webhook-signature`.
pub(crate) fn sign(key: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Whether a receiver may believe a call: `id`, `timestamp` and `signatures` are the headers `webhook-id`, `webhook-timestamp` and
/// `webhook-signature`. The receiver itself must refuse timestamps that are too far from its clock, and ids that it has had.
pub fn verify(secret: &str, id: &str, timestamp: &str, signatures: &str, body: &[u8]) -> bool {
    let Ok(mut mac) =
        key(secret).and_then(|key| Hmac::<Sha256>::new_from_slice(&key).map_err(|e| e.to_string()))
    else {
        return false;
    };
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    // Several may stand there, with blanks between them, while keys are exchanged. The comparison takes the same time always.
    let decoded = signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
    decoded.into_iter().any(|one| mac.clone().verify_slice(&one).is_ok())
}

/// A new key, to be given to the receiver: `whsec_` and 32 random bytes in base64.
///
/// # Errors
/// When the system gives no random bytes.
pub fn new_secret() -> std::io::Result<String> {
    use std::io::Read;
    let mut key = [0_u8; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(format!("{PREFIX}{}", STANDARD.encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        // From the test vectors of the reference libraries.
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_signed_is_verified_and_what_was_changed_is_not() {
        let secret = new_secret().unwrap();
        let signature = sign(&key(&secret).unwrap(), "d1", 1_700_000_000, b"body");
        let at = "1700000000";
        assert!(verify(&secret, "d1", at, &signature, b"body"));
        assert!(verify(&secret, "d1", at, &format!("v1,AAAA {signature}"), b"body"));
        for (id, at, signature, body) in [
            ("d2", at, signature.as_str(), &b"body"[..]),
            ("d1", "1700000001", &signature, b"body"),
            ("d1", at, &signature, b"Body"),
            ("d1", at, "", b"body"),
            ("d1", at, "v1,AAAA", b"body"),
        ] {
            assert!(!verify(&secret, id, at, signature, body));
        }
        assert!(!verify(&new_secret().unwrap(), "d1", at, &signature, b"body"));
    }

    #[test]
    fn keys_of_other_forms_are_refused() {
        for wrong in ["", "secret", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ="] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
        assert!(key(&new_secret().unwrap()).is_ok());
        assert_ne!(new_secret().unwrap(), new_secret().unwrap());
    }
}

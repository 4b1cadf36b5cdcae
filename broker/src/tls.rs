//! The one TLS provider of the process.

/// Makes `ring` the process's TLS provider. Idempotent; call it before a TLS or HTTP client is built.
pub fn install_default_provider() {
    // An error only says that a provider is installed already, which is all that is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}

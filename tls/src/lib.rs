//! Which TLS implementation the process uses: rustls with `ring`, which needs no C library to be built.
//!
//! HTTP clients, the AMQP client and the mailer are built without one of their own, so whoever builds one calls this before:
//!
//! ```
//! galerna_tls::install_default_provider();
//! galerna_tls::install_default_provider(); // as often as it likes
//! assert!(rustls::crypto::CryptoProvider::get_default().is_some());
//! ```
//!
//! The crate must not depend on any other of the workspace.

/// Makes `ring` the process's TLS provider, unless there is one already. Call it before a TLS or HTTP client is built.
pub fn install_default_provider() {
    // An error only says that a provider is installed already, which is all that is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}

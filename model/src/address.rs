//! Addresses of brokers, stores and services.

/// Whether there is a host in what follows the `scheme://` of an address.
///
/// ```
/// use galerna_model::names_host;
///
/// assert!(names_host("user:password@localhost:5672/vhost"));
/// assert!(!names_host("user:password@:5672"));
/// ```
pub fn names_host(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    !host.is_empty() && !host.starts_with(':')
}

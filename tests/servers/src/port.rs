//! Free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Ports that tests use: above the well-known services, below the range from which the kernel takes the ports of
/// outgoing connections.
///
/// A port out of the kernel's own range (which is what binding port 0 gives) can be taken by an outgoing connection
/// while its server is being restarted. Worse, a client that keeps retrying such a port on loopback can end up
/// connected to itself.
const RANGE: Range<u16> = 15_000..32_000;

/// A loopback port that nothing listens on at this moment.
///
/// Another process may take it before the server does; then the server fails to start and is tried again with
/// other ports.
pub(crate) fn free() -> u16 {
    for _ in 0..200 {
        let port = fastrand::u16(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port found among {RANGE:?} on 127.0.0.1; are hundreds of test servers still running?");
}

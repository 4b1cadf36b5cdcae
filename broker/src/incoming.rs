//! How a component says whose fault a failure is.

/// How a component says that a failure is not the message's fault: the reason begins with this, and then says what is
/// away. The leased-queue spout gives such a message back unharmed and uncounted, and waits a little, so that an outage of
/// the store fills no dead letters.
pub const AWAY: &str = "away: ";

/// How a component says that trying again cannot help: the reason begins with this, and the message goes to the dead letters
/// at once.
pub const PERMANENT: &str = "permanent: ";

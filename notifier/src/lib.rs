//! Tells endpoints of alerts.

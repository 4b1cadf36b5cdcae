//! Galerna.

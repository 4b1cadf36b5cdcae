//! Galerna command line.
fn main() {}

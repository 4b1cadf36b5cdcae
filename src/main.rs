//! The `galerna` command.

mod args;
mod config;

fn main() {}

//! The `galerna` command.

/// Counting words that own their text takes three tenths less CPU time on it (`engine/benches/README.md`).
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    galerna_cli::main()
}

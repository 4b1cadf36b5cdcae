//! The `galerna` command.

/// What is made in one thread and freed in another costs the system's allocator most.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    galerna_cli::main()
}

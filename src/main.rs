//! The `galerna` command.

fn main() -> std::process::ExitCode {
    galerna_cli::main()
}

//! `rate` on another allocator than the system's: `cargo run --release --example rate_mimalloc -p galerna-engine -- CASE SECONDS`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "rate.rs"]
mod rate;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    rate::main()
}

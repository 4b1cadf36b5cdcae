//! Files published into a store in memory.

mod cases;
mod order;
mod store;
mod utilities;

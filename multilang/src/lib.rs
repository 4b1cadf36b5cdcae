//! Storm's multilang protocol.
mod form;
mod frame;
mod message;
mod row;

pub use form::{Fields, FormError};
pub use frame::{Decoder, Frames, WireError};
pub use message::*;
pub use row::{Row, to_values};

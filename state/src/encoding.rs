//! Keys, values, fields and items to bytes and back: MessagePack. Keys and fields are compact (structs as arrays); values and
//! items name the fields of structs, so that fields may be added with a default and reordered without a migration.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cells::{TaskCells, check_length};
use crate::{KeyGroup, StateError};

pub(crate) fn encode_value<V: Serialize + ?Sized>(
    what: &'static str,
    value: &V,
) -> Result<Vec<u8>, StateError> {
    let bytes = rmp_serde::to_vec_named(value).map_err(|cause| StateError::encode(what, &cause))?;
    check_length(what, &bytes)?;
    Ok(bytes)
}

pub(crate) fn encode_field<F: Serialize + ?Sized>(field: &F) -> Result<Vec<u8>, StateError> {
    let bytes = rmp_serde::to_vec(field).map_err(|cause| StateError::encode("field", &cause))?;
    check_length("field", &bytes)?;
    Ok(bytes)
}

impl TaskCells {
    pub(crate) fn decode<V: DeserializeOwned>(
        &self,
        state: u16,
        group: KeyGroup,
        what: &'static str,
        bytes: &[u8],
    ) -> Result<V, StateError> {
        rmp_serde::from_slice(bytes).map_err(|cause| StateError::Decode {
            component: self.component.clone(),
            state: self.name(state),
            group,
            what,
            wanted: std::any::type_name::<V>(),
            cause: cause.to_string(),
        })
    }

    /// A cell is not of the kind that its state was declared with: the bytes of its kind were wrong.
    pub(crate) fn wrong_kind(&self, state: u16, group: KeyGroup) -> StateError {
        StateError::Corrupt {
            component: self.component.clone(),
            state: self.name(state),
            group,
            file: "memory".to_owned(),
            problem: "a key holds another kind than its state; restart the topology, which restores its last checkpoint"
                .to_owned(),
        }
    }
}

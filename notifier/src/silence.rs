//! Silences: made, and ended early.

use galerna_model::Clock;
use galerna_storage::{Delivery, DeliveryFilter, DeliveryStatus, Silence, Store};

use crate::{NotifierError, validate_silence};

/// Deliveries looked through at once.
const PAGE: usize = 500;

/// Checks a silence, then stores it.
///
/// # Errors
/// [`NotifierError::Field`] names the field that is wrong; [`NotifierError::Store`].
pub async fn put_silence(store: &Store, silence: &Silence) -> Result<(), NotifierError> {
    validate_silence(silence)?;
    Ok(store.notifications.put_silence(silence).await?)
}

/// Ends a silence now; false when there is none with this id. The alerts that it held back and that fire still are told, once.
///
/// # Errors
/// [`NotifierError::Store`].
pub async fn end_silence(store: &Store, clock: &dyn Clock, id: &str) -> Result<bool, NotifierError> {
    let outbox = &store.notifications;
    if !outbox.delete_silence(id).await? {
        return Ok(false);
    }
    // Whatever is held back is looked at anew: what something else holds back stays so.
    let pending = DeliveryFilter { status: Some(DeliveryStatus::Pending), ..DeliveryFilter::default() };
    let mut offset = 0;
    loop {
        let page = outbox.deliveries(&pending, offset, PAGE).await?.deliveries;
        for held in page.iter().filter(|delivery| delivery.held_until.is_some()) {
            // When it has changed since, a notifier is at it.
            outbox.update(&Delivery { next_try: clock.now(), ..held.clone() }).await?;
        }
        if page.len() < PAGE {
            return Ok(true);
        }
        offset += PAGE;
    }
}

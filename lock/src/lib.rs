//! The standard library's locks, without poison.
//!
//! A thread that panics while it holds a lock poisons it: every later `lock` is an error. Here it is not. A panic in a task is
//! caught by who runs the task (the engine restarts it, a server answers 500), and its neighbours go on. So what a lock protects
//! must be whole wherever its holder can panic. `docs/decisions/locks.md` says why not another crate.
//!
//! ```
//! use galerna_lock::Mutex;
//!
//! let counts = Mutex::new(vec![1, 2]);
//! counts.lock().push(3);
//! assert_eq!(counts.into_inner(), [1, 2, 3]);
//! ```
//!
//! Guards are the standard library's, so `std::sync::Condvar` waits with them. The crate must not depend on any other.

use std::fmt;
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// Mutual exclusion.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Protects a value.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, which nobody else can have now.
    #[inline]
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Many readers, or one writer.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    /// Protects a value.
    pub const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes.
    #[inline]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else reads or writes.
    #[inline]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn locks_are_taken_after_a_panic_of_their_holder() {
        let (mut mutex, rw) = (Mutex::new(1), RwLock::new(2));
        let holder = || {
            let _held = (mutex.lock(), rw.write());
            panic!("as it holds both");
        };
        assert!(catch_unwind(AssertUnwindSafe(holder)).is_err());
        *mutex.lock() += 1;
        *rw.write() += *mutex.get_mut();
        assert_eq!((*rw.read(), mutex.into_inner()), (4, 2));
    }
}

//! Code of other crates that may panic on damaged input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::data::{Error, Result};

thread_local! {
    /// How many calls of [`guarded`] this thread is within.
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

/// Runs a library's code. If it panics, `refuse` makes an error of the panic's text, and the panic
/// prints nothing: the error says it all.
pub(in crate::data) fn guarded<T>(
    refuse: impl FnOnce(&str) -> Error,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if GUARDS.get() == 0 {
                usual(panic);
            }
        }));
    });
    GUARDS.set(GUARDS.get() + 1);
    // Nothing that the code changed is used after its panic.
    let done = catch_unwind(AssertUnwindSafe(run));
    GUARDS.set(GUARDS.get() - 1);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(refuse(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_later_ones_are_still_printed() {
        let refuse = |panic: &str| Error::file("a.parquet".as_ref(), panic);
        for panic in [|| panic!("told"), || panic!("to{}", "ld")] {
            let message = guarded::<()>(refuse, panic).unwrap_err().to_string();
            assert_eq!(message, "a.parquet: told");
        }
        assert_eq!(GUARDS.get(), 0);
        assert_eq!(guarded(refuse, || Ok(3)).unwrap(), 3);
    }
}

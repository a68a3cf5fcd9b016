//! Places where a test may break this executor on purpose: to lose an answer, or to leave a guard out and see
//! that the proofs notice. In a release build there are none: every look is compiled out.
//!
//! The names are [`fail`]'s failpoints, set by `FAILPOINTS="name=return;other=1*return"` or `fail::cfg`.

/// Whether a test has set this point. A counted action (`1*return`) is used up by looking.
pub(crate) fn is_set(point: &str) -> bool {
    cfg!(debug_assertions) && fail::eval(point, |_| ()).is_some()
}

//! One example a rule, each comparing the whole list of effects.

mod attempts;
mod executors;
mod outputs;
#[path = "../plans/mod.rs"]
mod plans;
mod requests;
mod script;
mod stages;

//! What a user asks for. One model, whatever the text it was written in.
//!
//! [`read`] turns text into a spec or into *all* of its problems, each with its place and a remedy; [`check`] holds
//! the rules that need no text, and is what a scheduler runs on every submit: a spec that passes it compiles.

mod model;

pub use model::*;

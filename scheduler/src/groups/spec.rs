//! What may be said of a group when it is made.

use muster_proto::v1;
use tonic::Status;

use super::callbacks;

/// What a user may hang on a group.
const ATTRIBUTES_MAX: usize = 64;
/// A name or a value of these.
const ATTRIBUTE_BYTES_MAX: usize = 1_024;

/// What is said of a group when it is made.
pub(crate) fn check_spec(spec: &v1::GroupSpec) -> Result<(), Status> {
    if spec.attributes.len() > ATTRIBUTES_MAX {
        return Err(Status::invalid_argument(format!(
            "spec.attributes: {} are more than ATTRIBUTES_MAX = {ATTRIBUTES_MAX}",
            spec.attributes.len()
        )));
    }
    let too_long = |text: &String| text.len() > ATTRIBUTE_BYTES_MAX;
    match spec.attributes.iter().find(|(name, value)| name.is_empty() || too_long(name) || too_long(value)) {
        Some((name, _)) => Err(Status::invalid_argument(format!(
            "spec.attributes: '{}': names have 1 to ATTRIBUTE_BYTES_MAX = {ATTRIBUTE_BYTES_MAX} bytes, values at most so many",
            name.chars().take(40).collect::<String>().escape_debug()
        ))),
        None if spec.callback.is_empty() => Ok(()),
        None => {
            callbacks::check(&spec.callback).map_err(|why| Status::invalid_argument(format!("spec.callback: {why}")))
        }
    }
}

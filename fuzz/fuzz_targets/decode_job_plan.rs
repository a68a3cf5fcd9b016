//! Any bytes are a stored plan or an error, never a panic: through the envelope, and past it to what the rules get.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_state::codec::{Record, decode_bytes};

fuzz_target!(|data: &[u8]| {
    let _ = decode_bytes::<muster_proto::storage::StoredPlan>(data);
    if let Ok(stored) = <muster_proto::storage::StoredPlan as Record>::from_payload(1, data) {
        let _ = muster_graph::plan::Plan::try_from(stored);
    }
});

//! Any bytes are a record or an error, never a panic: through the envelope, and past it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_state::codec::{Record, decode_bytes};

fuzz_target!(|data: &[u8]| {
    let _ = decode_bytes::<muster_proto::storage::SafeModeRecord>(data);
    let _ = <muster_proto::storage::SafeModeRecord as Record>::from_payload(1, data);
});

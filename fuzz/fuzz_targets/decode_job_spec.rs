//! Any bytes are a stored spec or an error, never a panic: through the envelope, and past it to what the rules get.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_state::codec::{Record, decode_bytes};

fuzz_target!(|data: &[u8]| {
    let _ = decode_bytes::<muster_proto::storage::StoredSpec>(data);
    if let Ok(stored) = <muster_proto::storage::StoredSpec as Record>::from_payload(1, data)
        && let Some(spec) = stored.spec
    {
        let _ = muster_graph::spec::JobSpec::try_from(spec).map(|spec| muster_graph::spec::check(&spec));
    }
});

//! Compiles the .proto files with protox, so that building Muster's own wire needs no protoc.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 12] = [
    "muster/v1/admin.proto",
    "muster/v1/definitions.proto",
    "muster/v1/job.proto",
    "muster/v1/jobs.proto",
    "muster/v1/executor.proto",
    "muster/v1/explain.proto",
    "muster/v1/groups.proto",
    "muster/v1/namespace.proto",
    "muster/v1/scheduler.proto",
    "muster/v1/schedules.proto",
    "muster/v1/updates.proto",
    "muster/storage.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes("LogChunk.data")
        .bytes("OutputChunk.data")
        .compile_fds(descriptors)?;
    Ok(())
}

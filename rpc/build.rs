//! Compiles the protobuf files without protoc, and keeps their descriptors for reflection.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = [
        "proto/quorate/v1/coordination.proto",
        "proto/quorate/v1/cluster.proto",
        "proto/quorate/v1/peer.proto",
        "proto/quorate/v1/leases.proto",
        "proto/quorate/v1/locks.proto",
        "proto/quorate/v1/queues.proto",
        "proto/quorate/v1/processes.proto",
        "proto/quorate/v1/watch.proto",
    ];
    let descriptors = protox::compile(protos, ["proto"])?;
    let mut published = descriptors.clone();
    published
        .file
        .retain(|file| file.name() != "quorate/v1/peer.proto");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("all.bin"), descriptors.encode_to_vec())?;
    std::fs::write(out.join("published.bin"), published.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}

//! Compiles the protocol definitions without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/verifier.proto"], ["proto"])?;
    // Read by hand: it is bounded while it is read.
    let batch = (".coffer.verifier.v1.AppraiseBatchRequest", "crate::few::AppraiseBatchRequest");
    tonic_prost_build::configure().extern_path(batch.0, batch.1).compile_fds(descriptors)?;
    Ok(())
}

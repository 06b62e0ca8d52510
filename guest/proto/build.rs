//! Compiles the protocol definitions without protoc.

use std::fmt::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/agent.proto"], ["proto"])?;
    let mut methods = String::from("/// Every method, as it is asked for.\npub const METHODS: &[&str] = &[\n");
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                writeln!(methods, "    \"/{}.{}/{}\",", file.package(), service.name(), method.name())?;
            }
        }
    }
    methods.push_str("];\n");
    std::fs::write(std::path::Path::new(&std::env::var("OUT_DIR")?).join("methods.rs"), methods)?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

//! Compiles the protocol definitions without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["rpc.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::Codec").compile_fds(files)?;
    Ok(())
}

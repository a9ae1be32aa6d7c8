//! Compiles the messages of the stream, without a `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTO: &str = "proto/stream.proto";
    println!("cargo::rerun-if-changed={PROTO}");
    let files = protox::compile([PROTO], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".sluice.stream.v1")
        .compile_fds(files)?;
    Ok(())
}

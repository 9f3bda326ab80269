//! Compiles the wire contract with protox: no protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["trueline/v1/record.proto", "trueline/v1/link.proto", "trueline/v1/enrolment.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

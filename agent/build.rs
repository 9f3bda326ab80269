//! Compiles the programs of agent/bpf/ with the host's clang: the feature `ebpf`.
//!
//! Where clang or llvm-strip is missing the agent is built without, as a warning says and coverage does at run time;
//! TRUELINE_REQUIRE_EBPF=1 makes that an error. The same sources and the same clang give the same bytes.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(process_probe)");
    println!("cargo:rerun-if-changed=bpf");
    for name in ["TRUELINE_REQUIRE_EBPF", "TRUELINE_CLANG", "TRUELINE_LLVM_STRIP"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let required = std::env::var_os("TRUELINE_REQUIRE_EBPF").is_some_and(|value| value != "0" && !value.is_empty());
    let absent = if std::env::var_os("CARGO_FEATURE_EBPF").is_none() {
        Some("it was built without the feature ebpf".to_owned())
    } else {
        compile("process", &[]).and_then(|()| compile("files", &UNREAD)).err()
    };
    match absent {
        None => println!("cargo:rustc-cfg=process_probe"),
        Some(reason) if required => panic!("the eBPF programs are required by TRUELINE_REQUIRE_EBPF: {reason}"),
        Some(reason) => {
            println!("cargo:warning=the agent is built without its eBPF programs: {reason}");
            println!("cargo:rustc-env=TRUELINE_PROCESS_PROBE_ABSENT={reason}");
        }
    }
}

/// Sections that the loader does not look at.
const UNREAD: [&str; 2] = ["--remove-section", ".rel.BTF.ext"];

fn compile(name: &str, unread: &[&str]) -> Result<(), String> {
    let sources = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("bpf");
    let object = PathBuf::from(variable("OUT_DIR")?).join(format!("{name}.bpf.o"));
    let target = if variable("CARGO_CFG_TARGET_ENDIAN")? == "big" { "bpfeb" } else { "bpfel" };
    // Named without its folder, which is taken out of the description of types too.
    let prefix = format!("-ffile-prefix-map={}=bpf", sources.display());
    let arguments = ["-target", target, "-mcpu=v3", "-g", "-O2", "-Wall", "-Wextra", "-Werror", "-fdebug-compilation-dir=.", &prefix];
    run(Command::new(tool("TRUELINE_CLANG", "clang"))
        .current_dir(&sources)
        .args(arguments)
        .args(["-c", &format!("{name}.bpf.c"), "-o"])
        .arg(&object))?;
    // What a debugger reads; the description of types, by which the loader finds fields, stays.
    run(Command::new(tool("TRUELINE_LLVM_STRIP", "llvm-strip")).arg("-g").args(unread).arg(&object))
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}

fn tool(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().map_err(|error| format!("{name} could not be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed ({}): {}", output.status, said.lines().next().unwrap_or_default()))
}

//! Speaks as much of protoc's command line as build scripts do, so that crates which want a protoc build on a machine without one.
//!
//! `PROTOC=protoc-without-protoc cargo build`: such scripts ask for one thing, a descriptor set of some files, and `protox` writes it.

use protox::Compiler;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a build script asks for.
#[derive(Debug, Default)]
struct Asked {
    includes: Vec<PathBuf>,
    files: Vec<PathBuf>,
    output: Option<PathBuf>,
    imports: bool,
    source_info: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, Box<dyn Error>> {
    let mut asked = Asked::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "-I" => asked.includes.push(value()?.into()),
            "-o" => asked.output = Some(value()?.into()),
            "--include_imports" => asked.imports = true,
            "--include_source_info" => asked.source_info = true,
            // Long stable: what it allows is always allowed here.
            "--experimental_allow_proto3_optional" => {}
            flag if flag.starts_with('-') => return Err(format!("{flag} is not understood").into()),
            file => asked.files.push(file.into()),
        }
    }
    Ok(asked)
}

fn run() -> Result<(), Box<dyn Error>> {
    let asked = parse(std::env::args().skip(1))?;
    let output = asked.output.ok_or("-o is missing")?;
    let mut compiler = Compiler::new(asked.includes)?;
    compiler.include_imports(asked.imports).include_source_info(asked.source_info).open_files(asked.files)?;
    Ok(std::fs::write(output, compiler.encode_file_descriptor_set())?)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

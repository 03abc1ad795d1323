//! `quorate diagram`: the picture of a trace.

use crate::cli::DiagramArgs;
use crate::failure::Failure;
use quorate_sim::Trace;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub fn run(args: &DiagramArgs) -> Result<(), Failure> {
    let text = fs::read_to_string(&args.trace).map_err(|e| named(&args.trace, &e))?;
    let trace = Trace::read_json(&text).map_err(|e| Failure::Usage(format!("{}: {e}", args.trace.display())))?;
    write_file(&args.out, |to| to.write_all(quorate_sim::diagram(&trace).as_bytes()))
}

/// Writes a file and says so; what goes wrong names the file.
pub fn write_file(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Failure> {
    let written = File::create(path).and_then(|file| {
        let mut to = BufWriter::new(file);
        write(&mut to)?;
        to.flush()
    });
    written.map_err(|e| named(path, &e))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

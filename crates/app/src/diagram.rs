//! `quorate diagram`: the picture of a trace, or of what the processes of a cluster recorded.

use crate::cli::DiagramArgs;
use crate::failure::Failure;
use quorate_trace::{Life, Trace, is_process, merge, read_process};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub fn run(args: &DiagramArgs) -> Result<(), Failure> {
    let (traces, out) = files(args)?;
    let texts = traces.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let trace = match (traces, &texts[..]) {
        ([file], [text]) if !is_process(text) => Trace::read_json(text).map_err(|e| refused(file, &e))?,
        _ => merged(traces, &texts)?,
    };
    let trace = match (args.from, args.to) {
        (None, None) => trace,
        // What is no time is the beginning or the end.
        (from, to) => trace.between((from.unwrap_or(0.0) * 1e6) as u64, to.map_or(u64::MAX, |to| (to * 1e6) as u64)),
    };
    if let Some(file) = &args.merged {
        write_file(file, |to| trace.write_json(to))?;
    }
    write_file(out, |to| to.write_all(quorate_sim::diagram(&trace).as_bytes()))
}

/// What to read and what to write.
fn files(args: &DiagramArgs) -> Result<(&[PathBuf], &Path), Failure> {
    let (traces, out) = match (&args.out, args.traces.split_last()) {
        (Some(out), _) => (&args.traces[..], out),
        (None, Some((out, traces @ [_, ..]))) => (traces, out),
        (None, _) => return Err(Failure::Usage("name the picture, too: --out picture.html".into())),
    };
    // A list of traces whose picture was not named must not cost the last of them.
    if args.out.is_none() && read(out).is_ok_and(|text| is_process(&text) || text.starts_with("{\"quorate_trace\"")) {
        return Err(Failure::Usage(format!("{} is a trace: name the picture with --out", out.display())));
    }
    Ok((traces, out.as_path()))
}

fn merged(files: &[PathBuf], texts: &[String]) -> Result<Trace, Failure> {
    let read = |(file, text): (&PathBuf, &String)| -> Result<Vec<Life>, Failure> {
        read_process(text).map_err(|e| refused(file, &e))
    };
    let lives = files.iter().zip(texts).map(read).collect::<Result<Vec<_>, _>>()?;
    let (trace, _) = merge(lives).map_err(|e| Failure::Usage(e.to_string()))?;
    Ok(trace)
}

/// What a process was writing when it was killed may end within a character.
fn read(file: &Path) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&fs::read(file).map_err(|e| named(file, &e))?).into_owned())
}

fn refused(file: &Path, why: &quorate_trace::TraceError) -> Failure {
    Failure::Usage(format!("{}: {why}", file.display()))
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

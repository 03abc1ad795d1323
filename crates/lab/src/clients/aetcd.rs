//! The Python package `aetcd`, in the small program `tests/aetcd`.

use super::{Client, output};
use crate::programs;
use std::path::PathBuf;
use std::process::Command;

/// The Python that `QUORATE_PYTHON` names, or the one on the PATH, if it has the package.
pub fn found() -> Option<Client> {
    let python = std::env::var_os("QUORATE_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    if output(Command::new(&python).args(["-c", "import aetcd"]), "").is_err() {
        let python = python.display();
        println!(
            "aetcd (Python): SKIPPED: {python} does not have it. Install it (pip install aetcd) or set QUORATE_PYTHON."
        );
        return None;
    }
    let script = programs::root().join("tests/aetcd/content.py");
    let work = move |endpoints: &[String]| {
        let port = endpoints.first().and_then(|endpoint| endpoint.rsplit_once(':')).map_or("", |(_, port)| port);
        output(Command::new(&python).arg(&script).arg(port), "").map(|_| ())
    };
    Some(Client { name: "aetcd (Python)".to_owned(), work: Box::new(work) })
}

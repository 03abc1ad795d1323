//! Where the programs of an experiment come from: ours are built by cargo, others' are named by a variable or found on the PATH.

use crate::failure::Failure;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cargo that runs this experiment.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The `quorate` that `QUORATE_BINARY` names, else the one of this workspace as users have it, built if it is not.
pub fn quorate() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("QUORATE_BINARY") {
        return Ok(path.into());
    }
    let status =
        cargo().current_dir(root()).args(["build", "--locked", "--release", "--package", "quorate"]).status()?;
    if !status.success() {
        return Err(Failure::Build { what: "quorate" });
    }
    // This program lies in <target>/debug.
    let me = std::env::current_exe()?;
    let target = me.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
    Ok(target.join("release/quorate"))
}

/// A program that is not ours: the one that `variable` names, else the one called `name` on the PATH; `None` if it does not run.
pub fn find(variable: &str, name: &str, version_flag: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from);
    runs(&path, version_flag).then_some(path)
}

fn runs(path: &Path, version_flag: &str) -> bool {
    Command::new(path).arg(version_flag).env("ETCDCTL_API", "3").output().is_ok()
}

//! Where the programs of an experiment come from: ours are built by cargo, others' are named by a variable or found on the PATH.

use crate::failure::Failure;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How one of our programs is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As the tests have it, so that nothing is compiled twice.
    Dev,
    /// As users have it.
    Release,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cargo that runs this experiment.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Where cargo puts what it builds: this program lies in <target>/debug.
pub fn target() -> Result<PathBuf, Failure> {
    let me = std::env::current_exe()?;
    Ok(me.parent().and_then(Path::parent).unwrap_or(Path::new("target")).to_path_buf())
}

/// Builds a program of the workspace, unless it is built already, and returns where it is.
pub fn build(package: &'static str, binary: &str, profile: Profile) -> Result<PathBuf, Failure> {
    let (flag, folder) = match profile {
        Profile::Dev => (None, "debug"),
        Profile::Release => (Some("--release"), "release"),
    };
    let mut command = cargo();
    command
        .current_dir(root())
        .args(["build", "--locked", "--quiet", "--package", package, "--bin", binary])
        .args(flag);
    if !command.status()?.success() {
        return Err(Failure::Build { what: package });
    }
    Ok(target()?.join(folder).join(binary))
}

/// The `quorate` that is named, else the one that `QUORATE_BINARY` names, else the one of this workspace.
pub fn quorate(named: Option<&Path>, profile: Profile) -> Result<PathBuf, Failure> {
    let variable = || std::env::var_os("QUORATE_BINARY").map(PathBuf::from);
    match named.map(Path::to_path_buf).or_else(variable) {
        // Servers run in folders of their own.
        Some(path) => Ok(std::path::absolute(path)?),
        None => build("quorate", "quorate", profile),
    }
}

/// A program that is not ours: the one that `variable` names, else the one called `name` on the PATH; `None` if it does not run.
pub fn find(variable: &str, name: &str, version_flag: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(name), PathBuf::from);
    runs(&path, version_flag).then_some(path)
}

/// Whether a program can be started.
pub fn runs(path: &Path, version_flag: &str) -> bool {
    Command::new(path).arg(version_flag).env("ETCDCTL_API", "3").output().is_ok()
}

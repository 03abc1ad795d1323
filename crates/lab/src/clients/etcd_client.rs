//! The Rust crate `etcd-client`, in the small program `tests/etcd-client`.
//!
//! Its build script wants a protoc, which whoever builds Quorate need not have. So the program is no member of the workspace, and is built
//! here with our stand-in for protoc.

use super::{Client, output};
use crate::failure::Failure;
use crate::programs::{self, Profile};
use std::process::Command;

const NAME: &str = "etcd-client (Rust)";

/// Builds the program, unless it is built already.
pub fn build() -> Result<Client, Failure> {
    let protoc = programs::build("quorate-lab", "protoc-without-protoc", Profile::Dev)?;
    let target = programs::target()?.join("etcd-client");
    let status = programs::cargo()
        .args(["build", "--locked", "--quiet", "--manifest-path"])
        .arg(programs::root().join("tests/etcd-client/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("PROTOC", protoc)
        .status()?;
    if !status.success() {
        return Err(Failure::Build { what: NAME });
    }
    let program = target.join("debug/quorate-etcd-client-test");
    let work = move |endpoints: &[String]| output(Command::new(&program).args(endpoints), "").map(|_| ());
    Ok(Client { name: NAME.to_owned(), work: Box::new(work) })
}

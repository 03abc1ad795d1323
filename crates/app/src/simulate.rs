//! `quorate sim`.
use crate::cli::SimArgs;
use crate::failure::Failure;
pub fn run(_: &SimArgs) -> Result<(), Failure> {
    Err(Failure::Usage("the simulator is not built in yet".into()))
}

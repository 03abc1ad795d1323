//! Merges, in stories.
//!
//! ```text
//!   yield                    everything, to the shard before this one
//!   absorb CHILD [bytes=64] [again]
//!                            some rows of the one whose slot has its number; again: those after which they went on the last time
//! ```

use super::splits::{child, slot_of};
use super::{Teller, Told, option};
use crate::{Machine, Procedures};
use bytes::Bytes;
use goldenscript::ArgumentConsumer;
use quorate_kv::{Command, Level};
use std::sync::Arc;

impl Teller {
    pub(super) fn merge(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Told {
        if name == "yield" {
            let range = self.machine.meta().range.clone();
            return self.run_now(Command::Yield { range });
        }
        let (bytes, child) = (option(args, "bytes")?.unwrap_or(64), child(args)?);
        let again = args.next_pos().is_some_and(|word| word == "again");
        let other = Machine::open(self.store.clone(), slot_of(child), Arc::new(Procedures::of(Level::LATEST)))?;
        let at = self.machine.meta().absorbing.as_ref().map_or(Bytes::new(), |absorbing| absorbing.at.clone());
        let after = if again { self.absorbed_after.clone() } else { at };
        self.absorbed_after.clone_from(&after);
        let page = other.view().give(child, &after, bytes)?;
        self.run_now(Command::Absorb(Box::new(page)))
    }
}

//! What happens in a run, for people to read: the trace's model is `quorate_trace`'s, what the simulator tells it is here.

#[cfg(test)]
mod merging;
pub(crate) mod recorder;
pub(crate) mod words;

pub use quorate_trace::{
    About, Lane, Loss, MessageId, Outcome, Part, Record, Said, TRACE_VERSION, Trace, TraceError, TraceEvent, Way,
};

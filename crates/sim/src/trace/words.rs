//! What the simulator's own types are called in a trace.

pub(crate) use quorate_trace::words::*;

use crate::client::Kind;
use crate::teller::Deed;
use quorate_cluster::Request;

/// A client's question.
pub(crate) fn asked(kind: &Kind, request: &Request) -> String {
    short(match (kind, request) {
        (Kind::Read { op, linearizable }, _) => {
            format!("{} read of {}", if *linearizable { "linearizable" } else { "serializable" }, read(op))
        }
        (Kind::Renew { id }, _) => format!("renew lease {}", id.0),
        (_, Request::Submit { command: asked, .. }) => command(asked),
        (_, other) => format!("{other:?}"),
    })
}

/// A teller's question.
pub(crate) fn teller_asked(deed: &Deed) -> String {
    let keys = |keys: &[bytes::Bytes]| list(keys.iter().map(|key| show(key)));
    short(match deed {
        Deed::Open => "open all accounts".into(),
        Deed::Write { keys: wrote, reads } => {
            format!("in one: read {}, write {}", list(reads.iter().map(range)), keys(wrote))
        }
        Deed::Audit => "in one: read all accounts".into(),
        Deed::Lock { keys: reserved } => format!("reserve some of {}", keys(reserved)),
        Deed::Put { key } => format!("put {}", show(key)),
        Deed::Read { op } => format!("linearizable read of {}", read(op)),
    })
}

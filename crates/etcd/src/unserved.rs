//! Calls that are not served: what a client is told, by name, before its message is looked at.
//!
//! etcd's calls that Quorate does not have yet are in the table of [`crate::compat`]; about all others the answer is that of etcd's gRPC
//! library.

use crate::compat::{CALLS, State};
use crate::metrics::Metrics;
use axum::http::{Request, header};
use tonic::Status;

/// Why a request is not for the services; `None` if it is for them or for a page.
pub(crate) fn refusal<B>(request: &Request<B>, metrics: &Metrics) -> Option<Status> {
    let (service, method) = request.uri().path().strip_prefix('/')?.split_once('/')?;
    let row = CALLS.iter().position(|(known, call, ..)| *known == service && *call == method);
    match row.map(|row| (row, CALLS[row].2)) {
        Some((_, State::Full | State::Partly)) => None,
        Some((row, State::Absent)) => {
            metrics.count_unserved(row);
            Some(Status::unimplemented(format!("quorate: {service}/{method} is not served yet")))
        }
        None if !is_grpc(request) => None,
        None if CALLS.iter().any(|(known, ..)| *known == service) => {
            Some(Status::unimplemented(format!("unknown method {method} for service {service}")))
        }
        None => Some(Status::unimplemented(format!("unknown service {service}"))),
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &str, kind: &str) -> Option<String> {
        let request = Request::builder().uri(path).header(header::CONTENT_TYPE, kind).body(()).expect("a request");
        refusal(&request, &Metrics::new()).map(|status| {
            assert_eq!(status.code(), tonic::Code::Unimplemented);
            status.message().to_owned()
        })
    }

    #[test]
    fn every_call_of_the_table_is_served_or_named() {
        for (service, method, state, _) in CALLS {
            let told = told(&format!("/{service}/{method}"), "application/grpc");
            let named = format!("quorate: {service}/{method} is not served yet");
            assert_eq!(told, (*state == State::Absent).then_some(named));
        }
    }

    #[test]
    fn what_nobody_knows_is_refused_in_the_librarys_words() {
        let grpc = "application/grpc+proto";
        assert_eq!(
            told("/etcdserverpb.KV/Nope", grpc).as_deref(),
            Some("unknown method Nope for service etcdserverpb.KV")
        );
        assert_eq!(told("/nope.Nope/Nope", grpc).as_deref(), Some("unknown service nope.Nope"));
        assert_eq!(told("/metrics", "text/plain"), None);
        assert_eq!(told("/some/page", "text/plain"), None);
    }
}

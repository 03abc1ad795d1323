//! The native API over HTTP and JSON, and over gRPC: keyspaces, keys, and transactions over any of them (docs/native-api.md).
//!
//! ```text
//!   POST /v1/tx, GET PUT DELETE /v1/kv ──> words, query ──┬─> place, scan ──> kv::across::Transaction ──> kv::Db::transact
//!   POST DELETE /v1/locks ──> locks ──────────────────────┤                   kv::reserve::Wish ─────────> kv::Db::reserve
//!   POST GET DELETE /v1/logs ──> logs ────────────────────┤                   kv::log::Fetch ────────────> kv::Db::look
//!   quorate.v1.Quorate/Transact, ...   ──> grpc ──────────┤
//!   GET /v1/watch, Quorate/Watch                          └─> feed ──> kv::Db::watch ──> server-sent events, messages
//!   every answer is done, refused with a reason, or unknown with an id to ask about later
//! ```
//!
//! This crate knows JSON's words and those of its own messages, and nothing of consensus, storage or time; it holds a [`quorate_kv::Db`] and translates.

mod answers;
mod feed;
mod freshness;
pub mod grpc;
mod keys;
mod keyspaces;
mod locks;
mod logs;
mod names;
mod nodes;
mod percent;
mod place;
mod policy;
mod query;
mod reasons;
mod scan;
mod transactions;
mod watch;
mod words;

use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, any, on};
use axum::{Extension, Router};
use quorate_kv::{Db, limits};
use std::sync::Arc;
use std::time::Duration;

/// JSON may say in twice as many bytes what a request may hold: escapes, names, base64.
pub(crate) const BODY_BYTES_MAX: usize = 2 * limits::REQUEST_BYTES_MAX;

/// A request that has not been read and answered after this long is given up. The core answers far sooner: what takes this long is a body that does
/// not come.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(30);

async fn in_time(request: Request, next: Next) -> Response {
    within(REQUEST_TIME, next.run(request)).await
}

async fn within(time: Duration, answer: impl Future<Output = Response>) -> Response {
    let answer = tokio::time::timeout(time, answer).await;
    answer.unwrap_or_else(|_| answers::Failure::TooSlow.into_response())
}

/// A description of all this for programs.
pub(crate) const OPENAPI: &str = include_str!("../openapi.json");

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// One thing that can be asked: how, where, and who answers.
type Route = (Method, &'static str, MethodRouter<Arc<dyn Db>>);

fn route<H: Handler<T, Arc<dyn Db>>, T: 'static>(method: Method, path: &'static str, handler: H) -> Route {
    let filter = MethodFilter::try_from(method.clone()).expect("a method that routes know");
    (method, path, on(filter, handler))
}

/// All that can be asked, as openapi.json describes it.
fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, "/v1/kv/{keyspace}", scan::scan),
        route(Method::GET, "/v1/kv/{keyspace}/{*key}", keys::get),
        route(Method::PUT, "/v1/kv/{keyspace}/{*key}", keys::put),
        route(Method::DELETE, "/v1/kv/{keyspace}/{*key}", keys::delete),
        route(Method::GET, "/v1/watch/{keyspace}", watch::watch),
        route(Method::POST, "/v1/tx", transactions::transact),
        route(Method::GET, "/v1/status/{id}", transactions::status),
        route(Method::POST, "/v1/locks/{name}", locks::reserve),
        route(Method::DELETE, "/v1/locks/{name}", locks::release),
        route(Method::POST, "/v1/logs/{name}", logs::append),
        route(Method::GET, "/v1/logs/{name}", logs::fetch),
        route(Method::DELETE, "/v1/logs/{name}", logs::trim),
        route(Method::GET, "/v1/keyspaces", keyspaces::list),
        route(Method::POST, "/v1/keyspaces", keyspaces::create),
        route(Method::PATCH, "/v1/keyspaces/{name}", keyspaces::change),
        route(Method::POST, "/v1/keyspaces/{name}/split", keyspaces::split),
        route(Method::GET, "/v1/nodes", nodes::list),
        route(Method::POST, "/v1/nodes/{node}/drain", nodes::drain),
        route(Method::POST, "/v1/nodes/{node}/replace", nodes::replace),
        route(Method::GET, "/v1/openapi.json", openapi),
    ]
}

/// The routes under `/v1`, and the service `quorate.v1.Quorate`. Once `stop` is true, watches end, so that connections can.
pub fn router(db: Arc<dyn Db>, stop: tokio::sync::watch::Receiver<bool>) -> Router {
    let stop = feed::Stop(stop);
    let all = routes().into_iter().fold(Router::new(), |all, (_, path, handler)| all.route(path, handler));
    // Whoever leaves the key out meant a key, not another page.
    all.route("/v1/kv/{keyspace}/", any(keys::no_key))
        .fallback(answers::no_such_page)
        .method_not_allowed_fallback(answers::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(in_time))
        .layer(Extension(stop.clone()))
        .with_state(db.clone())
        // It has its own door, and its own words for what does not pass.
        .merge(grpc::router(db, stop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn openapi_describes_each_route_and_nothing_else() {
        let openapi: serde_json::Value = serde_json::from_str(OPENAPI).expect("json");
        let paths = openapi["paths"].as_object().expect("paths").iter();
        let described: BTreeSet<(String, String)> = paths
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys().filter(|word| *word != "parameters");
                methods.map(move |method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let served =
            routes().into_iter().map(|(method, path, _)| (path.replace('*', ""), method.to_string())).collect();
        assert_eq!(described, served);
        assert_eq!(openapi["openapi"], "3.1.0");
    }

    #[tokio::test]
    async fn who_does_not_come_to_an_end_is_told_so() {
        let time = Duration::from_millis(10);
        assert_eq!(within(time, std::future::pending()).await.status().as_u16(), 408);
        assert_eq!(within(time, async { "done".into_response() }).await.status().as_u16(), 200);
    }
}

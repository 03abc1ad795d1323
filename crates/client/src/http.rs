//! One exchange with one server, over connections that are kept.

use crate::options::{ANSWER_BYTES_MAX, Options};
use crate::place::Place;
use crate::request::{IDEMPOTENCY_KEY, Request};
use crate::verdict::Heard;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Response};
use hyper_util::client::legacy::Client as Connections;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error as _;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Connections that nobody has used for so long are closed. Servers may close them sooner.
const IDLE: Duration = Duration::from_secs(30);

/// Under which a watch says what it has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Connections to servers.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    connections: Connections<HttpConnector, Full<Bytes>>,
    answer: Duration,
}

/// What was asked of a server came to nothing.
enum Silence {
    Unreachable(String),
    Lost(String),
}

impl From<Silence> for Heard {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Unreachable(why) => Self::Unreachable(why),
            Silence::Lost(why) => Self::Lost(why),
        }
    }
}

impl Http {
    pub fn new(options: &Options) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(options.connect));
        connector.set_nodelay(true);
        let mut builder = Connections::builder(TokioExecutor::new());
        // Only what has not been sent is sent anew on a connection that turns out to be closed.
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).retry_canceled_requests(true);
        Self { connections: builder.build(connector), answer: options.answer }
    }

    async fn send(
        &self,
        method: Method,
        place: &Place,
        path: &str,
        header: Option<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Silence> {
        let uri = format!("http://{place}{path}");
        let mut request = hyper::Request::builder().method(method).uri(uri).header(CONTENT_TYPE, "application/json");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body));
        let request = request.map_err(|e| Silence::Unreachable(format!("that cannot be asked: {e}")))?;
        self.connections.request(request).await.map_err(|e| {
            let why = e.source().map_or_else(|| e.to_string(), root);
            if e.is_connect() { Silence::Unreachable(why) } else { Silence::Lost(format!("no answer: {why}")) }
        })
    }

    /// Asks, and reads the whole answer.
    pub async fn exchange(&self, place: &Place, path: &str, request: &Request, until: Instant) -> Heard {
        let patience = until.min(Instant::now() + self.answer);
        let exchange = async {
            let header = match request.header() {
                Ok(value) => value.map(|value| (IDEMPOTENCY_KEY, value)),
                Err(e) => return Heard::Unreachable(format!("that cannot be asked: {e}")),
            };
            let body = request.body.as_ref().map_or_else(Bytes::new, |body| body.to_string().into());
            match self.send(request.method.clone(), place, path, header, body).await {
                Ok(response) => read(response).await,
                Err(silence) => silence.into(),
            }
        };
        let late = |_| Heard::Lost("no answer in time".into());
        timeout_at(patience, exchange).await.unwrap_or_else(late)
    }

    /// Opens a stream of events, behind the last that was seen; the head of the answer says whether there is one.
    pub async fn open(&self, place: &Place, path: &str, seen: Option<u64>) -> Result<Incoming, Heard> {
        let seen = seen.map(|seen| (LAST_EVENT_ID, HeaderValue::from(seen)));
        let opened = timeout(self.answer, self.send(Method::GET, place, path, seen, Bytes::new())).await;
        let response = opened.map_err(|_| Heard::Lost("no answer in time".into()))?.map_err(Heard::from)?;
        if response.status().as_u16() == 200 {
            return Ok(response.into_body());
        }
        let late = |_| Heard::Lost("no answer in time".into());
        Err(timeout(self.answer, read(response)).await.unwrap_or_else(late))
    }
}

/// What lies at the ground of an error.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(below) = error.source() {
        error = below;
    }
    error.to_string()
}

async fn read(response: Response<Incoming>) -> Heard {
    let code = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|at| at.to_str().ok()).map(str::to_owned);
    match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Heard::Answer { code, said: serde_json::from_slice(&body.to_bytes()).ok(), location },
        Err(e) => Heard::Lost(format!("the answer broke off: {e}")),
    }
}

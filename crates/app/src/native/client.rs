//! One request, one connection; and the next server when one is not available.

use crate::failure::Failure;
use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that cannot be connected to within this is passed over.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// A server that does not answer within this is passed over. It gives up by itself before that.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Under which a client names what it wants.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What is asked.
#[derive(Debug)]
pub struct Ask {
    pub method: Method,
    /// With the words behind its `?`.
    pub path: String,
    pub body: Option<Value>,
    pub headers: Vec<(&'static str, String)>,
    /// Whether asking twice does no more than asking once.
    repeatable: bool,
}

impl Ask {
    pub fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: None, headers: Vec::new(), repeatable: true }
    }

    /// A write that is done once, however often it is sent.
    pub fn write(method: Method, path: String, body: Value, name: Option<&String>) -> Self {
        let name = name.cloned().unwrap_or_else(random_name);
        Self { method, path, body: Some(body), headers: vec![(IDEMPOTENCY_KEY, name)], repeatable: true }
    }

    /// A change that has no name to be told from another.
    pub fn change(path: String, body: Value) -> Self {
        Self { method: Method::POST, path, body: Some(body), headers: Vec::new(), repeatable: false }
    }

    /// What to do when nobody knows whether it was done.
    fn next(&self) -> String {
        let key = self.headers.iter().find(|(name, _)| *name == IDEMPOTENCY_KEY);
        let next = key.map_or("see quorate keyspace list".into(), |(_, key)| {
            format!("send it again with --idempotency-key {key}, which does nothing twice")
        });
        format!("it may have been done: {next}")
    }
}

/// 128 bits that nobody else draws: each state of the standard library's hashers is seeded by the operating system.
fn random_name() -> String {
    let draw = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", draw(), draw())
}

/// Why a server gave no answer.
pub enum Silence {
    /// It was not asked.
    Unreachable(String),
    /// It was asked, and then nothing came.
    Lost(String),
}

impl Silence {
    fn why(self) -> String {
        match self {
            Self::Unreachable(why) | Self::Lost(why) => why,
        }
    }
}

/// Sends a request to one server and returns the head of what it answers.
pub async fn send(endpoint: &str, ask: &Ask) -> Result<Response<Incoming>, Silence> {
    let host = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let unreachable =
        |why: String| Silence::Unreachable(format!("{host} cannot be reached: {why}; is a server running there?"));
    let lost = |why: String| Silence::Lost(format!("{host}: {why}"));
    let connected = timeout(CONNECT_PATIENCE, TcpStream::connect(host)).await;
    let stream = connected.map_err(|e| unreachable(e.to_string()))?.map_err(|e| unreachable(e.to_string()))?;
    // Without it requests are as right, only later.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(e.to_string()))?;
    tokio::spawn(connection);
    let mut request = hyper::Request::builder().method(&ask.method).uri(&ask.path).header(HOST, host);
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    let body = ask.body.as_ref().map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let request = request.header(CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|e| Silence::Unreachable(format!("that cannot be asked: {e}")))?;
    let answered = timeout(ANSWER_PATIENCE, sender.send_request(request)).await;
    let silence = || lost(format!("no answer within {} s", ANSWER_PATIENCE.as_secs()));
    answered.map_err(|_| silence())?.map_err(|e| lost(format!("no answer: {e}")))
}

/// Reads an answer: its code, and what it says.
async fn read(response: Response<Incoming>) -> Result<(StatusCode, Value), String> {
    let code = response.status();
    let body = timeout(ANSWER_PATIENCE, to_bytes(Body::new(response.into_body()), usize::MAX)).await;
    let body = body.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let said = serde_json::from_slice(&body).map_err(|_| format!("{code}: is that a Quorate server?"))?;
    Ok((code, said))
}

fn message(said: &Value) -> String {
    said["message"].as_str().unwrap_or("no message").to_owned()
}

/// What a refusal means to somebody at a command line.
pub fn refusal(said: &Value) -> Failure {
    let message = message(said);
    match said["reason"].as_str().unwrap_or_default() {
        "no_such_key" => Failure::Violation("there is no such key".into()),
        "condition_failed" => {
            let now = match said.get("now") {
                None => String::new(),
                Some(Value::Null) => ": it is not there now".into(),
                Some(now) => format!(": it is now {now}"),
            };
            Failure::Violation(format!("nothing was written, the key is not as the condition says{now}"))
        }
        "no_such_keyspace" => Failure::Usage(
            "there is no such keyspace: make it with quorate keyspace create, or see quorate keyspace list".into(),
        ),
        "keyspace_exists" => Failure::Usage(format!("{message}: see quorate keyspace list")),
        "already_split" => Failure::Usage(format!("{message}: see quorate keyspace list")),
        "no_such_page" | "no_such_method" => {
            Failure::Server(format!("{message}: does the server run an older release?"))
        }
        _ => Failure::Usage(message),
    }
}

/// The servers of a cluster.
pub struct Servers(Vec<String>);

impl Servers {
    /// # Errors
    /// If one of them can only be reached with encryption, which there is none of yet.
    pub fn new(endpoints: Vec<String>) -> Result<Self, Failure> {
        match endpoints.iter().find(|endpoint| endpoint.starts_with("https://")) {
            Some(endpoint) => Err(Failure::Usage(format!("{endpoint}: there is no encryption yet; write host:port"))),
            None => Ok(Self(endpoints)),
        }
    }

    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// Asks one after the other until one answers. What was perhaps done is only sent again when that does nothing twice.
    pub async fn ask(&self, ask: &Ask) -> Result<Value, Failure> {
        let mut said = Vec::new();
        let mut perhaps_done = false;
        for endpoint in &self.0 {
            let (why, sent) = match send(endpoint, ask).await {
                Err(silence) => {
                    let sent = matches!(silence, Silence::Lost(_));
                    (silence.why(), sent)
                }
                Ok(response) => match read(response).await {
                    Ok((code, answer)) if code.is_success() => return Ok(answer),
                    Ok((StatusCode::SERVICE_UNAVAILABLE, answer)) => {
                        (format!("{endpoint}: {}", message(&answer)), false)
                    }
                    Ok((StatusCode::GATEWAY_TIMEOUT, answer)) => (format!("{endpoint}: {}", message(&answer)), true),
                    Ok((_, answer)) => return Err(refusal(&answer)),
                    Err(why) => (format!("{endpoint}: {why}"), true),
                },
            };
            said.push(why);
            perhaps_done |= sent;
            if sent && !ask.repeatable {
                break;
            }
        }
        if perhaps_done && ask.method != Method::GET {
            said.push(ask.next());
        }
        Err(Failure::Server(said.join("\n")))
    }
}

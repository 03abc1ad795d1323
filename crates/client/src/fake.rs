//! Servers that do what a test tells them to.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What a server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    Answer(u16, Value),
    SendOn(String),
    HangUp,
    Nothing,
    /// Tells this of a watch, and then hangs up.
    Tell(&'static str),
}

/// One that says it has no leader when there is nothing else to do.
pub(crate) struct Fake {
    pub endpoint: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub async fn new(script: impl IntoIterator<Item = Does>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let (heard, script) = (Arc::<Mutex<Vec<String>>>::default(), script.into_iter().collect::<VecDeque<_>>());
        let (list, script) = (heard.clone(), Arc::new(Mutex::new(script)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, list.clone(), script.clone()));
            }
        });
        Self { endpoint, heard }
    }

    /// What was asked, head and body.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("whole").clone()
    }

    /// What each request says in a header; none where it says nothing.
    pub fn headers(&self, name: &str) -> Vec<Option<String>> {
        let said = |request: &String| {
            let line = request.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.map(str::to_owned)
        };
        self.heard().iter().map(said).collect()
    }
}

/// Where nobody is.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

async fn serve(stream: TcpStream, heard: Arc<Mutex<Vec<String>>>, script: Arc<Mutex<VecDeque<Does>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        stream.read_line(&mut request).await.ok().filter(|read| *read > 0)?;
    }
    let length = request.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.ok()?;
    request.push_str(&String::from_utf8_lossy(&body));
    heard.lock().expect("whole").push(request);
    let no_leader = || Does::Answer(503, json!({ "reason": "no_leader", "message": "no leader" }));
    let does = script.lock().expect("whole").pop_front().unwrap_or_else(no_leader);
    let (head, body) = match does {
        Does::Answer(code, said) => (format!("{code} said"), said.to_string()),
        Does::SendOn(to) => (format!("307 there\r\nlocation: {to}"), String::new()),
        Does::HangUp => return None,
        Does::Nothing => std::future::pending().await,
        Does::Tell(events) => ("200 OK".into(), events.into()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.ok()
}

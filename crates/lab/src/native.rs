//! The native API over one connection that is kept.

use crate::failure::Failure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

pub struct Client {
    host: String,
    send: SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn to(host: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| Failure::Http(e.to_string()))?;
        tokio::spawn(connection);
        Ok(Self { host: host.to_owned(), send })
    }

    /// Asks, and insists on an answer that says that it was done.
    pub async fn done(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let told = self.told(method, path, body.to_string()).await?;
        serde_json::from_slice(&told).map_err(|e| Failure::Http(e.to_string()))
    }

    /// A page of text.
    pub async fn page(&mut self, path: &str) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.told("GET", path, String::new()).await?).into_owned())
    }

    async fn told(&mut self, method: &str, path: &str, body: String) -> Result<Bytes, Failure> {
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        let request = request.body(Full::from(body)).expect("words without line ends");
        let failed = |e: hyper::Error| Failure::Http(e.to_string());
        self.send.ready().await.map_err(failed)?;
        let answer = self.send.send_request(request).await.map_err(failed)?;
        let code = answer.status();
        let told = answer.into_body().collect().await.map_err(failed)?.to_bytes();
        if !code.is_success() {
            return Err(Failure::Http(format!("{path} was answered with {code}: {}", String::from_utf8_lossy(&told))));
        }
        Ok(told)
    }
}

//! A way to a server on which answers get lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Hands requests on and answers back, but for the answers to transactions, of which the next few are lost with their
/// connection.
pub struct Lossy {
    pub endpoint: String,
    inner: Arc<Inner>,
}

struct Inner {
    to: String,
    /// How many answers are still to be lost.
    lose: AtomicUsize,
    /// The transactions that were handed on.
    transactions: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Lossy {
    /// A way to a server, which loses nothing yet.
    pub fn new(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = listener.local_addr().expect("bound").to_string();
        let (lose, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let inner = Arc::new(Inner { to: to.into(), lose, transactions: Mutex::default(), stop });
        let shared = inner.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || shared.carry(stream));
            }
        });
        Self { endpoint, inner }
    }

    /// The next so many answers to transactions are lost.
    pub fn lose(&self, answers: usize) {
        self.inner.lose.store(answers, Ordering::Relaxed);
    }

    /// The transactions that were handed on since this was asked, head and body.
    pub fn transactions(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.transactions.lock().expect("whole"))
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        // It wakes up to see that.
        let _ = TcpStream::connect(&self.endpoint);
    }
}

impl Inner {
    /// Carries one exchange after the other, until one side has gone.
    fn carry(&self, client: TcpStream) -> Option<()> {
        let mut client = BufReader::new(client);
        let mut server = BufReader::new(TcpStream::connect(&self.to).ok()?);
        loop {
            let request = message(&mut client)?;
            let transaction = request.starts_with(b"POST /v1/tx");
            if transaction {
                self.transactions.lock().expect("whole").push(String::from_utf8_lossy(&request).into_owned());
            }
            server.get_mut().write_all(&request).ok()?;
            let answer = message(&mut server)?;
            let one_less = |left: usize| left.checked_sub(1);
            if transaction && self.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                return None;
            }
            client.get_mut().write_all(&answer).ok()?;
        }
    }
}

/// A request or an answer, whose head says how long it is.
fn message(from: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut message, mut line, mut length) = (Vec::new(), String::new(), 0);
    while line != "\r\n" {
        line.clear();
        from.read_line(&mut line).ok().filter(|read| *read > 0)?;
        message.extend_from_slice(line.as_bytes());
        if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = said.trim().parse().ok()?;
        }
    }
    let head = message.len();
    message.resize(head + length, 0);
    from.read_exact(&mut message[head..]).ok()?;
    Some(message)
}

//! Connections between nodes.
//!
//! Each node dials each other one and only sends on that connection; what it receives comes on the connections that others dialled. A
//! frame is a length, a checksum and a batch of messages (docs/design/wire-format.md). Messages to a peer that cannot keep up are
//! dropped: consensus sends again what matters. A peer that sends faster than the lane works is slowed down by TCP.
//!
//! The first frame on a connection says who dials: cluster, node, incarnation. The acceptor answers with a welcome or with a reason;
//! a node that came back with an empty disk under its old name is refused, since it no longer knows what it promised. That is final. That
//! the two are no peers of each other is not: at the address of a peer that is away there may be a stranger, who must not stop those that
//! he calls strangers. A node gives up when so many refuse it that the rest, with it, are no majority. Connections come and go with the member
//! table; a peer that does not know the dialler *yet* says so, and is dialled again.

use crate::clock::Clock;
use crate::driver::{LaneInput, describe, refused_by_peer, removed_from_cluster};
use crate::joining::{self, Answer, Ask, Gate};
use crate::members::MemberTable;
use crate::recording::{Recorder, draw_connection};
use bytes::{Bytes, BytesMut};
use quorate_cluster::{Input, PeerMessage, wire};
use quorate_env::checksum::checksum;
use quorate_env::{Brake, ClusterId, Incarnation, NodeId, Reader, Writer};
use quorate_trace::MessageId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

const MAGIC: u32 = u32::from_le_bytes(*b"QRTP");
const VERSION: u8 = 3;

/// The oldest version that is understood. Later ones begin a connection with the same words, and speak the older side's version after them.
const OLDEST: u8 = 3;

/// The largest frame of a handshake, and of a question.
const HELLO_BYTES_MAX: usize = 4096;

/// The largest answer to a question.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// Bytes of a frame's head: length and checksum.
const HEAD_BYTES: usize = 12;

/// A dialler has this long to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections from peers that may stand or be shaking hands. More are closed at once: a cluster has few nodes.
const CONNECTIONS_MAX: usize = 256;

/// Batches queued for one peer; beyond it they are dropped.
const QUEUED_BATCHES_MAX: usize = 1024;

/// Bytes of frames that have been read and that the lane has not yet taken.
const UNTAKEN_BYTES_MAX: usize = 128 << 20;

/// Lines about what strangers do are logged this often at most, each kind by itself.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Between two attempts to dial.
const REDIAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

const _: () = assert!(wire::FRAME_BYTES_MAX < UNTAKEN_BYTES_MAX);

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

impl Hello {
    /// Who records a trace says which id the connection's first message has there. Whoever does not know of traces reads no further than the incarnation.
    fn encode(self, first: Option<MessageId>) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC);
        w.u8(VERSION);
        for n in [self.cluster.0, self.node.0, self.incarnation.0] {
            w.u64(n);
        }
        if let Some(first) = first {
            w.u64(first.0);
        }
        w.finish()
    }

    fn decode(frame: Bytes) -> Result<(Self, Option<MessageId>), String> {
        let mut r = Reader::new(frame);
        let mut read = || {
            if r.u32("magic")? != MAGIC {
                return Err(r.error("magic"));
            }
            let version = r.u8("version")?;
            let hello = Self {
                cluster: ClusterId(r.u64("cluster")?),
                node: NodeId(r.u64("node")?),
                incarnation: Incarnation(r.u64("incarnation")?),
            };
            let first = if r.remaining() < 8 { None } else { Some(MessageId(r.u64("first message")?)) };
            Ok((version, (hello, first)))
        };
        match read() {
            Ok((OLDEST.., hello)) => Ok(hello),
            Ok((version, _)) => {
                Err(format!("protocol version {version} is not spoken here any more, only {OLDEST} and later ones"))
            }
            Err(e) => Err(e.to_string()),
        }
    }
}

/// What the acceptor says.
#[derive(Debug, PartialEq, Eq)]
enum Welcome {
    Accepted,
    Refused(Refusal),
}

/// Why a dialler is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// Dialler and acceptor are no peers. Either may be where it does not belong.
    Stranger(String),
    /// The dialler is known, with another disk.
    OtherDisk(String),
    /// The cluster has let the dialler go.
    Removed(String),
    /// The dialler is no member that is known here: perhaps not yet.
    NotYet(String),
}

impl Welcome {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(MAGIC);
        w.u8(VERSION);
        match self {
            Self::Accepted => w.u8(0),
            Self::Refused(refusal) => {
                let (verdict, why) = match refusal {
                    Refusal::Stranger(why) => (1, why),
                    Refusal::OtherDisk(why) => (2, why),
                    Refusal::Removed(why) => (3, why),
                    Refusal::NotYet(why) => (4, why),
                };
                w.u8(verdict);
                w.bytes(why.as_bytes());
            }
        }
        w.finish()
    }

    fn decode(frame: Bytes) -> io::Result<Self> {
        let mut r = Reader::new(frame);
        let mut read = || {
            if r.u32("magic")? != MAGIC || r.u8("version")? < OLDEST {
                return Err(r.error("welcome"));
            }
            let verdict = r.u8("verdict")?;
            let mut why = || Ok(String::from_utf8_lossy(&r.bytes("reason")?).into_owned());
            match verdict {
                0 => Ok(Self::Accepted),
                1 => Ok(Self::Refused(Refusal::Stranger(why()?))),
                2 => Ok(Self::Refused(Refusal::OtherDisk(why()?))),
                3 => Ok(Self::Refused(Refusal::Removed(why()?))),
                4 => Ok(Self::Refused(Refusal::NotYet(why()?))),
                _ => Err(r.error("verdict")),
            }
        };
        read().map_err(io::Error::other)
    }
}

/// Who of the peers calls this node a stranger.
struct Strangers {
    table: Arc<MemberTable>,
    refused_by: Mutex<BTreeSet<NodeId>>,
    brake: Brake,
}

impl Strangers {
    fn among(table: Arc<MemberTable>) -> Self {
        Self { table, refused_by: Mutex::default(), brake: Brake::new(LOG_PERIOD) }
    }

    fn accepted_by(&self, peer: NodeId) {
        self.lock().remove(&peer);
    }

    /// Returns whether this node can still be of use: whether a majority may accept it.
    fn refused_by(&self, peer: NodeId) -> bool {
        let mut refused_by = self.lock();
        refused_by.insert(peer);
        let members = self.table.addresses();
        refused_by.retain(|peer| members.contains_key(peer));
        members.len() - refused_by.len() > members.len() / 2
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.refused_by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A peer that is dialled.
struct Dialled {
    addresses: Vec<String>,
    queue: mpsc::Sender<Vec<PeerMessage>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Dialled {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connections to all peers.
pub(crate) struct Peers {
    hello: Hello,
    table: Arc<MemberTable>,
    lane: Sender<LaneInput>,
    strangers: Arc<Strangers>,
    dialled: BTreeMap<NodeId, Dialled>,
    runtime: tokio::runtime::Handle,
    dir: PathBuf,
    name: String,
    recorder: Option<Recorder>,
}

impl Peers {
    /// Dials every member of the table, from within the runtime that the connections live on.
    pub fn connect(
        hello: Hello,
        table: Arc<MemberTable>,
        lane: Sender<LaneInput>,
        dir: PathBuf,
        name: String,
        recorder: Option<Recorder>,
    ) -> Self {
        let strangers = Arc::new(Strangers::among(table.clone()));
        let runtime = tokio::runtime::Handle::current();
        let dialled = BTreeMap::new();
        let mut peers = Self { hello, table, lane, strangers, dialled, runtime, dir, name, recorder };
        peers.adjust();
        peers
    }

    /// The table has changed: whoever is new or has moved is dialled, who is gone is not any more.
    pub fn adjust(&mut self) {
        if self.table.was_removed(self.hello.node) {
            removed_from_cluster(&self.dir, &self.name, self.hello.node);
        }
        let addresses = self.table.addresses();
        self.dialled.retain(|peer, dialled| addresses.get(peer) == Some(&dialled.addresses));
        for (peer, addresses) in addresses {
            if peer == self.hello.node || self.dialled.contains_key(&peer) {
                continue;
            }
            let (queue, batches) = mpsc::channel(QUEUED_BATCHES_MAX);
            let dialler = Dialler {
                hello: self.hello,
                peer,
                addresses: addresses.clone(),
                lane: self.lane.clone(),
                strangers: self.strangers.clone(),
                table: self.table.clone(),
                dir: self.dir.clone(),
                name: self.name.clone(),
                recorder: self.recorder.clone(),
            };
            let task = self.runtime.spawn(dialler.dial(batches));
            self.dialled.insert(peer, Dialled { addresses, queue, task });
        }
    }

    /// Queues messages. What finds its queue full, or its peer unknown, is dropped.
    pub fn send(&self, messages: Vec<(NodeId, PeerMessage)>) {
        let mut by_peer: BTreeMap<NodeId, Vec<PeerMessage>> = BTreeMap::new();
        for (peer, message) in messages {
            by_peer.entry(peer).or_default().push(message);
        }
        for (peer, batch) in by_peer {
            if let Some(dialled) = self.dialled.get(&peer) {
                let _ = dialled.queue.try_send(batch);
            }
        }
    }
}

struct Dialler {
    hello: Hello,
    peer: NodeId,
    addresses: Vec<String>,
    lane: Sender<LaneInput>,
    strangers: Arc<Strangers>,
    table: Arc<MemberTable>,
    dir: PathBuf,
    name: String,
    recorder: Option<Recorder>,
}

impl Dialler {
    async fn dial(self, mut batches: mpsc::Receiver<Vec<PeerMessage>>) {
        let Self { hello, peer, addresses, lane, strangers, table, dir, name, recorder } = self;
        let (mut pause, clock) = (REDIAL.0, Clock::start());
        for address in addresses.iter().cycle() {
            let mut recording = recorder.as_ref().and_then(|recorder| Recording::begin(recorder, peer));
            match open(hello, recording.as_ref().map(|recording| recording.next), address).await {
                Ok((stream, Welcome::Accepted)) => {
                    pause = REDIAL.0;
                    strangers.accepted_by(peer);
                    tracing::info!(%peer, address, "connected");
                    // What was queued while the peer was away is stale.
                    while batches.try_recv().is_ok() {}
                    note(&recorder, || format!("connected to {} at {address}", table.name_of(peer)));
                    let _ = lane.send(LaneInput::Core(Input::PeerUp(peer), None));
                    let end = pump(stream, &mut batches, &mut recording).await;
                    tracing::info!(%peer, address, "connection ended: {end}");
                    note(&recorder, || format!("connection to {} ended: {end}", table.name_of(peer)));
                    let _ = lane.send(LaneInput::Core(Input::PeerDown(peer), None));
                    if batches.is_closed() {
                        return;
                    }
                }
                Ok((_, Welcome::Refused(Refusal::OtherDisk(why)))) => {
                    refused_by_peer(peer, address, &why, hello.incarnation)
                }
                Ok((_, Welcome::Refused(Refusal::Removed(_)))) => removed_from_cluster(&dir, &name, hello.node),
                Ok((_, Welcome::Refused(Refusal::Stranger(why)))) => {
                    if !strangers.refused_by(peer) {
                        refused_by_peer(peer, address, &why, hello.incarnation);
                    }
                    if strangers.brake.pass(clock.now()).is_some() {
                        tracing::error!("who answers at {address} is no peer of this node: {why}");
                    }
                }
                Ok((_, Welcome::Refused(Refusal::NotYet(why)))) => {
                    tracing::info!(%peer, address, "not accepted yet: {why}");
                }
                Err(e) => tracing::debug!(%peer, address, "cannot connect: {e}"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(REDIAL.1),
                // Who starts asks its peers before it takes part, and they can answer only on connections of their own.
                () = table.arrival() => tokio::time::sleep(REDIAL.0).await,
            }
        }
    }
}

/// Asks one question of whoever listens for peers at an address.
pub(crate) async fn ask(address: &str, ask: &Ask) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&frame(&ask.encode())).await?;
    Answer::decode(read_frame(&mut stream, QUESTION_BYTES_MAX).await?).map_err(io::Error::other)
}

/// The same, with patience; none if nothing that can be understood comes back.
pub(crate) async fn ask_within(patience: Duration, address: &str, question: &Ask) -> Option<Answer> {
    match tokio::time::timeout(patience, ask(address, question)).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(e)) => {
            tracing::debug!(address, "no answer: {e}");
            None
        }
        Err(_) => None,
    }
}

/// Answers one question for a node that has no place yet; what else comes is closed.
pub(crate) async fn answer_fresh(mut stream: TcpStream, answer: &Answer) -> io::Result<()> {
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, read_frame(&mut stream, HELLO_BYTES_MAX))
        .await
        .map_err(|_| io::Error::other("no question in time"))??;
    Ask::decode(first).map_err(io::Error::other)?;
    stream.write_all(&frame(&answer.encode())).await
}

/// The messages of one connection that are recorded by who sends them.
struct Recording {
    recorder: Recorder,
    peer: NodeId,
    /// The id of the next message.
    next: MessageId,
}

impl Recording {
    fn begin(recorder: &Recorder, peer: NodeId) -> Option<Self> {
        Some(Self { recorder: recorder.clone(), peer, next: draw_connection().ok()? })
    }

    /// A frame is about to leave.
    fn sent(&mut self, messages: Vec<PeerMessage>, bytes: usize) {
        let count = messages.len() as u64;
        self.recorder.sent(self.peer, self.next.0, messages, bytes);
        self.next.0 = self.next.0.wrapping_add(count);
    }
}

fn note(recorder: &Option<Recorder>, text: impl FnOnce() -> String) {
    if let Some(recorder) = recorder {
        recorder.note(text());
    }
}

async fn open(hello: Hello, first: Option<MessageId>, address: &str) -> io::Result<(TcpStream, Welcome)> {
    let shake = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&frame(&hello.encode(first))).await?;
        let welcome = Welcome::decode(read_frame(&mut stream, HELLO_BYTES_MAX).await?)?;
        Ok((stream, welcome))
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, shake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Sends until the connection or the node ends; says why.
async fn pump(
    stream: TcpStream,
    batches: &mut mpsc::Receiver<Vec<PeerMessage>>,
    recording: &mut Option<Recording>,
) -> String {
    let (mut input, mut output) = stream.into_split();
    let mut gathered = Vec::new();
    let mut byte = [0u8; 1];
    loop {
        tokio::select! {
            read = input.read(&mut byte) => {
                // The acceptor says nothing after its welcome: this is the end of the connection.
                return read.map_or_else(|e| e.to_string(), |_| "closed by the peer".into());
            }
            received = batches.recv_many(&mut gathered, 64) => {
                if received == 0 {
                    return "stopping".into();
                }
                let messages: Vec<PeerMessage> = gathered.drain(..).flatten().collect();
                for messages in wire::frames(messages) {
                    let bytes = frame(&wire::encode_batch(messages.iter()));
                    if let Some(recording) = recording {
                        recording.sent(messages, bytes.len());
                    }
                    if let Err(e) = output.write_all(&bytes).await {
                        return e.to_string();
                    }
                }
            }
        }
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + body.len());
    out.extend_from_slice(&u32::try_from(body.len()).expect("frames are bounded").to_le_bytes());
    out.extend_from_slice(&checksum(0, body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin), bytes_max: usize) -> io::Result<Bytes> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let len = u32::from_le_bytes(head[..4].try_into().expect("four bytes")) as usize;
    let sum = u64::from_le_bytes(head[4..].try_into().expect("eight bytes"));
    if len > bytes_max {
        return Err(io::Error::other(format!("a frame of {len} bytes exceeds the limit of {bytes_max}")));
    }
    // Grow with what really arrives: a length alone reserves nothing.
    let mut body = BytesMut::with_capacity(len.min(64 << 10));
    let mut limited = stream.take(len as u64);
    while body.len() < len {
        if limited.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    if checksum(0, &body) != sum {
        return Err(io::Error::other("a frame does not match its checksum"));
    }
    Ok(body.freeze())
}

/// Accepts peers for as long as the node lives.
pub(crate) async fn accept(
    listener: Arc<TcpListener>,
    gate: Arc<Gate>,
    lane: Sender<LaneInput>,
    recorder: Option<Recorder>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let untaken = Arc::new(Semaphore::new(UNTAKEN_BYTES_MAX));
    let clock = Clock::start();
    let (accepting, crowded, ended) =
        (Brake::new(LOG_PERIOD), Brake::new(LOG_PERIOD), Arc::new(Brake::new(LOG_PERIOD)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // Out of file descriptors, most likely: wait for some to close.
                if let Some(held) = accepting.pass(clock.now()) {
                    tracing::warn!("cannot accept peers: {e} ({held} more were not logged)");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            if let Some(held) = crowded.pass(clock.now()) {
                tracing::warn!(
                    "more than {CONNECTIONS_MAX} peer connections: closed one ({held} more were not logged)"
                );
            }
            continue;
        };
        let (gate, lane, untaken, ended) = (gate.clone(), lane.clone(), untaken.clone(), ended.clone());
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let from = describe(stream.peer_addr().ok());
            if let Err(e) = serve(stream, &gate, &lane, &untaken, recorder).await
                && let Some(held) = ended.pass(clock.now())
            {
                tracing::info!(from, "peer connection ended: {e} ({held} more were not logged)");
            }
            drop(permit);
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    gate: &Gate,
    lane: &Sender<LaneInput>,
    untaken: &Arc<Semaphore>,
    recorder: Option<Recorder>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, read_frame(&mut stream, HELLO_BYTES_MAX))
        .await
        .map_err(|_| io::Error::other("no handshake in time"))??;
    if first.starts_with(&joining::MAGIC.to_le_bytes()) {
        let ask = Ask::decode(first).map_err(io::Error::other)?;
        let answer = gate.answer(&ask).await;
        return stream.write_all(&frame(&answer.encode())).await;
    }
    let hello = Hello::decode(first).map_err(Refusal::Stranger);
    let verdict = hello.and_then(|(hello, first)| judge(gate.hello, hello, &gate.table).map(|()| (hello, first)));
    let (hello, first) = match verdict {
        Ok(hello) => hello,
        Err(refusal) => {
            stream.write_all(&frame(&Welcome::Refused(refusal.clone()).encode())).await?;
            return Err(io::Error::other(format!("refused: {refusal:?}")));
        }
    };
    stream.write_all(&frame(&Welcome::Accepted.encode())).await?;
    gate.table.saw(hello.node, hello.incarnation);
    let result = tokio::select! {
        result = receive(&mut stream, hello.node, lane, untaken, recorder.zip(first)) => result,
        // It dials again, and is told.
        () = gate.table.removal_of(hello.node) => Err(io::Error::other("the cluster has let it go")),
    };
    let _ = lane.send(LaneInput::Core(Input::PeerDown(hello.node), None));
    result
}

fn judge(own: Hello, hello: Hello, members: &MemberTable) -> Result<(), Refusal> {
    if hello.cluster != own.cluster {
        return Err(Refusal::Stranger(format!(
            "this is {}, not {}: check --initial-cluster and the addresses",
            own.cluster, hello.cluster
        )));
    }
    if hello == own {
        return Err(Refusal::NotYet(format!("{} is this node itself", hello.node)));
    }
    if hello.node == own.node {
        return Err(Refusal::Stranger(format!("{} is this node's own id: check --name and the addresses", hello.node)));
    }
    if members.was_removed(hello.node) {
        return Err(Refusal::Removed(format!("{} was removed from {}", hello.node, own.cluster)));
    }
    if !members.contains(hello.node) {
        return Err(Refusal::NotYet(format!("{} is not known to {}", hello.node, own.node)));
    }
    match members.incarnation(hello.node) {
        Some(known) if known != hello.incarnation => Err(Refusal::OtherDisk(format!(
            "{} is known with another disk ({known}): a node that lost its data must come back as a new member, \
             since it no longer knows what it promised",
            hello.node
        ))),
        _ => Ok(()),
    }
}

async fn receive(
    stream: &mut TcpStream,
    from: NodeId,
    lane: &Sender<LaneInput>,
    untaken: &Arc<Semaphore>,
    mut recorded: Option<(Recorder, MessageId)>,
) -> io::Result<()> {
    let mut buffered = tokio::io::BufReader::with_capacity(256 << 10, stream);
    loop {
        let frame = read_frame(&mut buffered, wire::FRAME_BYTES_MAX).await?;
        let bytes = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let permit = untaken.clone().acquire_many_owned(bytes).await.map_err(io::Error::other)?;
        let mut permit = Some(permit);
        let messages = wire::decode_batch(frame).map_err(io::Error::other)?;
        if let Some((recorder, next)) = &mut recorded {
            recorder.delivered(next.0, messages.len());
            next.0 = next.0.wrapping_add(messages.len() as u64);
        }
        for message in messages {
            let input = LaneInput::Core(Input::Peer { from, message }, permit.take());
            lane.send(input).map_err(|_| io::Error::other("stopping"))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_cluster::BootMember;

    #[test]
    fn a_node_gives_up_when_the_rest_is_no_majority() {
        for (members, bearable) in [(2, 0), (3, 1), (4, 1), (5, 2), (7, 3)] {
            let member = |id| BootMember { id: NodeId(id), name: format!("n{id}"), peer_address: "h:1".into() };
            let known: Vec<BootMember> = (0..members).map(member).collect();
            let strangers = Strangers::among(MemberTable::new(&known));
            for peer in 1..members {
                // The same refusal again is one refusal.
                strangers.refused_by(NodeId(peer));
                assert_eq!(strangers.refused_by(NodeId(peer)), peer <= bearable, "{peer} of {members}");
            }
            // Whoever changes its mind counts no more.
            (1..members).for_each(|peer| strangers.accepted_by(NodeId(peer)));
            assert_eq!(strangers.refused_by(NodeId(1)), bearable > 0);
        }
    }

    #[test]
    fn hellos_survive_the_wire_with_and_without_what_ties_traces() {
        let hello = Hello { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(5) };
        for first in [None, Some(MessageId(9_021))] {
            assert_eq!(Hello::decode(hello.encode(first).into()), Ok((hello, first)));
        }
        let (plain, tied) = (hello.encode(None), hello.encode(Some(MessageId(9_021))));
        assert!(tied.starts_with(&plain), "who knows nothing of traces reads what it always read");
    }

    #[test]
    fn welcomes_survive_the_wire() {
        let why = || "why".to_owned();
        let refusals = [Refusal::Stranger, Refusal::OtherDisk, Refusal::Removed, Refusal::NotYet];
        let refusals = refusals.map(|refusal| Welcome::Refused(refusal(why())));
        for welcome in [Welcome::Accepted].into_iter().chain(refusals) {
            assert_eq!(Welcome::decode(welcome.encode().into()).expect("decoded"), welcome);
        }
    }
}

//! What a node does before it starts: it finds out who it is.

use super::{Answer, Ask, Question, answer_fresh};
use crate::clock::Clock;
use crate::disk::{DataDir, DiskError, KnownMembers, draw_incarnation, removal};
use crate::net;
use quorate_cluster::BootMember;
use quorate_env::{Brake, ClusterId, Incarnation, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_millis(50);

/// The longest pause between two rounds.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// One question's patience; longer than that of the one who answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Rounds in which a node that has moved tells so, before it starts all the same.
const ANNOUNCEMENTS_MAX: usize = 5;

/// Lines about why nothing goes on are logged this often.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// What a node was told when it was started.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub data_dir: PathBuf,
    /// Where peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// The cluster's token, hashed.
    pub token: u64,
    /// The first configuration, and the cluster that it makes; `None` if the flags do not say.
    pub first: Option<(ClusterId, Vec<BootMember>)>,
    /// Members of the cluster to join.
    pub join: Vec<String>,
    /// The operator says that this cluster is new: nobody need be asked.
    pub surely_new: bool,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub node: NodeId,
    /// Of its directory, if that is still to be made.
    pub incarnation: Option<Incarnation>,
    /// The first configuration.
    pub first: Vec<BootMember>,
    /// Whom it knows.
    pub known: Vec<BootMember>,
}

/// Why a node has no place.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The operating system refused.
    #[error("cannot draw randomness: {0}")]
    Io(#[from] std::io::Error),
    /// The members said no.
    #[error("{address} refuses this node: {why}")]
    Refused {
        /// Who.
        address: String,
        /// Why.
        why: String,
    },
    /// The cluster has let it go.
    #[error("{}: {why}; choose an empty --data-dir, and --join, to come back as a new member", .dir.display())]
    Removed {
        /// The directory.
        dir: PathBuf,
        /// What was said then.
        why: String,
    },
    /// Neither flags nor directory say which cluster this is.
    #[error("{}: MEMBERS is missing or damaged: give the --initial-cluster that this cluster was first started with", .0.display())]
    MembersUnknown(PathBuf),
    /// The directory is another's.
    #[error(
        "the data directory belongs to node {found} of {cluster}, not to node {wanted}{other_cluster}: choose another --data-dir, or start the \
         node with the --name, --initial-cluster and --initial-cluster-token with which it was made"
    )]
    Foreign {
        /// Whose it is.
        found: String,
        /// Of which cluster.
        cluster: ClusterId,
        /// Who wants it.
        wanted: String,
        /// Of another cluster, if so.
        other_cluster: String,
    },
}

/// Finds out who the node is. Until that is known, the listener answers those that ask the same.
pub async fn settle(wish: &Wish, listener: Option<Arc<TcpListener>>) -> Result<Place, JoinError> {
    if let Some(why) = removal(&wish.data_dir) {
        return Err(JoinError::Removed { dir: wish.data_dir.clone(), why });
    }
    if let Some(identity) = DataDir::peek(&wish.data_dir)? {
        let asked = wish.first.as_ref().map(|(cluster, _)| *cluster).filter(|_| wish.join.is_empty());
        let other_cluster = asked.filter(|cluster| *cluster != identity.cluster);
        if identity.name != wish.name || other_cluster.is_some() {
            return Err(JoinError::Foreign {
                found: format!("{} ({})", identity.name, identity.node),
                cluster: identity.cluster,
                wanted: wish.name.clone(),
                other_cluster: other_cluster.map(|cluster| format!(" of {cluster}")).unwrap_or_default(),
            });
        }
        let members = KnownMembers::read(&wish.data_dir)?.or_else(|| {
            let (_, first) = wish.first.clone().filter(|(cluster, _)| *cluster == identity.cluster)?;
            Some(KnownMembers { token: wish.token, known: first.clone(), first })
        });
        let members = members.ok_or_else(|| JoinError::MembersUnknown(wish.data_dir.clone()))?;
        let (first, mut known) = (members.first, members.known);
        let own = |member: &&BootMember| member.id == identity.node;
        if known.iter().find(own).is_some_and(|own| own.peer_address != wish.peer_address) {
            announce(wish, &known, identity.incarnation, listener).await;
        }
        // Where the flags say that others are, is where they are looked for too.
        let (_, named) = wish.first.clone().unwrap_or_default();
        for member in known.iter_mut() {
            if let Some(named) = named.iter().find(|named| named.id == member.id) {
                member.peer_address.clone_from(&named.peer_address);
            }
        }
        return Ok(Place { cluster: identity.cluster, node: identity.node, incarnation: None, first, known });
    }
    let incarnation = draw_incarnation()?;
    let meanwhile = listener.map(|listener| tokio::spawn(answer_fresh(listener, incarnation)));
    let place = find_place(wish, incarnation).await;
    if let Some(meanwhile) = meanwhile {
        meanwhile.abort();
        // The listener is free when the task has ended.
        let _ = meanwhile.await;
    }
    let place = place?;
    // Before the identity, which says that the directory is complete.
    let (first, known) = (place.first.clone(), place.known.clone());
    KnownMembers { token: wish.token, first, known }.write(&wish.data_dir)?;
    Ok(place)
}

/// Finds a new place for a node whose directory no longer knows what it promised, in place of the one that it had. What is in the
/// directory is put aside. Without other members that is refused: nobody else has what was here.
pub async fn come_back(wish: &Wish, listener: Option<Arc<TcpListener>>, why: DiskError) -> Result<Place, JoinError> {
    let known = KnownMembers::read(&wish.data_dir)?.map(|members| members.known);
    let known = known.or_else(|| wish.first.as_ref().map(|(_, first)| first.clone())).unwrap_or_default();
    let others = known.into_iter().filter(|member| member.name != wish.name);
    let mut join: Vec<String> = others.map(|member| member.peer_address).collect();
    join.extend(wish.join.iter().cloned());
    if join.is_empty() {
        return Err(why.into());
    }
    let aside = DataDir::set_aside(&wish.data_dir)?;
    tracing::error!(
        "{why}: what was here is in {} now, and {} comes back as a new member in its own place",
        aside.display(),
        wish.name
    );
    settle(&Wish { join, ..wish.clone() }, listener).await
}

/// Tells the members that this node is elsewhere now: until they know, they cannot tell it anything. If nobody answers, they may all have
/// moved; then the flags must say where to.
async fn announce(wish: &Wish, known: &[BootMember], incarnation: Incarnation, listener: Option<Arc<TcpListener>>) {
    let meanwhile = listener.map(|listener| tokio::spawn(answer_fresh(listener, incarnation)));
    let ask = question(wish, Question::Join, ClusterId(0), incarnation);
    let others = known.iter().filter(|member| member.name != wish.name).map(|member| member.peer_address.clone());
    let others: Vec<String> = others.collect();
    for _ in 0..ANNOUNCEMENTS_MAX {
        let answers = ask_all(&others, &ask).await;
        if answers.iter().any(|(_, answer)| matches!(answer, Some(Answer::Joined { .. }))) {
            break;
        }
        tracing::warn!("nobody has taken note yet that {} is at {} now", wish.name, wish.peer_address);
        tokio::time::sleep(ROUND * 4).await;
    }
    if let Some(meanwhile) = meanwhile {
        meanwhile.abort();
        let _ = meanwhile.await;
    }
}

async fn find_place(wish: &Wish, incarnation: Incarnation) -> Result<Place, JoinError> {
    if !wish.join.is_empty() {
        return join(wish, &wish.join, incarnation).await;
    }
    let Some((cluster, first)) = &wish.first else {
        return Err(JoinError::MembersUnknown(wish.data_dir.clone()));
    };
    let peers: Vec<String> =
        first.iter().filter(|member| member.name != wish.name).map(|member| member.peer_address.clone()).collect();
    if !wish.surely_new && !peers.is_empty() && look(wish, *cluster, &peers, incarnation).await? == Look::OtherDisk {
        tracing::warn!(
            name = wish.name,
            "the cluster knows this name with another disk: the node comes back as a new member in its place"
        );
        return join(wish, &peers, incarnation).await;
    }
    let own = first.iter().find(|member| member.name == wish.name);
    let Some(own) = own else { return Err(JoinError::MembersUnknown(wish.data_dir.clone())) };
    Ok(Place {
        cluster: *cluster,
        node: own.id,
        incarnation: Some(incarnation),
        first: first.clone(),
        known: first.clone(),
    })
}

/// What the peers of a first configuration know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nobody of that name has ever started.
    New,
    /// Somebody has.
    OtherDisk,
}

/// Asks until it is clear. It may be the cluster's first start, or the disk may have been lost together with others: only an answer
/// from everybody, or from one who knows what a majority knows, tells the two apart.
async fn look(wish: &Wish, cluster: ClusterId, peers: &[String], incarnation: Incarnation) -> Result<Look, JoinError> {
    let ask = question(wish, Question::Look, cluster, incarnation);
    let (mut pause, brake, clock) = (ROUND, Brake::new(LOG_PERIOD), Clock::start());
    let began = clock.now();
    let (mut new, mut strangers) = (BTreeSet::new(), BTreeMap::new());
    loop {
        let mut silent = Vec::new();
        for (address, answer) in ask_all(peers, &ask).await {
            match answer {
                Some(Answer::OtherDisk | Answer::Joined { .. }) => return Ok(Look::OtherDisk),
                Some(Answer::Unknown { certain: true }) => return Ok(Look::New),
                Some(Answer::Fresh(_) | Answer::Unknown { certain: false }) => {
                    strangers.remove(&address);
                    new.insert(address);
                }
                Some(Answer::Refused(why)) => {
                    strangers.insert(address, why);
                }
                Some(Answer::Later(why)) => silent.push(format!("{address}: {why}")),
                None => silent.push(format!("{address} does not answer")),
            }
        }
        // What somebody said once may be true no more when another says it: all in one round.
        let all = std::mem::take(&mut new).len() == peers.len();
        if all {
            return Ok(Look::New);
        }
        // Those that take this node for a stranger leave no majority with it.
        if (peers.len() + 1 - strangers.len()) * 2 <= peers.len() + 1
            && let Some((address, why)) = strangers.pop_first()
        {
            return Err(JoinError::Refused { address, why });
        }
        if clock.now().since(began) > LOG_PERIOD / 5 && brake.pass(clock.now()).is_some() {
            tracing::error!(
                "this directory is empty, and whether the cluster is new must be known before it starts: {}. If it is new and they will \
                 not come, start with --initial-cluster-state new",
                silent.join("; ")
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ROUND_MAX);
    }
}

/// Asks to join until somebody lets this node in.
async fn join(wish: &Wish, addresses: &[String], incarnation: Incarnation) -> Result<Place, JoinError> {
    let ask = question(wish, Question::Join, ClusterId(0), incarnation);
    let (mut pause, brake, clock) = (ROUND, Brake::new(LOG_PERIOD), Clock::start());
    loop {
        let mut said = Vec::new();
        for address in addresses {
            match net::ask_within(ANSWER_TIMEOUT, address, &ask).await {
                Some(Answer::Joined { cluster, node, first, known }) => {
                    return Ok(Place { cluster, node, incarnation: Some(incarnation), first, known });
                }
                Some(Answer::Refused(why)) => return Err(JoinError::Refused { address: address.clone(), why }),
                Some(Answer::Later(why)) => said.push(format!("{address}: {why}")),
                Some(_) => said.push(format!("{address} is no member yet")),
                None => said.push(format!("{address} does not answer")),
            }
        }
        if brake.pass(clock.now()).is_some() {
            tracing::error!("{} is not let in yet: {}", wish.name, said.join("; "));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ROUND_MAX);
    }
}

async fn ask_all(addresses: &[String], ask: &Ask) -> Vec<(String, Option<Answer>)> {
    let mut asking = tokio::task::JoinSet::new();
    for address in addresses {
        let (address, ask) = (address.clone(), ask.clone());
        asking.spawn(async move {
            let answer = net::ask_within(ANSWER_TIMEOUT, &address, &ask).await;
            (address, answer)
        });
    }
    asking.join_all().await
}

fn question(wish: &Wish, question: Question, cluster: ClusterId, incarnation: Incarnation) -> Ask {
    Ask {
        question,
        cluster,
        token: wish.token,
        incarnation,
        name: wish.name.clone(),
        peer_address: wish.peer_address.clone(),
        client_urls: wish.client_urls.clone(),
    }
}

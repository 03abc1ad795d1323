//! Holders of leases: some keep theirs alive, one lets each run out. Each lease has a key whose end everybody who watches can see.

use super::session::Session;
use super::{Notes, Shared};
use quorate_env::Rng;
use quorate_kv::{Command, LeaseId, Op, PutOp, Txn};
use quorate_sim::witness::{Asked, LEASED, Renewal, Told, mark};
use std::sync::Arc;
use std::time::Duration;

/// The shortest time that etcd's clients can ask for is two seconds.
const KEPT_S: u64 = 3;
const ABANDONED_S: u64 = 2;

/// A lease is renewed each third of its time.
const RENEW_EVERY: Duration = Duration::from_millis(KEPT_S * 1000 / 3);

/// Between two abandoned leases.
const ABANDON_EVERY: Duration = Duration::from_millis(300);

/// Asks for a lease and for a key with it; the lease, if both were acknowledged.
async fn grant(session: &mut Session, shared: &Shared, notes: &mut Notes, client: u64, ttl_s: u64) -> Option<LeaseId> {
    let number = shared.number();
    let lease = LeaseId(number as i64);
    let granted = session.ask(number, Asked::Write(Command::LeaseGrant { id: lease, ttl_s })).await?;
    let (was_granted, asked_us) = (matches!(granted.told, Told::Done(_)), granted.began_us);
    notes.operations.push(granted);
    if !was_granted {
        return None;
    }
    notes.renewals.push(Renewal { lease, ttl_s, asked_us });
    let number = shared.number();
    let attach = Op::Put(PutOp { lease, ..PutOp::of(format!("{LEASED}{}", lease.0), "held") });
    let txn = Txn { success: vec![mark(client, number), attach], ..Txn::default() };
    let attached = session.ask(number, Asked::Write(Command::Transact(txn))).await?;
    let was_attached = matches!(attached.told, Told::Done(_));
    notes.operations.push(attached);
    was_attached.then_some(lease)
}

/// Keeps a lease until it is lost, then the next.
pub async fn keep(shared: Arc<Shared>, client: u64, _rng: Rng) -> Notes {
    let mut session = Session::new(Arc::clone(&shared), client as usize);
    let mut notes = Notes::default();
    while !shared.stopped() {
        let Some(lease) = grant(&mut session, &shared, &mut notes, client, KEPT_S).await else {
            tokio::time::sleep(ABANDON_EVERY).await;
            continue;
        };
        while !shared.stopped() {
            tokio::time::sleep(RENEW_EVERY).await;
            let asked_us = shared.now_us();
            match session.renew(lease.0).await {
                Some(true) => notes.renewals.push(Renewal { lease, ttl_s: KEPT_S, asked_us }),
                Some(false) => break,
                None => {}
            }
        }
    }
    notes
}

/// Lets one lease after the other run out.
pub async fn abandon(shared: Arc<Shared>, client: u64, _rng: Rng) -> Notes {
    let mut session = Session::new(Arc::clone(&shared), client as usize);
    let mut notes = Notes::default();
    while !shared.stopped() {
        let _ = grant(&mut session, &shared, &mut notes, client, ABANDONED_S).await;
        tokio::time::sleep(ABANDON_EVERY).await;
    }
    notes
}

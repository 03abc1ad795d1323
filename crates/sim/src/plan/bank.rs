//! A long run: a bank of a thousand accounts over many shards, in which some of everything happens, however long it lasts.
//!
//! The rates follow from the length. In an hour some fault comes by the clock every ten seconds or so, members change every half minute, and shards split until there are forty; in a minute
//! the same happens closer together.

use super::{BankPlan, Plan};
use crate::fault::Fault;
use crate::net::Weather;
use crate::teller::Accounts;
use quorate_env::Rng;

const SECOND_US: u64 = 1_000_000;

/// How long faults last, if nobody says.
const STORM_US: u64 = 60 * SECOND_US;

const ACCOUNTS: u64 = 1_000;
const SHARDS: u64 = 16;

/// With those there are at the beginning, forty: audits go over all of them.
const SPLITS_MAX: usize = 24;

/// Mean times between what happens in a long run: each kind of fault, moves, changes of the members.
const FAULT_US: u64 = 180 * SECOND_US;
const MOVE_US: u64 = 10 * SECOND_US;
const CHURN_US: u64 = 30 * SECOND_US;

/// How long nothing fails in the end.
const CALM_US: u64 = 20 * SECOND_US;

/// How long history is kept at most.
const HISTORY_MAX_MS: u64 = 60_000;

/// At most one node comes in so long, but for some.
const COMER_US: u64 = 5 * SECOND_US;

/// The plan of a seed for so long.
pub(super) fn plan(seed: u64, storm_us: Option<u64>) -> Plan {
    let storm_us = storm_us.unwrap_or(STORM_US);
    let mut rng = Rng::new(seed).split(71);
    let often = |times: u64, at_most_us: u64| (storm_us / times).clamp(SECOND_US / 2, at_most_us);
    let fault_us = often(4, FAULT_US);
    let faults = Fault::ALL.map(|fault| (fault, rng.between(fault_us / 2, fault_us * 3 / 2)));
    let bank = BankPlan {
        accounts: Accounts(ACCOUNTS),
        shards: SHARDS,
        tellers: 6,
        // Each goes over all shards.
        audits_percent: 3,
        split_every_us: Some(often(SPLITS_MAX as u64, u64::MAX)),
        splits_max: SPLITS_MAX,
        replicas: Some(3),
        move_every_us: Some(often(20, MOVE_US)),
        zones: None,
        history_ms: Some((storm_us / 4_000).min(HISTORY_MAX_MS)),
        answers_lost_per_mille: 100,
        wonders_again_us: super::WONDERS_AGAIN_US,
        // All accounts are much to look at.
        look_us: (50_000, 1_000_000),
        locks_per_mille: BankPlan::draw_locks(seed) / 4,
        everywhere: false,
        early_entries: None,
        clock_bound_ms: None,
    };
    Plan {
        watchers: 2,
        storm_us,
        weather: Weather {
            delay_us: (rng.between(50, 500), rng.between(1_000, 5_000)),
            drop_per_mille: rng.between(0, 30),
            duplicate_per_mille: rng.between(0, 50),
            straggler_per_mille: rng.between(0, 20),
            bytes_per_ms: None,
            uneven: false,
        },
        faults: faults.into_iter().collect(),
        churn_every_us: Some(often(10, CHURN_US)),
        comers_max: (storm_us / COMER_US) as usize + 6,
        rot_per_mille: 40,
        damage_per_mille: 50,
        rot_several: true,
        promise_rot_per_mille: 50,
        sync_us: (100, rng.between(1_000, 5_000)),
        flush_us: (1_000, rng.between(10_000, 200_000)),
        think_us: (1_000, 200_000),
        lease_per_mille: 100,
        // All shards of a node are flushed together.
        flush_bytes: 256 << 10,
        unflushed_bytes_max: 1 << 20,
        // Shorter than the calm in the end, when each shard is to be led by whose turn it is.
        prefer_ticks: Rng::new(seed).split(86).between(20, 200) as u32,
        apply_bytes: Rng::new(seed).split(132).between(1, 4 << 10),
        calm_us: CALM_US + if bank.locks_per_mille > 0 { super::LOCKS_CALM_US } else { 0 },
        bank: Some(bank),
        ..Plan::quiet(5, 3)
    }
}

//! Who uses the bank: tellers, who move money, and auditors, who look at all of it. Each asks through a client of its own and writes down what it was told.
//!
//! None of them asks twice by itself: the client does, for as long as the run says. So whatever reaches them as an error is one that a retrying client saw.

use super::ledger::{Audit, Balance, Told, Transfer, Way};
use super::money::{ACCOUNTS, BANK, Row, START, TELLERS, account, counter, entry};
use quorate_client::{
    Client, Error, Freshness, KeyValue, Options, Range, Request, Token, Transacted, Transaction, Tx, Write,
};
use quorate_env::Rng;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Every other client gives a node this long before it asks the next one under the same name, while the first may still be at it.
const HASTE: Duration = Duration::from_secs(1);

/// Between two looks of an auditor, at most.
const REST_MS: u64 = 600;

/// After an error.
const BREATH: Duration = Duration::from_millis(200);

/// How old a read may be that need not be strict.
const AGE: Duration = Duration::from_secs(2);

/// What all have in common.
pub struct Town {
    pub endpoints: Vec<String>,
    pub began: Instant,
    pub stop: AtomicBool,
    /// What is not done within this is an error.
    pub patience: Duration,
}

impl Town {
    pub fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A client with connections of its own, which asks another node first than the one before it does.
    pub fn client(&self, number: usize) -> Result<Client, Error> {
        let mut endpoints = self.endpoints.clone();
        let nodes = endpoints.len();
        endpoints.rotate_left(number % nodes);
        let mut options = Options::default();
        options.deadline = self.patience;
        options.transaction_deadline = self.patience;
        // Never the reason to give up: the deadline is.
        options.rounds = u32::MAX;
        options.transaction_tries = u32::MAX;
        if number % 2 == 1 {
            options.answer = HASTE;
        }
        Client::with(endpoints, options)
    }
}

/// What one of them wrote down.
#[derive(Default)]
pub struct Notes {
    pub transfers: Vec<Transfer>,
    pub audits: Vec<Audit>,
    /// Errors, and when.
    pub errors: Vec<String>,
    /// What servers called tries whose outcome is unknown.
    pub unknown: Vec<(usize, String)>,
    /// The longest that anything took that was done.
    pub slowest: Duration,
}

impl Notes {
    fn error(&mut self, us: u64, who: &str, error: &dyn std::fmt::Display) {
        self.errors.push(format!("{:.1} s, {who}: {error}", us as f64 / 1e6));
    }
}

async fn number(tx: &Tx, key: &str) -> Result<u64, Error> {
    let value = tx.get(BANK, key).await?;
    let said = value.as_ref().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    said.ok_or_else(|| Error::Misuse(format!("{key} holds {value:?}")))
}

/// Moves money, if there is enough; whether there was.
async fn transfer(bank: &Client, teller: usize, n: u64, row: Row) -> Result<bool, Error> {
    let step = async |tx: Tx| {
        let (from, to, counter) = (account(row.from), account(row.to), counter(teller));
        let (has, gets) = (number(&tx, &from).await?, number(&tx, &to).await?);
        // It is read, so one that is still under way when the next is done does not happen any more.
        number(&tx, &counter).await?;
        let Some(left) = has.checked_sub(row.amount) else { return Ok(false) };
        tx.put(BANK, from, left.to_string());
        tx.put(BANK, to, (gets + row.amount).to_string());
        tx.put(BANK, counter, n.to_string());
        tx.put(BANK, entry(teller, n), row.said());
        Ok(true)
    };
    bank.transaction(step).await
}

/// Moves money until it is told to stop.
pub async fn teller(town: Arc<Town>, bank: Client, teller: usize, mut rng: Rng) -> Notes {
    let mut notes = Notes::default();
    let mut n = 0;
    while !town.stopped() {
        n += 1;
        let row = Row::draw(&mut rng);
        let (began_us, began) = (town.now_us(), Instant::now());
        let answer = transfer(&bank, teller, n, row).await;
        let took = began.elapsed();
        let told = match &answer {
            Ok(true) => Told::Done,
            Ok(false) => Told::Refused,
            Err(Error::Unknown { id, .. }) => {
                notes.unknown.extend(id.clone().map(|id| (notes.transfers.len(), id)));
                Told::Unknown
            }
            // Whatever it was, nothing was written.
            Err(_) => Told::Refused,
        };
        notes.slowest = notes.slowest.max(took);
        notes.transfers.push(Transfer { teller, n, row, began_us, ended_us: town.now_us(), told });
        if let Err(error) = &answer {
            notes.error(town.now_us(), &format!("teller {teller}, transfer {n} after {took:?}"), error);
            tokio::time::sleep(BREATH).await;
        }
    }
    notes
}

/// Gives every account what it begins with, and every teller a counter.
pub async fn open(bank: &Client) -> Result<(), Error> {
    let accounts = (0..ACCOUNTS).map(|n| Write::put(account(n), START.to_string()));
    let counters = (0..TELLERS).map(|teller| Write::put(counter(teller), "0"));
    let open = accounts.chain(counters).fold(Transaction::new(), |open, write| open.write(BANK, &write));
    bank.transact(&open, None).await.map(drop)
}

/// All accounts; an error if one is missing or holds no number.
fn balances(found: &[KeyValue]) -> Result<Vec<Balance>, Error> {
    let one = |(n, kv): (usize, &KeyValue)| {
        let holds = kv.text().filter(|_| *kv.key.0 == *account(n).as_bytes()).and_then(|text| text.parse().ok());
        let holds = holds.ok_or_else(|| Error::Misuse(format!("{kv:?} in the place of account {n}")))?;
        Ok(Balance { holds, version: kv.version })
    };
    found.iter().enumerate().map(one).collect()
}

fn counters(found: &[KeyValue]) -> Result<Vec<u64>, Error> {
    let numbers: Vec<u64> = found.iter().filter_map(|kv| kv.text()?.parse().ok()).collect();
    if numbers.len() == TELLERS { Ok(numbers) } else { Err(Error::Misuse(format!("counters: {found:?}"))) }
}

/// All accounts and counters, at one moment before the answer.
pub async fn look_at_all(bank: &Client) -> Result<(Vec<Balance>, Vec<u64>), Error> {
    let look = Transaction::new().look(BANK, &Range::prefix("a/"), 0).look(BANK, &Range::prefix("c/"), 0);
    // Without a name, as what only reads: an answer to the same name once more has no reads.
    let said = bank.ask(&Request::post("/v1/tx", json!(look))).await?;
    let strange = |why: &dyn std::fmt::Display| Error::Misuse(format!("a read of everything: {why}"));
    let Transacted { reads, .. } = serde_json::from_value(said).map_err(|e| strange(&e))?;
    let [accounts, tellers] = &reads[..] else {
        return Err(strange(&format!("{} answers where two were asked for", reads.len())));
    };
    Ok((balances(&accounts.kvs)?, counters(&tellers.kvs)?))
}

/// The counters, as fresh as is asked for, and what the answer stands for.
async fn look_at_counters(bank: &Client, freshness: &Freshness) -> Result<(Vec<u64>, Token), Error> {
    let body = json!({ "read": [{ "keyspace": BANK, "prefix": "c/" }], "freshness": freshness.to_string() });
    let said = bank.ask(&Request::post("/v1/tx", body)).await?;
    let strange = |why: &str| Error::Misuse(format!("a read of the counters: {why}"));
    let seen: Transacted = serde_json::from_value(said).map_err(|e| strange(&e.to_string()))?;
    let found = seen.reads.first().ok_or_else(|| strange("no answer"))?;
    Ok((counters(&found.kvs)?, seen.token.ok_or_else(|| strange("no token"))?))
}

/// All accounts and counters at the moment of a token, page by page.
async fn look_at(bank: &Client, token: Token) -> Result<(Vec<Balance>, Vec<u64>), Error> {
    let at = Freshness::At(token);
    let scan = |prefix: &str| bank.scan(BANK, &Range::prefix(prefix), 200).as_fresh_as(&at).all();
    Ok((balances(&scan("a/").await?)?, counters(&scan("c/").await?)?))
}

/// Looks at all the money until it is told to stop: an even one strictly, an odd one at moments.
pub async fn auditor(town: Arc<Town>, bank: Client, auditor: usize, mut rng: Rng) -> Notes {
    let mut notes = Notes::default();
    while !town.stopped() {
        let began = Instant::now();
        let looked = match auditor % 2 {
            0 => strictly(&town, &bank, auditor).await,
            _ => at_a_moment(&town, &bank, auditor, rng.chance(500)).await,
        };
        match looked {
            Ok(audits) => {
                notes.slowest = notes.slowest.max(began.elapsed());
                notes.audits.extend(audits);
            }
            Err(error) => {
                let who = format!("auditor {auditor} after {:?}", began.elapsed());
                notes.error(town.now_us(), &who, &error);
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.below(REST_MS))).await;
    }
    notes
}

async fn strictly(town: &Town, bank: &Client, auditor: usize) -> Result<Vec<Audit>, Error> {
    let began_us = town.now_us();
    let (balances, counters) = look_at_all(bank).await?;
    Ok(vec![Audit { auditor, way: Way::Strict, began_us, ended_us: town.now_us(), balances, counters }])
}

/// The moment is that of an answer: of a strict read, or of one that may be a little old.
async fn at_a_moment(town: &Town, bank: &Client, auditor: usize, old: bool) -> Result<Vec<Audit>, Error> {
    let freshness = if old { Freshness::Within(AGE) } else { Freshness::Strict };
    let began_us = town.now_us();
    let (told, token) = look_at_counters(bank, &freshness).await?;
    let read_us = town.now_us();
    let (balances, counters) = look_at(bank, token).await?;
    let way = Way::At { told: told.clone() };
    let mut audits = vec![Audit { auditor, way, began_us: read_us, ended_us: town.now_us(), balances, counters }];
    if old {
        let way = Way::Within { us: AGE.as_micros() as u64 };
        audits.push(Audit { auditor, way, began_us, ended_us: read_us, balances: Vec::new(), counters: told });
    }
    Ok(audits)
}

//! Moves money between accounts that may be in different shards, from several tasks at once, and counts it.
//!
//! ```console
//! $ cargo run -- up --nodes 3
//! $ cargo run -p quorate-client --example transfer -- 127.0.0.1:2379
//! ```

use quorate_client::{Client, Error, Kind, Range, Reason};

const TASKS: usize = 4;
const TRANSFERS: usize = 25;
const START: i64 = 100;

/// Moves money, if there is enough; returns whether there was.
async fn transfer(bank: &Client, from: &str, to: &str, amount: i64) -> Result<bool, Error> {
    bank.transaction(|tx| async move {
        let number = |value: Option<bytes::Bytes>| {
            let text = value.and_then(|value| String::from_utf8(value.into()).ok());
            text.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default()
        };
        let (has, gets) = (number(tx.get("bank", from).await?), number(tx.get("bank", to).await?));
        if has < amount {
            return Ok(false);
        }
        tx.put("bank", from, (has - amount).to_string());
        tx.put("bank", to, (gets + amount).to_string());
        Ok(true)
    })
    .await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    let endpoints = if endpoints.is_empty() { vec!["127.0.0.1:2379".into()] } else { endpoints };
    let bank = Client::new(endpoints)?;
    match bank.create_keyspace("bank", Kind::Ranged, &["b".into()], None).await {
        Ok(_) => {}
        Err(Error::Refused { reason: Reason::KeyspaceExists, .. }) => {}
        Err(error) => return Err(error),
    }
    for name in ["alice", "bob"] {
        bank.put("bank", name, START.to_string()).await?;
    }
    let tasks = (0..TASKS).map(|task| {
        let bank = bank.clone();
        tokio::spawn(async move {
            let (from, to) = if task % 2 == 0 { ("alice", "bob") } else { ("bob", "alice") };
            for amount in 0..TRANSFERS {
                transfer(&bank, from, to, amount as i64 % 9).await?;
            }
            Ok::<_, Error>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(|e| Error::Misuse(format!("a task ended early: {e}")))??;
    }
    let mut total = 0;
    for account in bank.scan("bank", &Range::All, 100).all().await? {
        let amount = account.text().unwrap_or_default();
        println!("{}\t{amount}", String::from_utf8_lossy(&account.key.0));
        total += amount.parse::<i64>().unwrap_or_default();
    }
    println!("total\t{total} of {}", 2 * START);
    Ok(())
}

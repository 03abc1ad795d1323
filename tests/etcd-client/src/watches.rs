//! Watches: what happens, what happened, and how they end.

use crate::{Outcome, same};
use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream};

pub async fn check(client: &mut Client) -> Outcome {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("watched/", Some(options)).await?;
    let id = opened(&mut stream).await?;
    let begin = client.put("watched/a", "1", None).await?.header().ok_or("no header")?.revision();
    client.put("elsewhere", "1", None).await?;
    client.put("watched/a", "2", None).await?;
    client.delete("watched/a", None).await?;
    let expected: [(EventType, &[u8], Option<&[u8]>); 3] =
        [(EventType::Put, b"1", None), (EventType::Put, b"2", Some(b"1")), (EventType::Delete, b"", Some(b"2"))];
    told(&mut stream, &expected).await?;
    stream.cancel(id).await?;
    let ended = next(&mut stream).await?;
    same!((ended.watch_id(), ended.canceled()), (id, true));

    // The same again, from history.
    let options = WatchOptions::new().with_prefix().with_prev_key().with_start_revision(begin);
    let mut stream = client.watch("watched/", Some(options)).await?;
    opened(&mut stream).await?;
    told(&mut stream, &expected).await?;
    stream.request_progress().await?;
    same!(next(&mut stream).await?.events().len(), 0);

    // And from where there is no history any more.
    let options = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch("key", Some(options)).await?;
    opened(&mut stream).await?;
    let ended = next(&mut stream).await?;
    same!((ended.canceled(), ended.compact_revision() > 1), (true, true));
    Ok(())
}

async fn next(stream: &mut WatchStream) -> Result<WatchResponse, Box<dyn std::error::Error>> {
    let message = tokio::time::timeout(crate::TIMEOUT, stream.message()).await;
    message.map_err(|_| "nothing came in time")??.ok_or_else(|| "the watch stream ended".into())
}

/// Waits until a watch stands and returns its id.
async fn opened(stream: &mut WatchStream) -> Result<i64, Box<dyn std::error::Error>> {
    let answer = next(stream).await?;
    if answer.created() && !answer.canceled() {
        Ok(answer.watch_id())
    } else {
        Err(format!("a watch was not opened: {answer:?}").into())
    }
}

/// The next events are these: what happened, the value, the value before.
async fn told(stream: &mut WatchStream, expected: &[(EventType, &[u8], Option<&[u8]>)]) -> Outcome {
    let mut told = 0;
    while told < expected.len() {
        for event in next(stream).await?.events() {
            let (value, before) = (event.kv().map(|kv| kv.value()), event.prev_kv().map(|kv| kv.value()));
            let (kind, expected_value, expected_before) = expected.get(told).ok_or("more events than changes")?;
            same!((event.event_type(), value, before), (*kind, Some(*expected_value), *expected_before));
            told += 1;
        }
    }
    Ok(())
}

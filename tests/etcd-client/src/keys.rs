//! Reads, writes, transactions, compaction.

use crate::{Outcome, refused, same};
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse,
};

pub async fn check(client: &mut Client) -> Outcome {
    let first = one_key(client).await?;
    ranges(client).await?;
    transactions(client).await?;
    history(client, first).await
}

/// Returns the revision at which the key had its first value.
async fn one_key(client: &mut Client) -> Result<i64, Box<dyn std::error::Error>> {
    let answer = client.put("key", "one", None).await?;
    let first = answer.header().ok_or("no header")?.revision();
    let answer = client.put("key", "two", Some(PutOptions::new().with_prev_key())).await?;
    if answer.prev_key().map(|kv| kv.value()) != Some(b"one") {
        return Err("a put does not return what was there".into());
    }
    let answer = client.get("key", None).await?;
    match answer.kvs() {
        [kv] if kv.value() == b"two" && kv.version() == 2 && kv.create_revision() == first => Ok(first),
        other => Err(format!("{other:?}").into()),
    }
}

async fn ranges(client: &mut Client) -> Outcome {
    for (key, value) in [("range/a", "3"), ("range/b", "2"), ("range/c", "1")] {
        client.put(key, value, None).await?;
    }
    let options = GetOptions::new().with_prefix().with_limit(2).with_sort(SortTarget::Value, SortOrder::Ascend);
    let answer = client.get("range/", Some(options)).await?;
    let found: Vec<_> = answer.kvs().iter().map(|kv| kv.key_str().unwrap_or("not text")).collect();
    same!(found, ["range/c", "range/b"]);
    same!((answer.count(), answer.more()), (3, true));
    let answer = client.get("range/", Some(GetOptions::new().with_prefix().with_count_only())).await?;
    same!((answer.count(), answer.kvs().len()), (3, 0));
    let options = DeleteOptions::new().with_range("range/c").with_prev_key();
    let answer = client.delete("range/a", Some(options)).await?;
    same!((answer.deleted(), answer.prev_kvs().len()), (2, 2));
    let answer = client.delete("range/", Some(DeleteOptions::new().with_prefix())).await?;
    same!(answer.deleted(), 1);
    refused(client.put("", "value", None).await, "etcdserver: key is not provided")
}

async fn transactions(client: &mut Client) -> Outcome {
    let swap = |from: &'static str, to: &'static str| {
        let nested = Txn::new().and_then([TxnOp::get("lock", None)]);
        Txn::new()
            .when([Compare::value("lock", CompareOp::Equal, from)])
            .and_then([TxnOp::put("lock", to, None), TxnOp::txn(nested)])
            .or_else([TxnOp::get("lock", None)])
    };
    client.put("lock", "free", None).await?;
    let taken = client.txn(swap("free", "mine")).await?;
    same!(taken.succeeded(), true);
    match &taken.op_responses()[..] {
        [TxnOpResponse::Put(_), TxnOpResponse::Txn(nested)] => match &nested.op_responses()[..] {
            [TxnOpResponse::Get(get)] => same!(get.kvs()[0].value(), b"mine"),
            other => return Err(format!("{other:?}").into()),
        },
        other => return Err(format!("{other:?}").into()),
    }
    let refused = client.txn(swap("free", "yours")).await?;
    same!(refused.succeeded(), false);
    match &refused.op_responses()[..] {
        [TxnOpResponse::Get(get)] => same!(get.kvs()[0].value(), b"mine"),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

async fn history(client: &mut Client, first: i64) -> Outcome {
    let then = || Some(GetOptions::new().with_revision(first));
    let answer = client.get("key", then()).await?;
    same!(answer.kvs()[0].value(), b"one");
    let now = answer.header().ok_or("no header")?.revision();
    let future = Some(GetOptions::new().with_revision(now + 100));
    refused(client.get("key", future).await, "etcdserver: mvcc: required revision is a future revision")?;
    client.compact(first + 1, Some(CompactionOptions::new().with_physical())).await?;
    refused(client.get("key", then()).await, "etcdserver: mvcc: required revision has been compacted")
}

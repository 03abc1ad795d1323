//! Every rule that a check may find broken, in a sentence for whoever looks at the picture of it.

/// What a rule demands; a rule of another program is not known here.
#[must_use]
pub fn explain(rule: &str) -> Option<&'static str> {
    RULES.iter().find(|(name, _)| *name == rule).map(|(_, why)| *why)
}

/// In the order of a write's way: log, disk, state, answer, reads, watches, leases, the end.
const RULES: &[(&str, &str)] = &[
    (
        "election safety",
        "A shard has at most one leader in a term. With two, each could commit another entry at the same place.",
    ),
    (
        "leader completeness",
        "Who becomes leader has every committed entry in its log. A leader without one would overwrite it on the others.",
    ),
    (
        "state machine safety",
        "No two nodes apply different entries at the same index of a shard, and nobody applies what nobody wrote.",
    ),
    (
        "one vote in a term",
        "A replica votes for one candidate in a term, also across a restart. With two votes, two candidates could win.",
    ),
    (
        "a leader has the votes of a quorum",
        "Who leads is a voter of its group, and a majority of the voters, of both sets while the group is on its way from one to another, has voted for it.",
    ),
    (
        "members are what the log says",
        "Each replica goes by the members that the committed log says at the entry that it has applied. If two went by different ones, two majorities might not meet.",
    ),
    (
        "who is promoted has the log",
        "A replica is given its vote when it holds about all that is committed. Otherwise the group would wait for it, or trust in copies that are not there.",
    ),
    (
        "who goes leaves the system keyspace last",
        "A node learns from the system keyspace that it is to go. If it left that first, it could lead another group for ever and not know.",
    ),
    (
        "members are what was asked for",
        "Once all faults have ended, who was added or came back votes, and who was removed is gone.",
    ),
    (
        "nothing panics",
        "An assertion inside a node failed: what it believed is not so. A server's process ends there, before it does more harm.",
    ),
    (
        "what is answered as not done has no effect",
        "An answer that says that nothing happened must be true for ever: the client may do something else instead.",
    ),
    ("terms do not go back", "A node's term only grows. One that goes back could vote twice in the same election."),
    ("applied does not go back", "A running replica never forgets what it has applied: its readers have seen it."),
    (
        "committed is durable on a quorum",
        "When any node applies an entry, the disks of a majority have already said that they hold it. Otherwise a power cut can take back what a client was promised.",
    ),
    (
        "snapshots hold what is committed",
        "A snapshot that replaces a log covers committed entries only. Anything more could still have been undone.",
    ),
    (
        "equal state at equal index",
        "Two replicas that have applied the same entries hold the same data, sessions and leases, bit for bit.",
    ),
    (
        "replicas agree with themselves and each other",
        "A replica that sees its own state contradict itself, or a peer's hash at the same index, stops. Here one had to.",
    ),
    ("durable entries survive", "What the disk called durable is still there after a crash."),
    (
        "promises are remembered",
        "A node that gave its vote, or acknowledged an entry, in a term never comes back in an earlier one. It could vote again and elect a second leader.",
    ),
    ("a node starts again", "Whatever a crash leaves on the disk, the node can start from it."),
    ("the store flushes", "The store writes its rows to disk without an error."),
    ("frames can be read", "What one node encodes, another can decode."),
    ("entries can be read", "What is committed in the log can be decoded by every replica."),
    ("views can be read", "A view that a replica hands out for a read or a watch can be read."),
    ("answers fit", "An answer is of the kind that the question asks for."),
    (
        "acknowledged is committed",
        "An operation that a client was told is done is in the committed log. If it is not, an acknowledged write is lost.",
    ),
    (
        "applied at most once",
        "A command takes effect once, however often it was sent. The session table recognises the copies.",
    ),
    (
        "commit order respects real time",
        "An operation that began after another was complete stands behind it in the log. This, with the next rules, is linearizability.",
    ),
    (
        "answers are the model's",
        "A command is answered with what an independent, much simpler state machine answers when it replays the same log.",
    ),
    ("revisions are the model's", "An answer names the revision at which the command took effect."),
    ("reads are answered", "A read is answered with data, or refused for a reason that is true."),
    ("reads do not see the future", "No read sees what is not committed."),
    (
        "linearizable reads are not stale",
        "A linearizable read sees every operation that was complete before it began, whichever node it asks.",
    ),
    ("reads are the model's", "A read returns what the independent model holds at the same revision."),
    ("only the compacted is refused", "History is refused only where a compaction has really removed it."),
    (
        "watches resume where they were",
        "A watch that falls behind continues with the next revision that it has not seen.",
    ),
    (
        "watch events are complete, ordered and unique",
        "A watch sees every change of its keys, in order, once: also across crashes, leaders and nodes.",
    ),
    (
        "watch notices are atomic per revision",
        "The changes of one transaction reach a watch together: a notice never ends in the middle of a revision.",
    ),
    (
        "progress is not ahead of events",
        "When a watch is told that it has seen everything up to a revision, it has. Otherwise it would resume behind a gap.",
    ),
    (
        "leases are never early",
        "A lease lasts at least its time from when its last renewal was asked for, less what clocks may drift apart. Its holder may still believe in it.",
    ),
    ("leases are not lost", "A lease that was granted and has not run out can be renewed."),
    ("leases end", "When nobody renews them, all leases run out and their keys go."),
    ("every node serves again", "Once all faults have ended, every node completes a write for a client."),
    (
        "who sleeps misses its leader",
        "A group that nobody asks for anything sleeps, but its members notice when their leader's node is gone: whoever asks next shall not have to wait for that.",
    ),
    (
        "voters take turns at leading",
        "Each shard that lives on some nodes has one among its voters that is to lead it, so that none leads all. Once all faults have ended, it does.",
    ),
    (
        "messages do not multiply",
        "An answer that comes twice is not followed by two questions: what the network doubles must die out, or the cluster drowns in it.",
    ),
    (
        "nothing is lost without a fault",
        "What a node finds missing on its disk, some disk has lost. If none has, the node forgot to make it durable.",
    ),
    ("no request hangs", "Every request is answered or given up in bounded time."),
    ("every client gets served", "Over the whole run, every client completes something."),
    ("replicas catch up", "Once all faults have ended, every replica reaches the end of the log."),
    (
        "transactions are strictly serializable",
        "There is one order of all transactions, over all shards, that explains what everybody saw, and in which whoever began after another was answered comes after it.",
    ),
    (
        "all of a transaction or nothing",
        "A transaction writes in all of its shards or in none, whatever becomes of the node that carries it through.",
    ),
    (
        "money is conserved",
        "Transfers move money between accounts on different shards. Whoever sees all accounts at one moment sees all of the money.",
    ),
    (
        "reads see what was committed",
        "A value that somebody saw is among the versions of its key: nothing is read that was later undone.",
    ),
    (
        "timestamps ascend",
        "What replaces a version has no earlier timestamp than that, and what a client asked to come after a token has a later one, whatever the nodes' clocks say.",
    ),
    (
        "a transaction happens at one moment",
        "What one transaction wrote has one timestamp in all shards, and that is what its client was told.",
    ),
    (
        "a moment is seen as it was",
        "A read of a timestamp sees of each key the last version that is not younger, in all shards alike, whenever and from whichever replica it is read.",
    ),
    (
        "a token's holder sees what it stands for",
        "A read after a token sees everything that had happened by then, or something newer: clients find again what they, or whoever handed them the token, saw and wrote.",
    ),
    ("a token stands for all that was seen", "Nothing that a read saw is younger than the token that came with it."),
    (
        "no read is staler than it may be",
        "A read within an age sees all that was acknowledged longer ago than that, on nodes whose clocks run as fast as time does.",
    ),
    (
        "acknowledged is durable on all voters",
        "Where a keyspace is replicated by all, whoever is told that a write is done can lose all nodes but any one of its shards' voters: it is on the disk of each.",
    ),
    (
        "told early is on the leader's disk",
        "Where a leader's disk is enough, whoever is told that a write is done finds it there: no client is told of what is only in a leader's memory.",
    ),
    (
        "no more is at risk than may be",
        "Where a leader's disk is enough, no leader tells clients of more entries than it may that no majority has: so many are lost with it at most.",
    ),
    (
        "what is lost is reported",
        "Where a leader's disk is enough, it is written down how many answers were lost with leaders: never fewer than were, but for those of which only a node knew that failed before it could write them down.",
    ),
    (
        "who votes has what was acknowledged",
        "Where a keyspace is replicated by all, nobody gets a vote who lacks what clients were told of: else it would not be on all voters' disks any more.",
    ),
    (
        "timestamps are in the order of what was done",
        "Where writers wait for clocks, and clocks keep their bound, what began after something was acknowledged has a later timestamp, in whichever shards, and whoever did it.",
    ),
    (
        "a clock's now sees what was acknowledged",
        "Where writers wait for clocks, whoever reads the moment that its own clock says is now sees all that was acknowledged before, if its clock keeps the bound, too.",
    ),
    ("nobody else writes", "Every version of a key was asked for by a client."),
    ("the level is what all members know", "Nobody is asked for what its release does not know."),
    (
        "the level rises when all know more",
        "When the last node is upgraded, the cluster can do what the newer release can.",
    ),
    ("what was decided stays decided", "Whoever asks what became of a transaction is told the same each time."),
    (
        "transactions end",
        "Once all faults have ended, no lock is left of a transaction whose coordinator is gone: nobody waits for it for ever.",
    ),
    (
        "offsets are given once, without a gap",
        "The records of a log have the offsets 0, 1, 2 and so on, in the order in which they were decided: none is left out when something is aborted, and none is given again.",
    ),
    ("what is appended is there once", "A record is at one place of one log, however often its append was sent."),
    (
        "what is appended is where it was told",
        "The records of one append are next to each other, from the offset on that its client was told.",
    ),
    ("offsets follow real time", "What was appended after something had been acknowledged is behind it."),
    (
        "a fetch leaves nothing out",
        "A fetch tells the records from the offset on that it was asked for, one after the other.",
    ),
    (
        "what a fetch has seen stays",
        "A record that somebody has fetched is at that offset for ever: what is not yet decided, or not yet durable, is not told.",
    ),
    ("a fetch sees what was acknowledged", "A fetch knows of every record that was acknowledged before it began."),
    ("what was cut off stays so", "What was cut off a log does not come back, whichever replica leads."),
    (
        "nothing is cut off that is to be kept",
        "A log that keeps everything is cut off where somebody asked for it, and not further.",
    ),
    (
        "a log keeps what it is to",
        "A log knows how many bytes it has, and in the end one that is to keep some has no more than those.",
    ),
    (
        "what is cut off goes, and nothing else",
        "In the end the rows of all that was cut off are gone, and those of all that was not are there.",
    ),
    (
        "a reservation is lost for a reason",
        "What a transaction has reserved it has until somebody older wants it, its time is up, or it is given up: not because a shard was split, moved or crashed.",
    ),
    (
        "what is reserved nobody else writes",
        "What a transaction saw when it reserved a key is what its own write replaces: nobody has written the key in between.",
    ),
    (
        "reservations end",
        "Once nobody asks for anything, nothing is reserved any more: whoever has gone keeps nobody from writing.",
    ),
    (
        "a shard is split once",
        "All replicas of a shard give the same keys to the same child, at the same entry: what it begins with is the same everywhere.",
    ),
    (
        "a shard rests before it is split by its load",
        "Whoever was just split, or split off, has another load than before, and rows on their way: it is left alone for a while, however much it has to do.",
    ),
    (
        "history is whole",
        "Whatever was overwritten and is not yet compacted can still be read, in the shard that now has the key: none of it is left out, and none has changed.",
    ),
    (
        "history lasts as long as it is to",
        "A moment is called forgotten only when a shard's own time has gone on for as long as its keyspace keeps history.",
    ),
    (
        "a name is given once",
        "A command's name is its session's and a number. What is sent again has the same name, and nothing else has it: otherwise one would be taken for the other's retry.",
    ),
    (
        "members stay while a shard is split",
        "A child begins with its parent's members, and each of them makes it from the parent's rows: so none of them comes or goes before the child is weaned.",
    ),
    (
        "a child is weaned when a majority has it",
        "A shard keeps what it has given away until the child's own group has committed something: then a majority has it, and no single disk is all there is.",
    ),
    (
        "replicas go when nobody wants them",
        "A node lets go of a replica only when its shard is to live elsewhere, as far as the node has read.",
    ),
    (
        "who is replaced goes last",
        "A node that another is to replace is told to go only when that one votes everywhere and no shard lives on the first any more: no group has fewer replicas meanwhile.",
    ),
    (
        "shards live where they are to",
        "In the end each shard has its replicas on the nodes that it is to live on, they vote, its leader has said so, and no other node has one.",
    ),
    (
        "each key has one shard",
        "In the end the shards' own ranges are those of the shard map: no key has two owners, and none has no owner.",
    ),
    (
        "keyspaces are what was asked for",
        "Every node knows the keyspaces that were made, and has a replica of each of their shards.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Rules that the sources name: the literal after `rule:`, and the last one before the closure of a `demand(`.
    fn named(source: &str, rules: &mut BTreeSet<String>) {
        let code = source.split("#[cfg(test)]").next().expect("a first part");
        let literal = |text: &str| text.split('"').nth(1).map(str::to_owned);
        rules.extend(code.split("rule: ").skip(1).filter(|rest| rest.starts_with('"')).filter_map(literal));
        for call in code.split("demand(").skip(1) {
            let before_closure = call.split("||").find(|part| part.contains('"')).unwrap_or_default();
            rules.extend(before_closure.rsplit('"').nth(1).map(str::to_owned));
        }
    }

    #[test]
    fn every_rule_has_a_sentence_and_every_sentence_a_rule() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut rules = BTreeSet::new();
        let folders = [src.join("driver"), src.join("checks")];
        let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
        let files = files.map(|file| file.expect("a file").path()).chain([src.join("driver.rs")]);
        for file in files {
            named(&std::fs::read_to_string(file).expect("a source"), &mut rules);
        }
        let explained: BTreeSet<String> = RULES.iter().map(|(rule, _)| String::from(*rule)).collect();
        assert_eq!(rules, explained);
        assert!(RULES.iter().all(|(_, why)| why.ends_with('.')));
    }
}

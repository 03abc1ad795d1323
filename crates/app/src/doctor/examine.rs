//! What a cluster survives: a pure function of who its members are, where shards live, and who answers.
//!
//! ```text
//!   members ──────────────> one group: the system keyspace, and all that has a replica on every member
//!   shards of keyspaces ──> a group each: those who vote there
//!   each group ───────────> serves now?  without any one node?  without any one zone?
//! ```
//!
//! A keyspace survives what all its shards survive. Where a shard moves, those who vote now are what counts, not those who will.

use super::group::{Group, Voter, names};
use quorate_client::{Keyspace, Node, Replication, Shard};
use serde::Serialize;
use std::collections::BTreeSet;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Worth knowing.
    Hint,
    /// One failure more would be one too many, or somebody has failed already.
    Risk,
    /// Unavailable now.
    Down,
}

/// One thing that is not as it could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub weight: Weight,
    /// None is the cluster itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u64>,
    pub wrong: String,
    #[serde(rename = "do")]
    pub advice: String,
}

/// Whether a loss is survived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "survives", rename_all = "snake_case")]
pub enum Verdict {
    Yes,
    No {
        because: String,
    },
    /// No node says a zone.
    NoZones,
}

impl Verdict {
    fn of(refuted: Option<String>) -> Self {
        refuted.map_or(Self::Yes, |because| Self::No { because })
    }
}

/// What a keyspace survives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    pub keyspace: String,
    pub shards: usize,
    /// How many each shard is to have; none is one on every member.
    pub replicas: Option<usize>,
    pub any_one_node: Verdict,
    pub any_one_zone: Verdict,
}

/// All that there is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub nodes: usize,
    pub answering: usize,
    pub zones: Vec<String>,
    /// Members with a vote.
    pub members: usize,
    /// How many of them may fail, with what the system keyspace, and any with a replica on every member, need. None, if too many have.
    pub members_may_fail: Option<usize>,
    /// Of everything: the members, and every shard.
    pub any_one_node: Verdict,
    pub any_one_zone: Verdict,
    pub keyspaces: Vec<Proof>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// No majority could say which keyspaces there are: all this is what one node knew.
    pub fn is_unsure(&mut self, why: &str) {
        let (weight, wrong) =
            (Weight::Down, format!("no majority says where shards live, only what one node knew: {why}"));
        let advice = "start the members that are silent again; if none is, look whether they reach each other".into();
        self.findings.insert(0, Finding { weight, keyspace: None, shard: None, wrong, advice });
    }

    /// The worst that was found.
    pub fn weight(&self) -> Weight {
        self.findings.iter().map(|finding| finding.weight).max().unwrap_or(Weight::Hint)
    }
}

/// What findings are made from.
struct Clinic<'a> {
    nodes: &'a [Node],
    answering: &'a BTreeSet<String>,
    /// The members with a vote.
    members: Group,
    findings: Vec<Finding>,
}

/// Proves or refutes what the cluster survives. `answering` has the ids of the nodes that do.
pub fn examine(nodes: &[Node], keyspaces: &[Keyspace], answering: &BTreeSet<String>) -> Report {
    // Who was never started has no vote yet, and no name.
    let voting = nodes.iter().filter(|node| !node.learner && !node.name.is_empty());
    let members = Group(voting.map(|node| Voter::of(node, answering)).collect());
    let zones: BTreeSet<&str> = nodes.iter().map(|node| &*node.zone).filter(|zone| !zone.is_empty()).collect();
    let mut clinic = Clinic { nodes, answering, members, findings: Vec::new() };
    clinic.silence(keyspaces);
    clinic.membership(&zones);
    let proofs: Vec<Proof> = keyspaces.iter().map(|keyspace| clinic.keyspace(keyspace, &zones)).collect();
    clinic.findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    let whole = |of_members: Option<String>, of: fn(&Proof) -> &Verdict| {
        let members = of_members.map(|because| format!("members: {because}"));
        let in_keyspaces = proofs.iter().find_map(|proof| match of(proof) {
            Verdict::No { because } => Some(format!("keyspace {}: {because}", proof.keyspace)),
            Verdict::Yes | Verdict::NoZones => None,
        });
        Verdict::of(members.or(in_keyspaces))
    };
    Report {
        nodes: nodes.len(),
        answering: nodes.iter().filter(|node| answering.contains(&node.id)).count(),
        members: clinic.members.0.len(),
        members_may_fail: clinic.members.may_fail(),
        any_one_node: whole(clinic.members.refuted_by_a_node(), |proof| &proof.any_one_node),
        any_one_zone: match zones.is_empty() {
            true => Verdict::NoZones,
            false => whole(clinic.members.refuted_by_a_zone(), |proof| &proof.any_one_zone),
        },
        zones: zones.into_iter().map(str::to_owned).collect(),
        keyspaces: proofs,
        findings: clinic.findings,
    }
}

impl Clinic<'_> {
    fn find(&mut self, weight: Weight, at: (Option<&str>, Option<u64>), wrong: String, advice: String) {
        self.findings.push(Finding { weight, keyspace: at.0.map(str::to_owned), shard: at.1, wrong, advice });
    }

    /// One or two members cannot lose any, however healthy they are: that is said once, and is nothing to be repaired.
    fn cannot_lose_any(&self) -> bool {
        self.members.0.len() < 3 && self.members.silent().is_empty()
    }

    fn silence(&mut self, keyspaces: &[Keyspace]) {
        for node in self.nodes.iter().filter(|node| !self.answering.contains(&node.id)) {
            if node.name.is_empty() {
                let advice = format!("start it with --join, or let it go: quorate node remove {}", node.id);
                self.find(Weight::Hint, (None, None), format!("member {} has never been started", node.id), advice);
                continue;
            }
            let placed = keyspaces.iter().filter(|keyspace| keyspace.replicas.is_some());
            let there = placed.flat_map(|it| &it.shards).filter(|shard| shard.nodes.contains(&node.name)).count();
            let copied = match there {
                0 => String::new(),
                shards => format!(
                    "; its replicas of {shards} placed shards are copied to other nodes, where there are any, once it was silent for \
                     --evict-after (300 s if nothing was said)"
                ),
            };
            let urls = match node.client_urls.is_empty() {
                true => "and has not said where clients reach it".into(),
                false => format!("at {}", node.client_urls.join(" or ")),
            };
            let advice = format!(
                "start it again{copied}. If it is gone for good: quorate node remove {}, and start another with --join",
                node.name
            );
            self.find(Weight::Risk, (None, None), format!("{} does not answer {urls}", node.name), advice);
        }
    }

    fn membership(&mut self, zones: &BTreeSet<&str>) {
        let (members, voters) = (self.members.clone(), self.members.0.len());
        let what = "the system keyspace, and what has a replica on every member";
        if !members.serves() {
            let why = members.refuted_by_a_node().unwrap_or_default();
            let wrong = format!("{what}: unavailable ({why})");
            self.find(Weight::Down, (None, None), wrong, restart(&members));
        } else if members.may_fail() == Some(0) && !self.cannot_lose_any() {
            let why = members.refuted_by_a_node().unwrap_or_default();
            let wrong = format!("{what}: one failure away from being unavailable ({why})");
            self.find(Weight::Risk, (None, None), wrong, restart(&members));
        }
        if voters > 0 && voters.is_multiple_of(2) {
            let wrong = format!("{voters} members vote: they survive no more failures than {} would", voters - 1);
            self.find(Weight::Hint, (None, None), wrong, "add one: quorate start --join".into());
        }
        let silent_on_zones: Vec<&str> =
            self.nodes.iter().filter(|it| it.zone.is_empty()).map(|it| &*it.name).collect();
        if zones.is_empty() {
            return;
        }
        if !silent_on_zones.is_empty() {
            let wrong = format!("without a zone: {}; each counts as one of its own", names(&silent_on_zones));
            self.find(Weight::Hint, (None, None), wrong, "start every node with --zone".into());
        }
        if let Some(why) = members.refuted_by_a_zone().filter(|_| members.serves() && voters > 1) {
            let most = voters - members.majority();
            let advice = match most {
                0 => "start members in other zones, three at least".into(),
                _ => format!("start members in other zones: of {voters}, no more than {most} may be in one"),
            };
            self.find(Weight::Hint, (None, None), format!("one zone can take all with it: {why}"), advice);
        }
    }

    fn keyspace(&mut self, keyspace: &Keyspace, zones: &BTreeSet<&str>) -> Proof {
        let mut proof = Proof {
            keyspace: keyspace.name.clone(),
            shards: keyspace.shards.len(),
            replicas: keyspace.replicas,
            any_one_node: Verdict::of(self.members.refuted_by_a_node()),
            any_one_zone: Verdict::of(self.members.refuted_by_a_zone()),
        };
        if let Some(replicas) = keyspace.replicas {
            let mut groups = Vec::new();
            for shard in &keyspace.shards {
                let voters = shard.voters.iter().map(|name| Voter::named(name, self.nodes, self.answering));
                let group = Group(voters.collect());
                self.shard(keyspace, replicas, shard, &group);
                groups.push((shard.shard, group));
            }
            self.wishes(keyspace, replicas);
            proof.any_one_node = Verdict::of(first(&groups, Group::refuted_by_a_node));
            proof.any_one_zone = Verdict::of(first(&groups, Group::refuted_by_a_zone));
            if let Verdict::No { because } = &proof.any_one_zone
                && !zones.is_empty()
                && groups.iter().all(|(_, group)| group.serves())
                && !self.cannot_lose_any()
            {
                let advice = apart(replicas, zones.len());
                let wrong = format!("one zone can take shards with it: {because}");
                self.find(Weight::Hint, (Some(&keyspace.name), None), wrong, advice);
            }
        }
        if zones.is_empty() {
            proof.any_one_zone = Verdict::NoZones;
        }
        if keyspace.replicas.unwrap_or(self.hosts()) > 1 {
            self.writers(keyspace);
        }
        proof
    }

    /// A keyspace that survives a loss may have writers who notice it.
    fn writers(&mut self, keyspace: &Keyspace) {
        let lost = keyspace.lost.map(|lost| format!("; so far that were at most {} writes", lost.answers));
        let wrong = match keyspace.replication {
            Replication::All => "no write is acknowledged while any one voter of its shard is away".into(),
            Replication::Leader if !keyspace.commit_wait => {
                format!("what was acknowledged last is lost with a leader{}", lost.unwrap_or_default())
            }
            Replication::Majority | Replication::Leader => return,
        };
        let advice = format!("if that may not be: quorate keyspace set {} --replication majority", keyspace.name);
        self.find(Weight::Hint, (Some(&keyspace.name), None), wrong, advice);
    }

    fn shard(&mut self, keyspace: &Keyspace, replicas: usize, shard: &Shard, group: &Group) {
        let at = (Some(&*keyspace.name), Some(shard.shard));
        if group.0.is_empty() {
            let advice = "ask again in a moment; if it stays so, start the nodes that are to have it again";
            let wrong = format!("nobody has said yet who votes; it is to live on {}", listed(&shard.nodes));
            return self.find(Weight::Risk, at, wrong, advice.into());
        }
        let why = group.refuted_by_a_node().unwrap_or_default();
        let moves = shard.nodes.iter().collect::<BTreeSet<_>>() != shard.voters.iter().collect();
        if !group.serves() {
            self.find(Weight::Down, at, format!("unavailable: {why}"), restart(group));
        } else if group.may_fail() == Some(0) && !self.cannot_lose_any() {
            let advice = if !group.silent().is_empty() {
                restart(group)
            } else if moves {
                "wait: a replica is on its way".into()
            } else if replicas < 3 {
                MORE_REPLICAS.into()
            } else {
                "start another node with --join".into()
            };
            self.find(Weight::Risk, at, format!("one failure away from being unavailable: {why}"), advice);
        }
        if moves {
            let wrong =
                format!("it moves: voters are {}, it is to live on {}", listed(&shard.voters), listed(&shard.nodes));
            let waits = shard.nodes.iter().map(|name| Voter::named(name, self.nodes, self.answering));
            let waits = Group(waits.filter(|voter| !voter.answers).collect());
            let advice = if waits.0.is_empty() { "wait: nothing is to be done".into() } else { restart(&waits) };
            self.find(Weight::Hint, at, wrong, advice);
        } else if shard.nodes.len() < replicas && self.hosts() >= replicas {
            let wrong = format!("it lives on {}; {replicas} nodes are wanted", listed(&shard.nodes));
            self.find(Weight::Hint, at, wrong, "wait: more come by themselves".into());
        }
    }

    /// Members that replicas can be on.
    fn hosts(&self) -> usize {
        self.members.0.len()
    }

    fn wishes(&mut self, keyspace: &Keyspace, replicas: usize) {
        let hosts = self.hosts();
        if hosts < replicas {
            let wrong = format!("it asks for {replicas} replicas of each shard, and there are {hosts} nodes for them");
            let advice = "start another node with --join: replicas are then added by themselves";
            self.find(Weight::Hint, (Some(&keyspace.name), None), wrong, advice.into());
        }
    }
}

const MORE_REPLICAS: &str =
    "a keyspace keeps the number that it was made with: make one with --replicas 3, and copy the keys";

/// Why the first shard that is refuted is, and how many more are.
fn first(groups: &[(u64, Group)], refuted: fn(&Group) -> Option<String>) -> Option<String> {
    let mut all = groups.iter().filter_map(|(shard, group)| Some(format!("shard {shard}: {}", refuted(group)?)));
    let (first, more) = (all.next()?, all.count());
    Some(if more == 0 { first } else { format!("{first}; and {more} more") })
}

fn listed(list: &[String]) -> String {
    names(&list.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Who is to be started so that a majority, or more than that, is there.
fn restart(group: &Group) -> String {
    let (silent, lacking) = (group.silent(), group.majority().saturating_sub(group.answering().len()));
    match lacking {
        _ if silent.is_empty() => "start another node with --join".into(),
        1.. if lacking < silent.len() => format!("start {lacking} of {} again", names(&silent)),
        _ => format!("start {} again", names(&silent)),
    }
}

/// How replicas come to be in enough zones.
fn apart(replicas: usize, zones: usize) -> String {
    // So many replicas may be lost, and no zone may have more.
    let spare = replicas - (replicas / 2 + 1).min(replicas);
    match replicas.checked_div(spare).map(|_| replicas.div_ceil(spare)) {
        None => MORE_REPLICAS.into(),
        Some(needed) if zones < needed => {
            format!("start nodes in other zones (--join and --zone): of {needed} that are needed there are {zones}")
        }
        Some(_) => {
            "wait: replicas are put apart by themselves; if it stays so, start nodes in the zones that have fewest"
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::{Kind, Loss};

    /// "n1@a n2! n3": names, zones, and `!` behind who is silent; `~` before a learner.
    fn cluster(text: &str) -> (Vec<Node>, BTreeSet<String>) {
        let words = text.split(' ').map(|word| {
            let (learner, word) = word.strip_prefix('~').map_or((false, word), |word| (true, word));
            let (answers, word) = word.strip_suffix('!').map_or((true, word), |word| (false, word));
            let (name, zone) = word.split_once('@').unwrap_or((word, ""));
            let node = Node {
                drained: false,
                replaced_by: None,
                name: name.into(),
                id: format!("id-{name}"),
                zone: zone.into(),
                learner,
                client_urls: vec![format!("http://{name}:2379")],
                replicas: 0,
                votes: 0,
                here: false,
            };
            (node, answers)
        });
        let words: Vec<_> = words.collect();
        let answering = words.iter().filter(|(_, answers)| *answers).map(|(node, _)| node.id.clone()).collect();
        (words.into_iter().map(|(node, _)| node).collect(), answering)
    }

    /// "n1 n2 n3" for each shard, from 17 on; "n1 n2>n1 n3" are voters and where they should be.
    fn keyspace(replicas: usize, shards: &[&str]) -> Keyspace {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let shards = shards.iter().zip(17..).map(|(text, shard)| {
            let (voters, nodes) = text.split_once('>').unwrap_or((text, text));
            Shard { shard, from: "".into(), nodes: list(nodes), voters: list(voters) }
        });
        let shards = shards.collect();
        let (name, history, freshness) = ("bank".into(), "1h".into(), "strict".into());
        let (id, kind, replicas, commit_wait) = (16, Kind::Ranged, Some(replicas), false);
        let replication = Replication::Majority;
        let (retain, retain_bytes) = (None, None);
        Keyspace {
            name,
            id,
            kind,
            replicas,
            history,
            freshness,
            retain,
            retain_bytes,
            replication,
            lost: None,
            commit_wait,
            shards,
        }
    }

    fn report(nodes: &str, replicas: usize, shards: &[&str]) -> Report {
        let (nodes, answering) = cluster(nodes);
        examine(&nodes, &[keyspace(replicas, shards)], &answering)
    }

    fn word(verdict: &Verdict) -> &str {
        match verdict {
            Verdict::Yes => "yes",
            Verdict::No { because } => because,
            Verdict::NoZones => "-",
        }
    }

    #[test]
    fn what_writers_notice_of_a_loss_is_a_hint() {
        let told = |replicas, change: fn(&mut Keyspace)| {
            let ((nodes, answering), mut keyspace) = (cluster("n1 n2 n3"), keyspace(replicas, &["n1 n2 n3"]));
            change(&mut keyspace);
            let report = examine(&nodes, &[keyspace], &answering);
            assert_eq!(report.weight(), Weight::Hint);
            report.findings.into_iter().map(|finding| finding.wrong).collect::<Vec<_>>()
        };
        assert!(told(3, |_| ()).is_empty());
        let all = told(3, |keyspace| keyspace.replication = Replication::All);
        assert_eq!(all, ["no write is acknowledged while any one voter of its shard is away"]);
        let lost = told(3, |keyspace| {
            (keyspace.replication, keyspace.lost) = (Replication::Leader, Some(Loss { answers: 7, found_ms: 1 }));
        });
        assert_eq!(lost, ["what was acknowledged last is lost with a leader; so far that were at most 7 writes"]);
        let waits = told(3, |keyspace| (keyspace.replication, keyspace.commit_wait) = (Replication::Leader, true));
        assert!(waits.is_empty(), "{waits:?}");
    }

    #[test]
    fn a_keyspace_survives_what_all_its_shards_do() {
        // Nodes, replicas, shards, any one node, any one zone.
        let table: &[(&str, usize, &[&str], &str, &str)] = &[
            ("n1 n2 n3", 3, &["n1 n2 n3"], "yes", "-"),
            ("n1@a n2@b n3@c", 3, &["n1 n2 n3"], "yes", "yes"),
            (
                "n1@a n2@b n3@c",
                3,
                &["n1 n2 n3", "n1 n2"],
                "shard 18: only n1 and n2 vote",
                "shard 18: n1, 1 of 2 voters, is in zone a",
            ),
            ("n1@a n2@a n3@b", 3, &["n1 n2 n3"], "yes", "shard 17: n1 and n2, 2 of 3 voters, are both in zone a"),
            ("n1 n2 n3", 1, &["n2", "n3"], "shard 17: only n2 votes; and 1 more", "-"),
            ("n1@a n2@b n3@c n4@a n5@b", 5, &["n1 n2 n3 n4 n5"], "yes", "yes"),
            (
                "n1@a n2@a n3@a n4@b n5@c",
                5,
                &["n1 n2 n3 n4 n5"],
                "yes",
                "shard 17: n1, n2 and n3, 3 of 5 voters, are all in zone a",
            ),
            // A zone that holds a majority of the nodes takes nothing with it, if each shard has one replica there.
            ("n1@a n2@a n3@a n4@b n5@c", 3, &["n1 n4 n5", "n2 n4 n5"], "yes", "yes"),
            // One voter more does not help four.
            (
                "n1@a n2@a n3@b n4@c",
                4,
                &["n1 n2 n3 n4"],
                "yes",
                "shard 17: n1 and n2, 2 of 4 voters, are both in zone a",
            ),
            // Who is silent is lost already.
            ("n1 n2 n3!", 3, &["n1 n2 n3"], "shard 17: 2 of 3 voters answer, 2 must; silent: n3", "-"),
            ("n1@a n2@b n3@c n4@d!", 3, &["n1 n2 n3"], "yes", "yes"),
            (
                "n1@a n2@a n3@b n4@c n5@d!",
                5,
                &["n1 n2 n3 n4 n5"],
                "yes",
                "shard 17: n1 and n2, 2 of 5 voters, are both in zone a; silent: n5",
            ),
            ("n1 n2! n3!", 3, &["n1 n2 n3"], "shard 17: 1 of 3 voters answer, 2 must; silent: n2 and n3", "-"),
            // Without a zone everyone stands alone.
            ("n1@a n2 n3", 3, &["n1 n2 n3"], "yes", "yes"),
            (
                "n1@a n2@b n3@c",
                3,
                &[">n1 n2 n3"],
                "shard 17: nobody has said yet who votes",
                "shard 17: nobody has said yet who votes",
            ),
            // Those who vote count, not those who will; who is no member does not answer.
            ("n1 n2 n3 n4", 3, &["n1 n2>n1 n2 n4"], "shard 17: only n1 and n2 vote", "-"),
            ("n1 n2 n3", 3, &["n1 n2 n9"], "shard 17: 2 of 3 voters answer, 2 must; silent: n9", "-"),
        ];
        for (nodes, replicas, shards, node, zone) in table {
            let report = report(nodes, *replicas, shards);
            let proof = &report.keyspaces[0];
            assert_eq!((word(&proof.any_one_node), word(&proof.any_one_zone)), (*node, *zone), "{nodes}: {shards:?}");
            if *node != "yes" {
                assert_ne!(
                    report.any_one_node,
                    Verdict::Yes,
                    "what one keyspace does not survive, the whole does not: {nodes}"
                );
            }
        }
    }

    #[test]
    fn the_members_survive_what_leaves_a_majority() {
        // Members, how many may fail, any one node, any one zone.
        let table = [
            ("n1", Some(0), "members: only n1 votes", "-"),
            ("n1 n2", Some(0), "members: only n1 and n2 vote", "-"),
            ("n1 n2 n3", Some(1), "yes", "-"),
            ("n1 n2 n3 n4", Some(1), "yes", "-"),
            ("n1 n2 n3 n4 n5", Some(2), "yes", "-"),
            ("n1 n2 n3 n4 n5!", Some(1), "yes", "-"),
            ("n1 n2 n3!", Some(0), "members: 2 of 3 voters answer, 2 must; silent: n3", "-"),
            ("n1 n2! n3!", None, "members: 1 of 3 voters answer, 2 must; silent: n2 and n3", "-"),
            ("n1 n2 ~n3", Some(0), "members: only n1 and n2 vote", "-"),
            ("n1@a n2@a n3@a n4@b n5@c", Some(2), "yes", "members: n1, n2 and n3, 3 of 5 voters, are all in zone a"),
            ("n1@a n2@a n3@b n4@b n5@c", Some(2), "yes", "yes"),
            ("n1@a n2@a n3@a", Some(1), "yes", "members: n1, n2 and n3, 3 of 3 voters, are all in zone a"),
            ("n1@a n2@b n3@c ~n4@a", Some(1), "yes", "yes"),
        ];
        for (nodes, may_fail, node, zone) in table {
            let (list, answering) = cluster(nodes);
            let report = examine(&list, &[], &answering);
            let verdicts = (word(&report.any_one_node), word(&report.any_one_zone));
            assert_eq!((report.members_may_fail, verdicts), (may_fail, (node, zone)), "{nodes}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        use Weight::{Down, Hint, Risk};
        // Nodes, replicas, shards; then weight, shard, and what the finding and its advice contain.
        type Row<'a> = (&'a str, usize, &'a [&'a str], Weight, Option<u64>, &'a str, &'a str);
        let table: &[Row<'_>] = &[
            ("n1 n2! n3!", 3, &["n1 n2 n3"], Down, Some(17), "unavailable: 1 of 3", "start 1 of n2 and n3 again"),
            ("n1 n2! n3!", 3, &["n1 n2 n3"], Down, None, "the system keyspace", "start 1 of n2 and n3 again"),
            ("n1 n2 n3!", 3, &["n1 n2 n3"], Risk, Some(17), "one failure away", "start n3 again"),
            ("n1 n2 n3!", 3, &["n1 n2 n3"], Risk, None, "n3 does not answer at http://n3:2379", "--evict-after"),
            ("n1 n2 n3 n4!", 3, &["n1 n2 n3"], Risk, None, "n4 does not answer", "quorate node remove n4"),
            ("n1 n2 n3", 1, &["n2"], Risk, Some(17), "one failure away", "--replicas 3"),
            ("n1 n2 n3", 3, &["n1 n2>n1 n2 n3"], Risk, Some(17), "one failure away", "a replica is on its way"),
            ("n1 n2 n3 n4", 3, &["n1 n2 n3>n1 n2 n4"], Hint, Some(17), "to live on n1, n2 and n4", "wait"),
            ("n1 n2 n3 n4!", 3, &["n1 n2 n3>n1 n2 n4"], Hint, Some(17), "it moves", "start n4 again"),
            ("n1 n2 n3", 3, &[">n1 n2 n3"], Risk, Some(17), "nobody has said yet who votes", "ask again"),
            ("n1 n2", 3, &["n1 n2"], Hint, None, "asks for 3 replicas of each shard, and there are 2", "--join"),
            ("n1 n2 n3", 3, &["n1 n2"], Hint, Some(17), "3 nodes are wanted", "by themselves"),
            (
                "n1 n2 n3 n4",
                3,
                &["n1 n2 n3"],
                Hint,
                None,
                "4 members vote: they survive no more failures than 3",
                "add one",
            ),
            ("n1@a n2@b n3", 3, &["n1 n2 n3"], Hint, None, "without a zone: n3", "--zone"),
            ("n1@a n2@a n3@b", 3, &["n1 n2 n3"], Hint, None, "both in zone a", "of 3 that are needed there are 2"),
            ("n1@a n2@a n3@b n4@c", 3, &["n1 n2 n3"], Hint, None, "both in zone a", "put apart by themselves"),
            ("n1@a n2@a n3@a n4@b n5@c", 3, &["n1 n4 n5"], Hint, None, "all in zone a", "of 5, no more than 2"),
        ];
        for (nodes, replicas, shards, weight, shard, wrong, advice) in table {
            let report = report(nodes, *replicas, shards);
            let fits = |it: &&Finding| {
                (it.weight, it.shard) == (*weight, *shard) && it.wrong.contains(wrong) && it.advice.contains(advice)
            };
            let found = report.findings.iter().filter(fits).count();
            assert_eq!(found, 1, "{nodes}: {wrong:?}, {advice:?}: {:#?}", report.findings);
            let said = report.findings.iter().map(|it| it.weight);
            assert!(said.is_sorted_by(|one, next| one >= next), "the worst comes first");
        }
    }

    #[test]
    fn it_is_well_if_any_one_node_may_fail_or_there_are_too_few_for_that() {
        let table: &[(&str, usize, &[&str], Weight)] = &[
            ("n1", 3, &["n1"], Weight::Hint),
            ("n1 n2", 3, &["n1 n2"], Weight::Hint),
            ("n1 n2 n3", 3, &["n1 n2 n3"], Weight::Hint),
            ("n1@a n2@a n3@b", 3, &["n1 n2 n3"], Weight::Hint),
            ("n1 n2!", 3, &["n1 n2"], Weight::Down),
            ("n1 n2 n3", 2, &["n1 n2"], Weight::Risk),
            ("n1 n2 n3 n4 n5!", 3, &["n1 n2 n3"], Weight::Risk),
            ("n1 n2 n3 n4! n5!", 3, &["n1 n4 n5"], Weight::Down),
        ];
        for (nodes, replicas, shards, weight) in table {
            assert_eq!(report(nodes, *replicas, shards).weight(), *weight, "{nodes}: {shards:?}");
        }
    }

    #[test]
    fn what_no_majority_says_is_no_proof() {
        let mut report = report("n1 n2 n3", 3, &["n1 n2 n3"]);
        report.is_unsure("no leader");
        assert_eq!((report.weight(), report.findings.len()), (Weight::Down, 1));
    }

    #[test]
    fn whoever_has_two_disks_by_one_name_answers_if_both_do_and_who_never_started_does_not_vote() {
        let (mut nodes, mut answering) = cluster("n1 n2 n3");
        let mut other = nodes[2].clone();
        (other.id, other.learner) = ("old-n3".into(), true);
        nodes.push(other);
        let verdict = |nodes: &[Node], answering: &BTreeSet<String>| {
            let report = examine(nodes, &[keyspace(3, &["n1 n2 n3"])], answering);
            (report.keyspaces[0].any_one_node != Verdict::Yes, report.members, report.weight())
        };
        assert_eq!(verdict(&nodes, &answering), (true, 3, Weight::Risk));
        answering.insert("old-n3".into());
        assert_eq!(verdict(&nodes, &answering), (false, 3, Weight::Hint));
        let mut expected = nodes[0].clone();
        (expected.id, expected.name, expected.client_urls) = ("new".into(), String::new(), Vec::new());
        nodes.push(expected);
        assert_eq!(verdict(&nodes, &answering), (false, 3, Weight::Hint), "it has no vote that could be missed");
    }
}

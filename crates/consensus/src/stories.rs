//! Stories about a group: scripts in `stories/`, each with the output that it should have.
//!
//! Replicas stand in one process; a script says when messages arrive, when the disk is done, and who crashes. Everything that a replica
//! does of its own accord is printed. `UPDATE_GOLDENFILES=1 cargo test -p quorate-consensus` fills answers in, and somebody reads them.
//!
//! ```text
//!   group 3                     voters 1 to 3
//!   campaign 1                  starts an election now; lost 1: learns that its leader is gone
//!   tick 1 [n]                  time passes, once or n times; tick all [n]
//!   propose 1 x                 an entry
//!   read 1 r1                   a linearizable read
//!   transfer 1 2                leadership from 1 to 2
//!   join 4                      a replica with an empty disk
//!   change 1 v4 l5 r3           4 votes, 5 listens, 3 goes: into a joint configuration; change 1: out of it
//!   deliver [2 to=1 from=1]     what is on its way arrives, once; only that to or from a replica
//!   settle                      until nothing is on its way
//!   drop [to=2 from=1]          what is on its way is lost
//!   cut 1 [2], heal             nothing travels between 1 and the others (or 2) from now on
//!   slow-disk 2, disk 2         what 2 writes waits; is durable now
//!   crash 2, start 2            forgets what is not durable; comes back with the rest
//!   compact 1 4                 the log begins after entry 4
//!   status                      one line per replica
//! ```

use crate::{
    Config, Entry, EntryKind, Group, HardState, Membership, MembershipChange, Message, MessageKind, Ready, Restored,
    Role, Snapshot, SnapshotPoint, Step,
};
use goldenscript::{ArgumentConsumer, Context};
use quorate_env::{LogIndex, ReplicaId, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

type Told = Result<String, Box<dyn Error>>;

#[test]
fn every_story_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    let mut stories: Vec<_> =
        std::fs::read_dir(folder).expect("stories").map(|entry| entry.expect("a story").path()).collect();
    stories.sort();
    assert!(stories.len() >= 10, "stories are missing");
    for story in stories {
        eprintln!("story {}", story.display());
        goldenscript::run(&mut Teller::default(), story).expect("a story can be read");
    }
}

/// What a replica's disk holds.
#[derive(Clone, Default)]
struct Disk {
    restored: Restored,
}

impl Disk {
    fn write(&mut self, ready: &Ready) {
        let Restored { hard_state, start, entries, applied, membership, .. } = &mut self.restored;
        if let Some(now) = ready.hard_state {
            *hard_state = now;
        }
        if let Some(snapshot) = &ready.snapshot {
            let point = SnapshotPoint { index: snapshot.index, term: snapshot.term };
            (*start, *applied, *membership) = (point, point, snapshot.membership.clone());
            entries.clear();
        }
        if let Some(first) = ready.entries.first() {
            entries.retain(|entry| entry.index < first.index);
            entries.extend(ready.entries.iter().cloned());
        }
    }
}

struct Replica {
    /// `None` while it is down.
    group: Option<Group>,
    disk: Disk,
    slow: bool,
    /// Readies that wait for a slow disk.
    unwritten: Vec<Ready>,
    applied: SnapshotPoint,
    /// As of `applied`.
    membership: Membership,
}

#[derive(Default)]
struct Teller {
    replicas: BTreeMap<u64, Replica>,
    on_the_way: Vec<Message>,
    cuts: BTreeSet<(u64, u64)>,
    first: Membership,
    told: String,
}

fn config(replica: u64) -> Config {
    Config {
        replica: ReplicaId(replica),
        turn: 0,
        election_ticks: 10,
        heartbeat_ticks: 2,
        append_bytes_max: 1 << 20,
        inflight_max: 64,
        committed_bytes_max: 64 << 10,
        uncommitted_bytes_max: 1 << 20,
    }
}

impl Teller {
    fn say(&mut self, line: impl AsRef<str>) {
        writeln!(self.told, "{}", line.as_ref()).expect("memory");
    }

    fn begin(&mut self, voters: u64) {
        self.first = Membership::of_voters((1..=voters).map(ReplicaId));
        (1..=voters).for_each(|id| self.join(id));
    }

    /// A replica with an empty disk. Like all others it begins with the first configuration.
    fn join(&mut self, id: u64) {
        let membership = self.first.clone();
        let disk = Disk { restored: Restored { membership: membership.clone(), ..Restored::default() } };
        let (unwritten, applied) = (Vec::new(), SnapshotPoint::default());
        self.replicas.insert(id, Replica { group: None, disk, slow: false, unwritten, applied, membership });
        self.start(id);
    }

    fn start(&mut self, id: u64) {
        let replica = self.replicas.get_mut(&id).expect("a replica");
        replica.applied = replica.disk.restored.applied;
        replica.membership = replica.disk.restored.membership.clone();
        replica.group = Some(Group::new(&config(id), &replica.disk.restored));
    }

    /// Lets a replica do whatever it can do now.
    fn pump(&mut self, id: u64) {
        while let Some(ready) = self.replicas.get_mut(&id).and_then(|r| r.group.as_mut()).and_then(Group::ready) {
            self.send(ready.messages.clone());
            for (context, index) in &ready.reads {
                self.say(format!("{id} may serve read {} at {}", String::from_utf8_lossy(context), index.0));
            }
            for entry in &ready.committed {
                self.say(format!("{id} applies {}", shown(entry)));
            }
            if let Some(snapshot) = &ready.snapshot {
                self.say(format!("{id} installs a snapshot at {}", snapshot.index.0));
            }
            let replica = self.replicas.get_mut(&id).expect("a replica");
            let group = replica.group.as_mut().expect("it runs");
            let mut now = Vec::new();
            for entry in &ready.committed {
                if entry.kind == EntryKind::Membership {
                    replica.membership = group.apply_membership(&entry.data).expect("a change");
                    now.push(format!("{id} is in {}", configuration(&replica.membership)));
                }
            }
            if let Some(snapshot) = &ready.snapshot {
                replica.membership = snapshot.membership.clone();
                replica.applied = SnapshotPoint { index: snapshot.index, term: snapshot.term };
                now.push(format!("{id} is in {}", configuration(&replica.membership)));
            }
            if let Some(last) = ready.committed.last() {
                replica.applied = SnapshotPoint { index: last.index, term: last.term };
                group.applied(replica.applied);
            }
            replica.unwritten.push(ready);
            now.into_iter().for_each(|line| self.say(line));
            if !self.replicas[&id].slow {
                self.write(id);
            }
        }
    }

    /// The disk is done with everything that waits.
    fn write(&mut self, id: u64) {
        for ready in std::mem::take(&mut self.replicas.get_mut(&id).expect("a replica").unwritten) {
            let replica = self.replicas.get_mut(&id).expect("a replica");
            replica.disk.write(&ready);
            // In one write.
            replica.disk.restored.applied = replica.disk.restored.applied.max_of(replica.applied);
            replica.disk.restored.membership = replica.membership.clone();
            replica.group.as_mut().expect("it runs").persisted(ready.number);
            self.send(ready.messages_after_persist);
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let lost = self.cuts.contains(&(message.from.0, message.to.0));
            let note = if lost { ", lost" } else { "" };
            self.say(format!("{}{note}", described(&message)));
            if !lost {
                self.on_the_way.push(message);
            }
        }
    }

    /// What is on its way now, of the replicas that were named.
    fn take(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<Vec<Message>, Box<dyn Error>> {
        let number = |word: Option<&str>| word.map(str::parse::<u64>).transpose();
        let (to, from) = (number(args.take_key("to"))?, number(args.take_key("from"))?);
        let chosen = |m: &Message| to.is_none_or(|to| m.to.0 == to) && from.is_none_or(|from| m.from.0 == from);
        let (taken, left) = std::mem::take(&mut self.on_the_way).into_iter().partition(chosen);
        self.on_the_way = left;
        Ok(taken)
    }

    fn deliver(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to.0;
            let Some(group) = self.replicas.get_mut(&to).and_then(|replica| replica.group.as_mut()) else { continue };
            if let Err(e) = group.step(&message) {
                self.say(format!("{to} refuses a {:?}: {e}", message.kind));
            }
            self.pump(to);
        }
    }

    fn status(&mut self) {
        let lines: Vec<String> = self
            .replicas
            .iter()
            .map(|(id, replica)| {
                let Some(group) = &replica.group else { return format!("{id} is down") };
                let leader = group.leader().map_or(String::from("nobody"), |leader| leader.0.to_string());
                let log: Vec<String> = group.entries().iter().map(shown).collect();
                let (role, term, start) = (group.role(), group.term().0, group.log_start().index.0);
                format!(
                    "{id} {role:?} term {term} leader {leader} committed {} log from {start}: {}",
                    group.committed().0,
                    log.join(" ")
                )
            })
            .collect();
        lines.iter().for_each(|line| self.say(line));
    }

    fn group(&mut self, id: u64) -> Result<&mut Group, Box<dyn Error>> {
        let replica = self.replicas.get_mut(&id).ok_or("no such replica")?;
        replica.group.as_mut().ok_or_else(|| "it is down".into())
    }
}

impl SnapshotPoint {
    fn max_of(self, other: Self) -> Self {
        if self.index > other.index { self } else { other }
    }
}

impl goldenscript::Runner for Teller {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &Context) -> Told {
        let mut args = command.consume_args();
        let number = |args: &mut ArgumentConsumer<'_>| -> Result<u64, Box<dyn Error>> {
            Ok(args.next_pos().ok_or("a number is missing")?.parse()?)
        };
        let roles_before = self.roles();
        match command.name.as_str() {
            "group" => self.begin(number(&mut args)?),
            "campaign" => {
                let id = number(&mut args)?;
                self.group(id)?.campaign();
                self.pump(id);
            }
            "lost" => {
                let id = number(&mut args)?;
                self.group(id)?.leader_lost();
                self.pump(id);
            }
            "tick" => {
                let who = args.next_pos().ok_or("who?")?;
                let times = args.next_pos().map_or(Ok(1), str::parse)?;
                let ids = if who == "all" { self.replicas.keys().copied().collect() } else { vec![who.parse()?] };
                for _ in 0..times {
                    for id in &ids {
                        if let Ok(group) = self.group(*id) {
                            group.tick();
                            self.pump(*id);
                        }
                    }
                }
            }
            "propose" => {
                let id = number(&mut args)?;
                let data = args.next_pos().ok_or("what?")?.as_bytes().to_vec();
                if let Err(e) = self.group(id)?.propose(data) {
                    self.say(format!("{e:?}"));
                }
                self.pump(id);
            }
            "read" => {
                let id = number(&mut args)?;
                let context = args.next_pos().ok_or("which?")?.as_bytes().to_vec();
                self.group(id)?.read_index(context);
                self.pump(id);
            }
            "transfer" => {
                let (from, to) = (number(&mut args)?, number(&mut args)?);
                self.group(from)?.transfer_leader(ReplicaId(to));
                self.pump(from);
            }
            "deliver" => {
                let messages = self.take(&mut args)?;
                self.deliver(messages);
            }
            "settle" => {
                for _ in 0..100 {
                    let messages = std::mem::take(&mut self.on_the_way);
                    self.deliver(messages);
                }
                if !self.on_the_way.is_empty() {
                    return Err("messages without end".into());
                }
            }
            "drop" => {
                let lost = self.take(&mut args)?.len();
                self.say(format!("{lost} lost"));
            }
            "cut" => {
                let one = number(&mut args)?;
                let only: Option<u64> = args.next_pos().map(str::parse).transpose()?;
                for other in self.replicas.keys().filter(|id| **id != one && only.is_none_or(|only| **id == only)) {
                    self.cuts.extend([(one, *other), (*other, one)]);
                }
            }
            "heal" => self.cuts.clear(),
            "slow-disk" => {
                let id = number(&mut args)?;
                self.replicas.get_mut(&id).ok_or("no such replica")?.slow = true;
            }
            "disk" => {
                let id = number(&mut args)?;
                self.replicas.get_mut(&id).ok_or("no such replica")?.slow = false;
                self.write(id);
                self.pump(id);
            }
            "crash" => {
                let id = number(&mut args)?;
                let replica = self.replicas.get_mut(&id).ok_or("no such replica")?;
                (replica.group, replica.slow) = (None, false);
                replica.unwritten.clear();
            }
            "start" => {
                let id = number(&mut args)?;
                self.start(id);
                self.pump(id);
            }
            "join" => {
                let id = number(&mut args)?;
                self.join(id);
            }
            "change" => {
                let id = number(&mut args)?;
                let mut steps = Vec::new();
                while let Some(word) = args.next_pos() {
                    let replica = ReplicaId(word[1..].parse()?);
                    steps.push(match word.as_bytes()[0] {
                        b'v' => Step::Voter(replica),
                        b'l' => Step::Learner(replica),
                        b'r' => Step::Remove(replica),
                        _ => return Err("v4 votes, l4 listens, r4 goes".into()),
                    });
                }
                let learner = matches!(steps[..], [Step::Learner(_)]);
                let change = match steps.len() {
                    0 => MembershipChange::Leave,
                    1 if learner => MembershipChange::Simple(steps),
                    _ => MembershipChange::Enter(steps),
                };
                if let Err(e) = self.group(id)?.propose_membership(&change) {
                    self.say(format!("{e:?}"));
                }
                self.pump(id);
            }
            "compact" => {
                let (id, index) = (number(&mut args)?, LogIndex(number(&mut args)?));
                self.group(id)?.compact(index);
                let start = self.group(id)?.log_start();
                let restored = &mut self.replicas.get_mut(&id).ok_or("no such replica")?.disk.restored;
                restored.start = start;
                restored.entries.retain(|entry| entry.index > index);
            }
            "status" => self.status(),
            other => return Err(format!("no such command: {other}").into()),
        }
        args.reject_next()?;
        for ((id, now), (_, before)) in self.roles().into_iter().zip(roles_before) {
            if let (Some((role, term)), Some(before)) = (now, before)
                && (role, term) != before
            {
                self.say(format!("{id} is {role:?} of term {}", term.0));
            }
        }
        Ok(std::mem::take(&mut self.told))
    }
}

impl Teller {
    fn roles(&self) -> Vec<(u64, Option<(Role, Term)>)> {
        let role = |replica: &Replica| replica.group.as_ref().map(|group| (group.role(), group.term()));
        self.replicas.iter().map(|(id, replica)| (*id, role(replica))).collect()
    }
}

fn configuration(membership: &Membership) -> String {
    let list = |ids: &[ReplicaId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ");
    let mut text = format!("({})", list(&membership.voters));
    for (what, ids) in [
        ("and", &membership.outgoing),
        ("learners", &membership.learners),
        ("then learners", &membership.learners_next),
    ] {
        if !ids.is_empty() {
            write!(text, " {what} ({})", list(ids)).expect("memory");
        }
    }
    text
}

fn shown(entry: &Entry) -> String {
    if entry.kind == EntryKind::Membership {
        let change = MembershipChange::decode(entry.data.clone()).expect("a change");
        let step = |step: &Step| match step {
            Step::Voter(id) => format!("+{}", id.0),
            Step::Learner(id) => format!("~{}", id.0),
            Step::Remove(id) => format!("-{}", id.0),
        };
        let what = match &change {
            MembershipChange::Simple(steps) | MembershipChange::Enter(steps) => {
                steps.iter().map(step).collect::<Vec<_>>().join("")
            }
            MembershipChange::Leave => "leave".into(),
        };
        return format!("{}.{}:{what}", entry.term.0, entry.index.0);
    }
    let data = if entry.data.is_empty() { "-".into() } else { String::from_utf8_lossy(&entry.data).into_owned() };
    format!("{}.{}:{data}", entry.term.0, entry.index.0)
}

fn described(m: &Message) -> String {
    let mut line = format!("  {}>{} {:?} t{}", m.from.0, m.to.0, m.kind, m.term.0);
    let mut add = |text: String| write!(line, " {text}").expect("memory");
    match m.kind {
        MessageKind::Append => {
            let entries: Vec<String> = m.entries.iter().map(shown).collect();
            add(format!("after {}.{} [{}] commit {}", m.log_term.0, m.index.0, entries.join(" "), m.commit.0));
        }
        MessageKind::RequestVote | MessageKind::RequestPreVote => add(format!("log {}.{}", m.log_term.0, m.index.0)),
        MessageKind::AppendResponse => add(format!("at {}", m.index.0)),
        MessageKind::Heartbeat => add(format!("commit {}", m.commit.0)),
        MessageKind::Snapshot => add(format!("at {}", m.snapshot.as_ref().map_or(0, |s: &Snapshot| s.index.0))),
        _ => {}
    }
    if m.reject {
        add(String::from("no"));
    }
    line
}

#[test]
fn a_vote_is_part_of_what_the_disk_holds() {
    let mut disk = Disk::default();
    let hard_state = Some(HardState { term: Term(3), vote: ReplicaId(2), commit: LogIndex(0) });
    disk.write(&Ready { hard_state, ..Ready::default() });
    disk.write(&Ready::default());
    assert_eq!(Some(disk.restored.hard_state), hard_state);
}

#[test]
fn a_term_that_only_the_rows_know_is_written_before_anything_is_promised_in_it() {
    // A snapshot of term 4 was installed, and the crash came before the hard state.
    let applied = SnapshotPoint { index: LogIndex(5), term: Term(4) };
    let hard_state = HardState { term: Term(3), vote: ReplicaId(2), commit: LogIndex(2) };
    let membership = Membership::of_voters((1..=3).map(ReplicaId));
    let restored = Restored { hard_state, start: applied, applied, membership, ..Restored::default() };
    let mut leader = Group::new(&config(2), &restored);
    let mut group = Group::new(&config(1), &restored);
    assert_eq!(group.term(), Term(4));
    leader.campaign();
    let asked: Vec<Message> =
        std::iter::from_fn(|| leader.ready()).flat_map(|ready| ready.messages_after_persist).collect();
    asked
        .iter()
        .filter(|message| message.to == ReplicaId(1))
        .for_each(|message| group.step(message).expect("it is plausible"));
    let ready = group.ready().expect("it answers");
    assert_eq!(ready.hard_state.map(|hard_state| (hard_state.term, hard_state.vote)), Some((Term(4), ReplicaId(0))));
    assert!(ready.messages.is_empty() && !ready.messages_after_persist.is_empty());
}

#[test]
fn what_is_committed_is_handed_out_bit_by_bit() {
    let membership = Membership::of_voters([ReplicaId(1)]);
    let mut group = Group::new(&config(1), &Restored { membership, ..Restored::default() });
    group.campaign();
    let mut turns = Vec::new();
    let mut carry_out = |group: &mut Group| {
        while let Some(ready) = group.ready() {
            group.persisted(ready.number);
            let bytes: usize = ready.committed.iter().map(|entry| entry.data.len()).sum();
            if let Some(last) = ready.committed.last() {
                group.applied(SnapshotPoint { index: last.index, term: last.term });
                turns.push(bytes);
            }
        }
    };
    carry_out(&mut group);
    for size in [20 << 10, 20 << 10, 20 << 10, 20 << 10, 100 << 10, 1] {
        group.propose(vec![7; size]).expect("it leads");
    }
    carry_out(&mut group);
    let (most, sum) = (config(1).committed_bytes_max as usize, turns.iter().sum::<usize>());
    assert!(turns.iter().all(|bytes| *bytes <= most || *bytes == 100 << 10), "{turns:?}");
    assert!(turns.len() > 3 && sum == (180 << 10) + 1, "{turns:?}");
}

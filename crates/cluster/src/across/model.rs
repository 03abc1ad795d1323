//! Every interleaving of one transaction over three shards: the protocol, model-checked before anything was built on it.
//!
//! A shard is one state machine here: that its log is replicated and applies each step once is the business of other tests. What is asked of a shard
//! may arrive at any later time, in any order, or never; the coordinator may vanish at any point; shards lose patience whenever they like. The
//! coordinator is the real one ([`Attempt`]).

use super::attempt::{Attempt, End, Next};
use quorate_env::{LogIndex, ShardId, Timestamp};
use quorate_kv::across::{Decision, PartResult, TxAnswer, TxId};
use quorate_kv::{Error, Refusal, Unavailable};
use stateright::{Checker, Model, Property};
use std::collections::{BTreeMap, BTreeSet};

const HOME: ShardId = ShardId(1);
const OTHERS: [ShardId; 2] = [ShardId(2), ShardId(3)];
const COMMITTED: Decision = Decision::Committed { succeeded: true, at: Timestamp::ZERO };

/// What a shard is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    Prepare(ShardId),
    Decide,
    /// A shard wants to know.
    Settle(ShardId),
    Commit(ShardId),
    Abort(ShardId),
    Forget,
}

/// What it answers, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Answer {
    Prepared(ShardId),
    Locked(ShardId),
    Decided(bool),
    TooLate,
}

/// A shard that is not the home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Other {
    #[default]
    Untouched,
    Prepared,
    /// Its writes are there.
    Written,
    /// It was prepared, and let go.
    Released,
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Done,
    NotDone,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    coordinator: Option<Attempt>,
    told: Option<Told>,
    /// What the home has on record, and which shards have yet to carry it out.
    record: Option<(Decision, BTreeSet<ShardId>)>,
    behind_fence: bool,
    others: BTreeMap<ShardId, Other>,
    steps: BTreeSet<Step>,
    answers: BTreeSet<Answer>,
    /// What is true, whoever remembers it.
    committed: bool,
    settled_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Arrive(Step),
    /// Another transaction holds a lock there.
    Meet(ShardId),
    Hear(Answer),
    /// Nobody answers the coordinator in time.
    GiveUp,
    Vanish,
    LosePatience(ShardId),
    /// The home's leader finds that not everybody has carried it out.
    Remind,
    PassFence,
    /// Behind the fence the home forgets what everybody has carried out.
    Collect,
}

/// A mistake that could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    SettleUnwritten,
    ForgetUnresolved,
    DecideBehindFence,
    DecideUnprepared,
}

#[derive(Clone)]
struct Protocol {
    mistake: Option<Mistake>,
}

fn carry_out(decision: Decision, shard: ShardId) -> Step {
    if decision == COMMITTED { Step::Commit(shard) } else { Step::Abort(shard) }
}

impl Protocol {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn arrive(&self, world: &mut World, step: Step) {
        match step {
            Step::Prepare(shard) => {
                // A second life of a prepare finds its command in the session table. Only the first is in the model.
                world.others.insert(shard, Other::Prepared);
                world.answers.insert(Answer::Prepared(shard));
            }
            Step::Decide => match &world.record {
                Some((decision, _)) => {
                    world.answers.insert(Answer::Decided(*decision == COMMITTED));
                }
                None if world.behind_fence && !self.makes(Mistake::DecideBehindFence) => {
                    world.answers.insert(Answer::TooLate);
                }
                None => {
                    world.record = Some((COMMITTED, OTHERS.into()));
                    world.committed = true;
                    world.answers.insert(Answer::Decided(true));
                }
            },
            Step::Settle(shard) => {
                let decision = match &world.record {
                    Some((decision, _)) => *decision,
                    None => {
                        world.settled_first = true;
                        if !world.behind_fence && !self.makes(Mistake::SettleUnwritten) {
                            world.record = Some((Decision::Aborted, BTreeSet::new()));
                        }
                        Decision::Aborted
                    }
                };
                world.steps.insert(carry_out(decision, shard));
            }
            Step::Commit(shard) => {
                let other = world.others.entry(shard).or_default();
                if *other == Other::Prepared {
                    *other = Other::Written;
                }
                if let Some((_, unresolved)) = &mut world.record {
                    unresolved.remove(&shard);
                    if self.makes(Mistake::ForgetUnresolved) || unresolved.is_empty() {
                        world.steps.insert(Step::Forget);
                    }
                }
            }
            Step::Abort(shard) => {
                let other = world.others.entry(shard).or_default();
                if *other == Other::Prepared {
                    *other = Other::Released;
                }
            }
            Step::Forget => {
                if let Some((_, unresolved)) = &mut world.record {
                    unresolved.clear();
                }
            }
        }
    }

    fn hear(&self, world: &mut World, answer: Answer) {
        let Some(attempt) = &mut world.coordinator else { return };
        let mut results = BTreeMap::new();
        let next = match answer {
            Answer::Prepared(shard) => {
                let holds = PartResult { holds: true, ..PartResult::default() };
                attempt.prepared(shard, Ok(TxAnswer::Prepared(holds)), &mut results)
            }
            Answer::Locked(shard) => {
                let locked = Refusal::Locked { key: "k".into(), by: TxId(9) };
                attempt.prepared(shard, Err(locked.into()), &mut results)
            }
            Answer::Decided(committed) => {
                let decision = if committed { COMMITTED } else { Decision::Aborted };
                Next::Over(attempt.decided(Ok(TxAnswer::Decided { decision, result: None }), &mut results))
            }
            Answer::TooLate => {
                let refusal = Refusal::Aborted { tx: attempt.tx };
                Next::Over(attempt.decided(Err(refusal.into()), &mut results))
            }
        };
        self.next(world, next);
    }

    fn next(&self, world: &mut World, next: Next) {
        match next {
            Next::Wait => {}
            Next::Decide { .. } => {
                world.steps.insert(Step::Decide);
            }
            Next::Over(end) => {
                world.coordinator = None;
                let (told, then) = match end {
                    End::Committed { .. } => (Told::Done, Some(COMMITTED)),
                    End::Repeated(..) | End::Again(_) | End::Failed(_) => (Told::NotDone, Some(Decision::Aborted)),
                    End::Unknown => (Told::Unknown, None),
                };
                world.told = Some(told);
                world
                    .steps
                    .extend(then.into_iter().flat_map(|decision| OTHERS.map(|shard| carry_out(decision, shard))));
            }
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut steps: BTreeSet<Step> = OTHERS.map(Step::Prepare).into();
        if self.makes(Mistake::DecideUnprepared) {
            steps.insert(Step::Decide);
        }
        vec![World {
            coordinator: Some(Attempt::new(TxId(1), HOME, LogIndex(9), OTHERS.into())),
            told: None,
            record: None,
            behind_fence: false,
            others: OTHERS.map(|shard| (shard, Other::Untouched)).into(),
            steps,
            answers: BTreeSet::new(),
            committed: false,
            settled_first: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for step in &world.steps {
            actions.push(Action::Arrive(*step));
            if let Step::Prepare(shard) = step {
                actions.push(Action::Meet(*shard));
            }
        }
        actions.extend(world.answers.iter().map(|answer| Action::Hear(*answer)));
        if world.coordinator.is_some() {
            actions.extend([Action::GiveUp, Action::Vanish]);
        }
        for (shard, other) in &world.others {
            if *other == Other::Prepared && !world.steps.contains(&Step::Settle(*shard)) {
                actions.push(Action::LosePatience(*shard));
            }
        }
        if world.record.as_ref().is_some_and(|(_, unresolved)| !unresolved.is_empty()) {
            actions.push(Action::Remind);
        }
        if !world.behind_fence {
            actions.push(Action::PassFence);
        } else if world.record.as_ref().is_some_and(|(_, unresolved)| unresolved.is_empty()) {
            actions.push(Action::Collect);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Arrive(step) => {
                world.steps.remove(&step);
                self.arrive(&mut world, step);
            }
            Action::Meet(shard) => {
                world.steps.remove(&Step::Prepare(shard));
                world.answers.insert(Answer::Locked(shard));
            }
            Action::Hear(answer) => {
                world.answers.remove(&answer);
                self.hear(&mut world, answer);
            }
            Action::GiveUp => {
                let attempt = world.coordinator.as_mut()?;
                let (unknown, mut results) = (Error::UnknownOutcome(Default::default()), BTreeMap::new());
                let next = if attempt.is_deciding() {
                    Next::Over(attempt.decided(Err(unknown), &mut results))
                } else {
                    attempt.prepared(OTHERS[0], Err(Unavailable::Timeout.into()), &mut results)
                };
                self.next(&mut world, next);
            }
            Action::Vanish => world.coordinator = None,
            Action::LosePatience(shard) => {
                world.steps.insert(Step::Settle(shard));
            }
            Action::Remind => {
                let (decision, unresolved) = world.record.as_ref()?;
                world.steps.extend(unresolved.iter().map(|shard| carry_out(*decision, *shard)));
            }
            Action::PassFence => world.behind_fence = true,
            Action::Collect => world.record = None,
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("all of it or nothing", |_, world: &World| {
                let has = |what: Other| world.others.values().any(|other| *other == what);
                if world.committed { !has(Other::Released) } else { !has(Other::Written) }
            }),
            Property::always("the client is told the truth", |_, world: &World| match world.told {
                Some(Told::Done) => world.committed,
                Some(Told::NotDone) => !world.committed && !world.steps.contains(&Step::Decide),
                Some(Told::Unknown) | None => true,
            }),
            Property::always("whoever has prepared can be told", |_, world: &World| {
                let waits = world.others.values().any(|other| *other == Other::Prepared);
                !(waits && world.committed && world.record.is_none())
            }),
            Property::sometimes("it is committed everywhere", |_, world: &World| {
                world.others.values().all(|other| *other == Other::Written)
            }),
            Property::sometimes("a prepare comes after it was settled", |_, world: &World| {
                let late = |(shard, other): (&ShardId, &Other)| {
                    *other == Other::Untouched && world.steps.contains(&Step::Prepare(*shard))
                };
                world.settled_first && world.others.iter().any(late)
            }),
            Property::sometimes("a decision comes after it was settled", |_, world: &World| {
                world.settled_first && world.steps.contains(&Step::Decide)
            }),
            Property::sometimes("everything is forgotten", |_, world: &World| {
                world.committed && world.record.is_none()
            }),
        ]
    }
}

#[test]
fn every_interleaving_is_atomic_and_told_as_it_is() {
    let checker = Protocol { mistake: None }.checker().spawn_bfs().join();
    assert!(checker.is_done(), "every state was visited");
    checker.assert_properties();
    assert!(checker.unique_state_count() > 1_000, "{} states are too few", checker.unique_state_count());
}

#[test]
fn each_mistake_is_noticed() {
    use Mistake::{DecideBehindFence, DecideUnprepared, ForgetUnresolved, SettleUnwritten};
    for mistake in [SettleUnwritten, ForgetUnresolved, DecideBehindFence, DecideUnprepared] {
        let checker = Protocol { mistake: Some(mistake) }.checker().spawn_bfs().join();
        let broken = ["all of it or nothing", "the client is told the truth", "whoever has prepared can be told"];
        let found = broken.iter().any(|property| checker.discovery(property).is_some());
        assert!(found, "{mistake:?} was not noticed");
    }
}

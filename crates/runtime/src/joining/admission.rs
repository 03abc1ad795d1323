//! Which row a node that joins is given: a pure function of the rows and of what it says.

use super::Ask;
use quorate_cluster::BootMember;
use quorate_cluster::members::{MemberRow, MemberState, Roster};
use quorate_env::NodeId;

/// What becomes of a wish to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It was let in before: its directory has this id.
    Already(NodeId),
    /// These rows are written, the first of which is its own. `replaces` must not be alive.
    Write { rows: Vec<MemberRow>, replaces: Option<MemberRow> },
    /// Not as things are.
    Refused(String),
}

/// Decides, with an id that nobody ever had at hand.
pub(super) fn decide(roster: &Roster, first: &[BootMember], ask: &Ask, fresh: NodeId) -> Admission {
    let rows = || roster.rows.values().map(|(row, _)| row);
    if let Some(row) = rows().find(|row| row.incarnation == Some(ask.incarnation)) {
        return match row.state {
            MemberState::Leaving => Admission::Refused(format!("{} was removed while it joined", ask.name)),
            // It has moved.
            _ if !row.peer_addresses.contains(&ask.peer_address) => {
                let rows = vec![MemberRow { peer_addresses: vec![ask.peer_address.clone()], ..row.clone() }];
                Admission::Write { rows, replaces: None }
            }
            _ => Admission::Already(row.id),
        };
    }
    let named = rows().find(|row| row.name == ask.name && row.state != MemberState::Leaving);
    // Of the first configuration, and not registered.
    let silent = || {
        let silent = |m: &&BootMember| !roster.rows.contains_key(&m.id) && !roster.removed.contains_key(&m.id);
        first.iter().filter(silent)
    };
    let replaces =
        named.cloned().or_else(|| silent().find(|member| member.name == ask.name).map(MemberRow::of_founder));
    let own_address = |row: &&MemberRow| row.peer_addresses.contains(&ask.peer_address);
    let expected =
        rows().filter(|row| row.incarnation.is_none() && row.state != MemberState::Leaving).find(own_address);
    if expected.is_none() {
        let elsewhere = |row: &&MemberRow| {
            replaces.as_ref().is_none_or(|old| old.id != row.id) && row.state != MemberState::Leaving
        };
        let taken = rows().filter(elsewhere).find(own_address).map(|row| row.name.clone());
        let taken = taken.or_else(|| {
            let other = |m: &&BootMember| m.peer_address == ask.peer_address && m.name != ask.name;
            silent().find(other).map(|member| member.name.clone())
        });
        if let Some(name) = taken {
            return Admission::Refused(format!(
                "{name} has the peer address {}: choose another --listen-peer or --advertise-peer",
                ask.peer_address
            ));
        }
    }
    let own = MemberRow {
        id: expected.map_or(fresh, |row| row.id),
        incarnation: Some(ask.incarnation),
        name: ask.name.clone(),
        peer_addresses: vec![ask.peer_address.clone()],
        client_urls: ask.client_urls.clone(),
        state: match (expected, &replaces) {
            (Some(row), _) => row.state,
            (None, Some(MemberRow { state: MemberState::Learner, .. })) => MemberState::Learner,
            (None, _) => MemberState::Joining,
        },
    };
    let mut written = vec![own];
    written.extend(replaces.clone().map(|old| MemberRow { state: MemberState::Leaving, ..old }));
    Admission::Write { rows: written, replaces }
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::*;
    use quorate_env::{ClusterId, Incarnation};
    use quorate_kv::Revision;

    const FRESH: NodeId = NodeId(99);

    fn ask(name: &str, address: &str) -> Ask {
        Ask {
            question: Question::Join,
            cluster: ClusterId(0),
            token: 0,
            incarnation: Incarnation(50),
            name: name.into(),
            peer_address: address.into(),
            client_urls: Vec::new(),
        }
    }

    fn row(id: u64, incarnation: Option<u64>, name: &str, address: &str, state: MemberState) -> MemberRow {
        MemberRow {
            id: NodeId(id),
            incarnation: incarnation.map(Incarnation),
            name: name.into(),
            peer_addresses: vec![address.into()],
            client_urls: Vec::new(),
            state,
        }
    }

    fn roster(rows: &[MemberRow]) -> Roster {
        let rows = rows.iter().map(|row| (row.id, (row.clone(), Revision(1)))).collect();
        Roster { rows, ..Roster::default() }
    }

    #[test]
    fn a_stranger_gets_an_id_that_nobody_had() {
        let roster = roster(&[row(1, Some(1), "n1", "h:1", MemberState::Voter)]);
        let own = row(99, Some(50), "n2", "h:2", MemberState::Joining);
        let written = Admission::Write { rows: vec![own], replaces: None };
        assert_eq!(decide(&roster, &[], &ask("n2", "h:2"), FRESH), written);
    }

    #[test]
    fn asking_twice_is_asking_once() {
        let roster = roster(&[row(7, Some(50), "n2", "h:2", MemberState::Joining)]);
        assert_eq!(decide(&roster, &[], &ask("n2", "h:2"), FRESH), Admission::Already(NodeId(7)));
    }

    #[test]
    fn who_has_moved_keeps_its_id() {
        let known = row(7, Some(50), "n2", "h:2", MemberState::Voter);
        let moved = MemberRow { peer_addresses: vec!["h:9".into()], ..known.clone() };
        let written = Admission::Write { rows: vec![moved], replaces: None };
        assert_eq!(decide(&roster(&[known]), &[], &ask("n2", "h:9"), FRESH), written);
    }

    #[test]
    fn who_is_expected_at_the_address_gets_the_id_that_waits() {
        let roster = roster(&[row(7, None, "", "h:2", MemberState::Learner)]);
        let own = row(7, Some(50), "n2", "h:2", MemberState::Learner);
        let written = Admission::Write { rows: vec![own], replaces: None };
        assert_eq!(decide(&roster, &[], &ask("n2", "h:2"), FRESH), written);
    }

    #[test]
    fn a_lost_disk_means_a_new_id_in_place_of_the_old() {
        let old = row(2, Some(1), "n2", "h:2", MemberState::Voter);
        let own = row(99, Some(50), "n2", "h:2", MemberState::Joining);
        let leaving = MemberRow { state: MemberState::Leaving, ..old.clone() };
        let written = Admission::Write { rows: vec![own.clone(), leaving], replaces: Some(old.clone()) };
        assert_eq!(decide(&roster(&[old]), &[], &ask("n2", "h:2"), FRESH), written);
        // Also if it was lost before it had registered.
        let first = [BootMember { id: NodeId(2), name: "n2".into(), peer_address: "h:2".into() }];
        let Admission::Write { rows, replaces } = decide(&Roster::default(), &first, &ask("n2", "h:2"), FRESH) else {
            panic!("it may join");
        };
        assert_eq!(
            (rows[0].clone(), rows[1].state, replaces.map(|old| old.id)),
            (own, MemberState::Leaving, Some(NodeId(2)))
        );
    }

    #[test]
    fn another_members_address_is_refused() {
        let roster = roster(&[row(1, Some(1), "n1", "h:1", MemberState::Voter)]);
        assert!(matches!(decide(&roster, &[], &ask("n2", "h:1"), FRESH), Admission::Refused(_)));
        let first = [BootMember { id: NodeId(3), name: "n3".into(), peer_address: "h:3".into() }];
        assert!(matches!(decide(&roster, &first, &ask("n2", "h:3"), FRESH), Admission::Refused(_)));
    }
}

//! A report for people: the verdict, what each keyspace survives, and what to do.

use super::examine::{Finding, Proof, Report, Verdict, Weight};

/// Findings that are printed; all of them are in the JSON.
const FINDINGS_MAX: usize = 12;

pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![verdict(report)];
    if report.nodes > 1 {
        lines.push(match report.members_may_fail {
            None => format!("{} members vote: too many of them have failed.", report.members),
            Some(0) => format!("{} members vote: none more of them may fail.", report.members),
            Some(more) => format!("{} members vote: any {more} of them may fail.", report.members),
        });
        lines.extend(report.keyspaces.iter().map(keyspace));
    }
    let findings = together(&report.findings);
    for (finding, shards) in findings.iter().take(FINDINGS_MAX) {
        let weight = match finding.weight {
            Weight::Hint => "hint",
            Weight::Risk => "risk",
            Weight::Down => "DOWN",
        };
        let more = if *shards > 1 { format!(" (and {} more shards)", shards - 1) } else { String::new() };
        lines.push(format!("{weight}: {}{}{more}", place(finding), finding.wrong));
        lines.push(format!("      {}", finding.advice));
    }
    if findings.len() > FINDINGS_MAX {
        lines.push(format!("... and {} more: quorate doctor --json says all", findings.len() - FINDINGS_MAX));
    }
    lines
}

fn verdict(report: &Report) -> String {
    if report.nodes == 1 {
        return "1 node: survives 0 failures.".into();
    }
    let node = match (&report.any_one_node, report.members_may_fail) {
        (Verdict::No { because }, None) => format!("Too many have failed ({because})"),
        (Verdict::No { because }, Some(0)) => format!("No further node may fail ({because})"),
        (Verdict::No { because }, Some(_)) => format!("Not every node may fail ({because})"),
        (Verdict::Yes | Verdict::NoZones, _) => "Any one node may fail".into(),
    };
    let zones = report.zones.join(", ");
    let zone = match &report.any_one_zone {
        Verdict::NoZones => "no zones said".into(),
        Verdict::Yes => format!("zones: {zones}, any one may fail"),
        Verdict::No { because } => format!("zones: {zones}, not every one may fail ({because})"),
    };
    let answer =
        if report.answering == 1 { "1 node answers".into() } else { format!("{} nodes answer", report.answering) };
    format!("{answer} of {}. {node}; {zone}.", report.nodes)
}

fn keyspace(proof: &Proof) -> String {
    let told = |verdict: &Verdict| match verdict {
        Verdict::Yes => "yes".into(),
        Verdict::No { because } => format!("no ({because})"),
        Verdict::NoZones => "no zones said".into(),
    };
    let shards = if proof.shards == 1 { "1 shard".into() } else { format!("{} shards", proof.shards) };
    let replicas = proof.replicas.map_or("one on every member".into(), |replicas| replicas.to_string());
    format!(
        "{} ({shards}, replicas: {replicas}) survives the loss of any one node: {}; of any one zone: {}.",
        proof.keyspace,
        told(&proof.any_one_node),
        told(&proof.any_one_zone)
    )
}

fn place(finding: &Finding) -> String {
    match (&finding.keyspace, finding.shard) {
        (None, _) => String::new(),
        (Some(keyspace), None) => format!("{keyspace}: "),
        (Some(keyspace), Some(shard)) => format!("{keyspace}, shard {shard}: "),
    }
}

/// Shards of one keyspace for which the same is to be done, as the first of them and how many they are.
fn together(findings: &[Finding]) -> Vec<(&Finding, usize)> {
    let mut told: Vec<(&Finding, usize)> = Vec::new();
    for finding in findings {
        let same = |one: &&mut (&Finding, usize)| {
            let key = |it: &Finding| (it.weight, it.keyspace.clone(), it.shard.is_some(), it.advice.clone());
            finding.shard.is_some() && key(one.0) == key(finding)
        };
        match told.iter_mut().find(same) {
            Some((_, shards)) => *shards += 1,
            None => told.push((finding, 1)),
        }
    }
    told
}

//! `quorate sim --scenario`: textbook situations, and whether they end as their text claims.

use crate::cli::SimArgs;
use crate::diagram::write_file;
use crate::failure::Failure;
use quorate_sim::{SCENARIOS, scenario};
use std::io::Write;

pub fn run(name: &str, args: &SimArgs) -> Result<(), Failure> {
    if name == "list" {
        SCENARIOS.iter().for_each(|scenario| println!("{:<16} {}", scenario.name, scenario.title));
        return Ok(());
    }
    let scenario = scenario(name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        Failure::Usage(format!("no scenario is called {name:?}; there are: {}", names.join(", ")))
    })?;
    let play = scenario.run(args.seed.unwrap_or(1));
    println!("{}: {}\n\n{}\n\n{}\n", scenario.name, scenario.title, scenario.text, scenario.source);
    play.findings.iter().for_each(|finding| println!("{finding}"));
    if let Some(file) = &args.trace {
        write_file(file, |to| play.trace.write_json(to))?;
    }
    if let Some(file) = &args.diagram {
        write_file(file, |to| to.write_all(quorate_sim::diagram(&play.trace).as_bytes()))?;
    }
    match play.findings.iter().filter(|finding| !finding.holds).count() {
        0 => Ok(()),
        broken => Err(Failure::Violation(format!("{broken} of the claims do not hold"))),
    }
}

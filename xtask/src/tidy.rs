//! Checks that no compiler makes: which crate may see which, that every crate is on the map, that no file owns everything, that pages about
//! formats exist, and that what was banned has not come back.

use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may import of the others: the floors of ARCHITECTURE.md.
const FLOORS: &[(&str, &[&str])] = &[
    ("env", &[]),
    ("kv", &["env"]),
    ("consensus", &["env"]),
    ("storage", &["env"]),
    ("shard", &["env", "kv", "storage"]),
    ("cluster", &["env", "kv", "consensus", "storage", "shard"]),
    ("trace", &["env", "kv", "consensus", "cluster"]),
    ("runtime", &["env", "kv", "storage", "shard", "cluster", "trace"]),
    ("sim", &["env", "kv", "consensus", "storage", "shard", "cluster", "trace"]),
    ("etcd", &["env", "kv"]),
    ("native", &["env", "kv"]),
    ("client", &[]),
    ("chaos", &["env", "kv", "sim", "etcd", "client"]),
    ("app", &["env", "kv", "cluster", "trace", "runtime", "sim", "etcd", "native", "client", "chaos"]),
    ("lab", &["env", "etcd"]),
];

/// Crates below the sockets: nothing in them may read a clock, draw randomness, start a thread or open a file.
const PURE: &[&str] = &["env", "kv", "consensus", "shard", "cluster", "trace"];

/// Banned in pure crates, with what to use instead.
const BANNED_IN_PURE: &[(&str, &str)] = &[
    ("std::time::Instant", "the `now` that is passed in"),
    ("SystemTime", "the wall clock in Input::Tick"),
    ("std::thread", "an output that asks the driver"),
    ("std::fs", "storage, or an output that asks the driver"),
    ("std::net", "an output that asks the driver"),
    ("thread_rng", "env::Rng"),
    ("tokio", "Input and Outputs"),
];

/// Lines at which a file eats the house.
const FILE_LINES_MAX: usize = 1_200;

/// Pages that draw the formats.
const FORMAT_PAGES: &[&str] = &[
    "docs/design/log-format.md",
    "docs/design/store-format.md",
    "docs/design/trace-format.md",
    "docs/design/wire-format.md",
];

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_path_buf()
}

/// Everything that is wrong, as sentences.
pub fn check(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    for entry in fs::read_dir(root.join("crates")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match FLOORS.iter().find(|(known, _)| *known == name) {
            None => problems.push(format!("crate {name} has no floor: add it to FLOORS and to ARCHITECTURE.md")),
            Some((_, allowed)) => check_floor(&entry.path(), &name, allowed, &mut problems),
        }
        if !map.contains(&format!("**{name}**")) {
            problems.push(format!("crate {name} is not on the map: give it a paragraph in ARCHITECTURE.md"));
        }
        for file in rust_files(&entry.path().join("src")) {
            check_file(root, &file, &name, &mut problems);
        }
    }
    for page in FORMAT_PAGES {
        if !root.join(page).is_file() {
            problems.push(format!("{page} is missing"));
        }
    }
    problems
}

fn check_floor(path: &Path, name: &str, allowed: &[&str], problems: &mut Vec<String>) {
    let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    for line in manifest.lines() {
        if let Some(other) = line.strip_prefix("quorate-").and_then(|rest| rest.split(['.', ' ', '=']).next())
            && !allowed.contains(&other)
        {
            problems.push(format!("crate {name} must not see {other}: imports run downward (ARCHITECTURE.md)"));
        }
    }
}

fn check_file(root: &Path, file: &Path, name: &str, problems: &mut Vec<String>) {
    let shown = file.strip_prefix(root).unwrap_or(file).display();
    let text = fs::read_to_string(file).unwrap_or_default();
    if text.lines().count() > FILE_LINES_MAX {
        problems.push(format!("{shown} has more than {FILE_LINES_MAX} lines: it owns too much"));
    }
    if !text.starts_with("//!") {
        problems.push(format!("{shown} does not open with why it exists"));
    }
    // Tests of a pure crate may read their scripts.
    let only_tested =
        file.components().any(|part| matches!(part.as_os_str().to_str(), Some("stories" | "stories.rs" | "tests.rs")));
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    for (number, line) in code.enumerate() {
        for (word, instead) in BANNED_IN_PURE.iter().filter(|_| PURE.contains(&name) && !only_tested) {
            if line.contains(word) {
                problems.push(format!("{shown}, about line {number}: {word} is banned here: use {instead}"));
            }
        }
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_as_the_map_says() {
        let problems = check(&root());
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn a_wrong_import_and_a_missing_page_are_noticed() {
        let dir = std::env::temp_dir().join(format!("quorate-tidy-{}", std::process::id()));
        let kv = dir.join("crates/kv/src");
        fs::create_dir_all(&kv).expect("a folder");
        fs::write(dir.join("crates/kv/Cargo.toml"), "[dependencies]\nquorate-shard.workspace = true\n")
            .expect("a file");
        fs::write(kv.join("lib.rs"), "use std::time::Instant;\n").expect("a file");
        let problems = check(&dir).join("\n");
        fs::remove_dir_all(&dir).expect("the folder was ours");
        for expected in [
            "must not see shard",
            "not on the map",
            "does not open with why",
            "is banned here",
            "wire-format.md is missing",
        ] {
            assert!(problems.contains(expected), "{expected:?} not in:\n{problems}");
        }
    }
}

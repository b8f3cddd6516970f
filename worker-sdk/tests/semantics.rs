//! The table of semantics in the documentation and the tests say the same: every test
//! that the table names exists, and every behaviour is in the table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust source under these folders.
fn sources(folders: &[&str]) -> Vec<String> {
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut sources = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(std::fs::read_to_string(path).unwrap());
        }
    }
    sources
}

/// Names in lists of the form `behaviours! { a, b }`.
fn behaviours(source: &str) -> Vec<String> {
    let lists = source.split("\nbehaviours! {").skip(1);
    let names = lists.flat_map(|list| list.split('}').next().unwrap_or_default().split(','));
    let plain = names.map(|name| name.rsplit(':').next().unwrap_or_default().trim().to_owned());
    plain.filter(|name| !name.is_empty()).collect()
}

/// Names of functions, among them every test.
fn functions(source: &str) -> Vec<String> {
    let after = source.split("fn ").skip(1);
    after.filter_map(|rest| rest.split(['(', '<']).next()).map(|name| name.trim().to_owned()).collect()
}

/// What stands in the last column of the tables, as code.
fn named_in(table: &str) -> BTreeSet<String> {
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.trim_end().trim_end_matches('|').rsplit('|').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn the_table_of_semantics_names_tests_that_exist_and_every_behaviour() {
    let table = std::fs::read_to_string(root().join("docs/reference/semantics.md")).unwrap();
    let named = named_in(&table);
    let tests: BTreeSet<String> =
        sources(&["registry/src", "registry/tests", "worker-sdk/src", "worker-sdk/tests"])
            .iter()
            .flat_map(|source| functions(source))
            .collect();
    let listed: BTreeSet<String> =
        sources(&["worker-sdk/tests/behaviours"]).iter().flat_map(|source| behaviours(source)).collect();
    assert!(listed.len() >= 35, "only {} behaviours were found", listed.len());
    let unknown: Vec<_> = named.difference(&tests).collect();
    assert!(unknown.is_empty(), "docs/reference/semantics.md names tests that do not exist: {unknown:#?}");
    let missing: Vec<_> = listed.difference(&named).collect();
    assert!(missing.is_empty(), "docs/reference/semantics.md lacks these behaviours: {missing:#?}");
}

#[test]
fn lists_and_tables_are_read_as_they_are_written() {
    let source = "\nbehaviours! {\n    a_b,\n    c,\n}\n\nbehaviours! {\n    paused_only: d,\n}\nasync fn a_b(world: World) {}";
    assert_eq!(behaviours(source), ["a_b", "c", "d"]);
    assert_eq!(functions("pub fn one() {} async fn two<T>() {}"), ["one", "two"]);
    let table = "| Rule | Guarantee | Test |\n|---|---|---|\n| `x` | y | `one`, `two` |\nnot `three`\n";
    assert_eq!(named_in(table), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
}

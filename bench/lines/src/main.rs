//! Counts the lines of the four programs, and holds the table in `docs/reference/compared.md`
//! against them. It changes nothing. That they compile is the make target's to check.

use std::path::Path;
use std::process::ExitCode;

/// A program, the file that says which release of its library it is compiled with, and the
/// words that come before that release there.
struct Program {
    source: &'static str,
    lock: &'static str,
    before: &'static str,
}

/// In the order of the table's columns.
const PROGRAMS: [Program; 4] = [
    Program {
        source: "bench/bellows/src/main.rs",
        lock: "bench/Cargo.lock",
        before: "name = \"bellows-sdk\"\nversion = \"",
    },
    Program {
        source: "bench/restate/src/main.rs",
        lock: "bench/Cargo.lock",
        before: "name = \"restate-sdk\"\nversion = \"",
    },
    Program {
        source: "bench/apalis/src/main.rs",
        lock: "bench/Cargo.lock",
        before: "name = \"apalis\"\nversion = \"",
    },
    Program {
        source: "bench/river/main.go",
        lock: "bench/river/go.mod",
        before: "github.com/riverqueue/river v",
    },
];

const TABLE: &str = "docs/reference/compared.md";

/// A line counts if it is not blank and not only a comment.
fn counts(line: &str) -> bool {
    let line = line.trim();
    assert!(!line.starts_with("/*"), "only comments by the line are told from code: {line}");
    !line.is_empty() && !line.starts_with("//")
}

fn release<'a>(lock: &'a str, before: &str) -> &'a str {
    let (_, after) = lock.split_once(before).unwrap_or_else(|| panic!("no {before:?} in the lock file"));
    after.split(['"', '\n']).next().unwrap_or(after)
}

fn row(name: &str, cells: &[String]) -> String {
    format!("| {name} | {} |", cells.join(" | "))
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| {
        std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("reading {file}: {error}"))
    };
    let lines = PROGRAMS.map(|p| read(p.source).lines().filter(|line| counts(line)).count().to_string());
    let releases = PROGRAMS.map(|p| release(&read(p.lock), p.before).to_owned());
    let table = read(TABLE);

    let rows = [row("**Lines**", &lines), row("Release", &releases)];
    let missing: Vec<_> = rows.iter().filter(|row| !table.lines().any(|line| line == *row)).collect();
    for row in &missing {
        eprintln!("{TABLE} is behind the programs. Its table should have this row:\n{row}");
    }
    if !missing.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("{TABLE} says what is counted:\n{}\n{}", rows[0], rows[1]);
    ExitCode::SUCCESS
}

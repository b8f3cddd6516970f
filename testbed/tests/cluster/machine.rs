//! What a cluster could leave on the machine, as text to compare.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// The machine at one moment. Things of other testbeds, which may come and go meanwhile, are left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
    sysctls: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Machine {
    pub(crate) fn look(name: &str) -> Result<Self> {
        let own = |text: &String| !text.contains("bellows-") || text.contains(&format!("bellows-{name}"));
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mut cgroups = BTreeSet::new();
        for line in mounts.lines().filter(|line| line.starts_with("cgroup")) {
            folders(Path::new(line.split(' ').nth(1).unwrap_or("/")), &mut cgroups);
        }
        let mut sysctls = BTreeSet::new();
        for room in ["vm", "kernel", "net"] {
            settings(&Path::new("/proc/sys").join(room), &mut sysctls);
        }
        let mut files = BTreeSet::new();
        folders(Path::new("/run"), &mut files);
        for folder in ["/tmp", "/var", "/var/lib", "/var/log", "/usr/libexec", "/etc", "/etc/cni"] {
            names(Path::new(folder), &mut files);
        }
        files.retain(|file| !file.starts_with("/tmp/") || file.contains("bellows-"));
        Ok(Self {
            mounts: mounts.lines().map(str::to_owned).filter(own).collect(),
            cgroups: cgroups.into_iter().filter(own).collect(),
            links: lines("ip", &["-brief", "link"])?,
            tables: lines("nft", &["list", "tables"])?,
            sysctls,
            files: files.into_iter().filter(own).collect(),
        })
    }

    /// What is here and was not there, or was there and is not here.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let pairs = [
            (&before.mounts, &self.mounts),
            (&before.cgroups, &self.cgroups),
            (&before.links, &self.links),
            (&before.tables, &self.tables),
            (&before.sysctls, &self.sysctls),
            (&before.files, &self.files),
        ];
        pairs
            .iter()
            .flat_map(|(old, new)| {
                let gone = old.difference(new).map(|text| format!("gone: {text}"));
                gone.chain(new.difference(old).map(|text| format!("new: {text}"))).collect::<Vec<_>>()
            })
            .collect()
    }
}

fn lines(program: &str, args: &[&str]) -> Result<BTreeSet<String>> {
    let output = Command::new(program).args(args).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn names(folder: &Path, into: &mut BTreeSet<String>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    into.extend(entries.map(|entry| entry.path().display().to_string()));
}

fn folders(root: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            into.insert(entry.path().display().to_string());
            folders(&entry.path(), into);
        }
    }
}

fn settings(root: &Path, into: &mut BTreeSet<String>) {
    // These count or draw lots and differ from one moment to the next.
    const RESTLESS: [&str; 7] =
        ["random", "ns_last_pid", "count", "pty", "stat", "drop_caches", "compact_memory"];
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if RESTLESS.iter().any(|restless| name.contains(restless)) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            settings(&path, into);
        } else if let Ok(value) = fs::read_to_string(&path) {
            into.insert(format!("{} = {}", path.display(), value.trim()));
        }
    }
}

/// Namespaces by their numbers.
pub(crate) type Namespaces = BTreeSet<(u64, u64)>;

const KINDS: [&str; 5] = ["net", "pid", "mnt", "uts", "ipc"];

/// The namespaces that processes of this machine are in and this process is not.
pub(crate) fn foreign_namespaces() -> Namespaces {
    let own = namespaces_of("self");
    pids().flat_map(|pid| namespaces_of(&pid)).filter(|id| !own.contains(id)).collect()
}

/// The processes that are in one of these namespaces or speak of this folder in their command line.
pub(crate) fn processes_of(namespaces: &Namespaces, folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let belongs = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&folder)
            || namespaces_of(pid).iter().any(|id| namespaces.contains(id))
    };
    pids().filter(belongs).collect()
}

/// What these processes are, for a person.
pub(crate) fn commands_of(pids: &[String]) -> Vec<String> {
    let line = |pid: &String| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.iter()
        .map(|pid| format!("{pid}: {}", String::from_utf8_lossy(&line(pid)).replace('\0', " ")))
        .collect()
}

fn namespaces_of(pid: &str) -> Namespaces {
    let number = |kind: &&str| {
        let metadata = fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    KINDS.iter().filter_map(number).collect()
}

fn pids() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.parse::<i32>().is_ok())
}

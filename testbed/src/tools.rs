//! The programs of the testbed, built from the Go modules in `tools/` into a cache and verified on every use.
//!
//! An entry of the cache is complete when its `B2SUMS` is there and every file matches it; that file is written
//! last, in a folder that gets its final name last. Anything less is thrown away and built again, under a lock.
//! Must not touch anything outside the cache folder.

mod recipe;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

pub use self::recipe::Tool;
use self::recipe::{Build, Recipe};
use crate::command::{command, run};
use crate::error::{Error, IoContext, Result};
use crate::lock::FileLock;
use crate::log::{say, step};

/// Written by `b2sum`, which is twice as fast as `sha256sum` on the 300 MB of a cluster.
const SUMS: &str = "B2SUMS";

/// Entries that this process has verified already.
static VERIFIED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Tool {
    /// The folder with the tool's programs; builds them when they are not in the cache.
    ///
    /// # Errors
    /// When `go` is missing or too old, or the build fails.
    pub fn ensure(self) -> Result<PathBuf> {
        let recipe = self.recipe();
        let source = sources()?.join(recipe.module);
        let entry = entry(&recipe, &source)?;
        if verified().contains(&entry) {
            return Ok(entry);
        }
        if !is_complete(&entry) {
            let _lock = FileLock::wait(&beside(&entry, "lock"))?;
            // Another process may have built it while this one waited.
            if !is_complete(&entry) {
                self.build_entry(&recipe, &source, &entry)?;
            }
        }
        verified().push(entry.clone());
        Ok(entry)
    }

    /// The tool of this name, which is that of its folder in `tools/`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.recipe().module == name)
    }

    /// Verifies several tools side by side, and builds those that are missing one after another, as `go` uses every
    /// processor by itself.
    ///
    /// # Errors
    /// As [`Tool::ensure`].
    pub fn ensure_all(tools: &[Self]) -> Result<()> {
        std::thread::scope(|scope| {
            for tool in tools {
                scope.spawn(|| tool.verify());
            }
        });
        tools.iter().try_for_each(|tool| tool.ensure().map(drop))
    }

    /// Remembers the tool as verified when its entry is complete.
    fn verify(self) {
        let recipe = self.recipe();
        if let Ok(entry) = sources().and_then(|folder| entry(&recipe, &folder.join(recipe.module)))
            && is_complete(&entry)
        {
            verified().push(entry);
        }
    }

    /// The path of one program of the tool.
    ///
    /// # Errors
    /// As [`Tool::ensure`].
    pub fn program(self, name: &str) -> Result<PathBuf> {
        let path = self.ensure()?.join(name);
        if path.exists() { Ok(path) } else { Err(Error::Invalid(format!("{self:?} has no program {name}"))) }
    }

    fn build_entry(self, recipe: &Recipe, source: &Path, entry: &Path) -> Result<()> {
        require_go(source)?;
        if entry.exists() {
            say(&format!("{} in the cache is broken; building it again", recipe.module));
            fs::remove_dir_all(entry).context(|| format!("remove {}", entry.display()))?;
        }
        let staging = beside(entry, "building");
        if staging.exists() {
            fs::remove_dir_all(&staging).context(|| format!("remove {}", staging.display()))?;
        }
        fs::create_dir_all(&staging).context(|| format!("make {}", staging.display()))?;
        let (module, version) = (recipe.module, recipe.version);
        say(&format!("building {module} {version} (from nothing usually {})", self.usual()));
        step(&format!("built {module} {version}"), || {
            recipe.builds.iter().try_for_each(|build| go_build(build, source, &staging))
        })?;
        for (link, target) in recipe.links {
            std::os::unix::fs::symlink(target, staging.join(link)).context(|| format!("link {link}"))?;
        }
        let mut sum = Command::new("b2sum");
        sum.current_dir(&staging).args(recipe.builds.iter().map(|build| build.output));
        let sums = run(&mut sum)?;
        fs::write(staging.join(SUMS), sums).context(|| format!("write {SUMS}"))?;
        fs::rename(&staging, entry).context(|| format!("rename to {}", entry.display()))
    }
}

fn verified() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    VERIFIED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Where the Go modules are: `$BELLOWS_TOOLS`, else `tools/` beside this crate.
fn sources() -> Result<PathBuf> {
    let folder = match std::env::var_os("BELLOWS_TOOLS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools"),
    };
    folder.canonicalize().map_err(|_| {
        let shown = folder.display();
        Error::Invalid(format!("{shown} is missing: set BELLOWS_TOOLS to the tools folder of the repository"))
    })
}

/// The cache: `$BELLOWS_CACHE`, else `$HOME/.cache/bellows`.
fn cache() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("BELLOWS_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let home = std::env::var_os("HOME")
        .ok_or_else(|| Error::Invalid("set HOME or BELLOWS_CACHE: the tools need a folder".to_owned()))?;
    Ok(Path::new(&home).join(".cache/bellows"))
}

/// The folder's name holds everything that decides what is built.
fn entry(recipe: &Recipe, source: &Path) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "main.go"] {
        hash.update(file);
        match fs::read(source.join(file)) {
            Ok(bytes) => hash.update(bytes),
            // A module whose programs all come from elsewhere has no main.go, one without dependencies no go.sum.
            Err(_) if file != "go.mod" => hash.update("none"),
            Err(source) => return Err(source).context(|| format!("read {file} of {}", recipe.module)),
        }
    }
    hash.update(format!("{recipe:?} {}", std::env::consts::ARCH));
    let digest: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(cache()?.join("tools").join(format!("{}-{}-{digest}", recipe.module, recipe.version)))
}

/// `with_extension` would take the end of the version for an extension.
fn beside(entry: &Path, suffix: &str) -> PathBuf {
    let mut path = entry.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    PathBuf::from(path)
}

fn is_complete(entry: &Path) -> bool {
    if !entry.join(SUMS).exists() {
        return false;
    }
    let mut check = command("b2sum", &["--check", "--strict", "--status", SUMS]);
    run(check.current_dir(entry)).is_ok()
}

fn go_build(build: &Build, source: &Path, out: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .args(["build", "-trimpath", "-buildvcs=false", "-tags", build.tags, "-ldflags"])
        .arg(format!("-s -w {}", build.ldflags))
        .arg("-o")
        .arg(out.join(build.output))
        .arg(build.package);
    run(&mut go).map(drop)
}

/// Go 1.26 is what the modules ask for; `go` itself would say so in many more words.
fn require_go(source: &Path) -> Result<()> {
    const NEEDED: u32 = 26;
    let remedy = "install Go 1.26 or newer from https://go.dev/dl/ and put its bin folder on PATH";
    if run(command("go", &["env", "GOVERSION"]).current_dir(source)).is_err() {
        // Installing a Go that is too old would help nobody.
        let newest = crate::host::apt_candidate("golang-go");
        if newest.as_deref().and_then(minor_of).is_some_and(|minor| minor >= NEEDED) {
            crate::host::apt_install(&["golang-go"])?;
        }
    }
    let version = run(command("go", &["env", "GOVERSION"]).current_dir(source))
        .map_err(|_| Error::Missing { program: "go".to_owned(), remedy: remedy.to_owned() })?;
    match minor_of(version.trim().trim_start_matches("go")) {
        Some(minor) if minor >= NEEDED => Ok(()),
        _ => Err(Error::Missing {
            program: format!("a new enough go (found {})", version.trim()),
            remedy: remedy.to_owned(),
        }),
    }
}

/// `1.26.8` and Debian's `2:1.26~2` both have the minor version 26.
fn minor_of(version: &str) -> Option<u32> {
    let version = version.rsplit(':').next()?;
    let minor = version.strip_prefix("1.")?;
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::minor_of;

    #[test]
    fn the_minor_version_is_read_from_go_and_from_debian() {
        assert_eq!(minor_of("1.26.8"), Some(26));
        assert_eq!(minor_of("2:1.19~1"), Some(19));
        assert_eq!(minor_of("devel"), None);
    }
}

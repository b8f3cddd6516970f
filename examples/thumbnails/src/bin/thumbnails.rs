//! The publisher: `publish` asks for one thumbnail a photograph, `wait` awaits what was
//! asked for, in this process or in another, now or later; `watch`, `cancel` and `replay`
//! do what their names say.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellows_example_thumbnails::refs::{self, RefFile, SavedRef};
use bellows_example_thumbnails::task::Request;
use bellows_example_thumbnails::worker::thumbnails;
use bellows_example_thumbnails::{asking, awaiting};
use bellows_sdk::prelude::*;
use clap::{Args, Parser, Subcommand};
use futures::stream::{self, StreamExt};

/// How many publishes wait for their acknowledgement at a time.
const AT_ONCE: usize = 500;

/// Publishes thumbnails and awaits them. BELLOWS_ETCD_ENDPOINTS says where the registry
/// is, BELLOWS_NAMESPACE in which namespace the TaskDefinition.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Publish one task for each photograph of a folder, and save the refs.
    Publish(PublishArgs),
    /// Await the tasks of saved refs; ends with 1 if any of them failed.
    Wait(WaitArgs),
    /// Print what the tasks of saved refs are busy with, until all have ended.
    Watch(Saved),
    /// Cancel the tasks of saved refs.
    Cancel(Saved),
    /// Run those tasks of saved refs again that were given up.
    Replay(Saved),
}

#[derive(Args)]
struct PublishArgs {
    /// The volume's root, as the workers have it.
    #[arg(long, env = "THUMBNAILS_VOLUME", default_value = "/volume")]
    volume: PathBuf,
    /// The folder of photographs, on the volume.
    #[arg(long)]
    photos: PathBuf,
    /// Refs are appended to this file.
    #[arg(long)]
    refs: PathBuf,
    /// How wide a thumbnail is, in pixels.
    #[arg(long, default_value_t = 320)]
    width: u32,
    /// The tasks are not due before so many seconds.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    delay: u64,
    /// Await the tasks, too.
    #[arg(long)]
    wait: bool,
    /// With --wait: write what became of each to this file.
    #[arg(long, requires = "wait")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct Saved {
    /// The file of saved refs.
    #[arg(long)]
    refs: PathBuf,
}

#[derive(Args)]
struct WaitArgs {
    #[command(flatten)]
    saved: Saved,
    /// Write what became of each to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Verb::Publish(args) => publish(args).await,
        Verb::Wait(args) => wait(&args.saved.refs, args.json.as_deref()).await,
        Verb::Watch(saved) => ask(&saved, asking::watch).await,
        Verb::Cancel(saved) => ask(&saved, asking::cancel).await,
        Verb::Replay(saved) => ask(&saved, asking::replay).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("thumbnails: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn publish(args: PublishArgs) -> Result<ExitCode> {
    let photos = photographs(&args.volume, &args.photos)?;
    let bellows = Bellows::from_env().await?;
    let mut file = RefFile::append_to(&args.refs)?;
    // Published at once they travel together, a hundred tasks a request; each ref is saved
    // as soon as its task is acknowledged.
    let publish = |path: &String| {
        let request = Request { path: path.clone(), width: args.width };
        let task = bellows.publish::<thumbnails>(request).delay(Duration::from_secs(args.delay));
        let path = path.clone();
        async move {
            let task = task.await.with_context(|| format!("publishing {path}"))?.to_ref();
            Ok::<_, anyhow::Error>(SavedRef { path, task })
        }
    };
    let mut acknowledged = stream::iter(photos.iter().map(publish)).buffered(AT_ONCE).ready_chunks(AT_ONCE);
    while let Some(answers) = acknowledged.next().await {
        let (saved, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        file.save(&saved.into_iter().flatten().collect::<Vec<_>>())?;
        if let Some(Err(error)) = refused.into_iter().next() {
            return Err(error);
        }
    }
    println!("published {} tasks; their refs are in {}", photos.len(), args.refs.display());
    if args.wait { wait(&args.refs, args.json.as_deref()).await } else { Ok(ExitCode::SUCCESS) }
}

async fn wait(refs: &Path, json: Option<&Path>) -> Result<ExitCode> {
    let saved = refs::read(refs)?;
    let bellows = Bellows::from_env().await?;
    let endings = awaiting::all(&bellows, saved).await?;
    if let Some(file) = json {
        awaiting::save(file, &endings)?;
    }
    let failed = endings.iter().filter(|ending| ending.error.is_some()).count();
    println!("{} of {} thumbnails are there", endings.len() - failed, endings.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask(
    saved: &Saved,
    what: impl AsyncFnOnce(&Bellows, Vec<SavedRef>) -> Result<()>,
) -> Result<ExitCode> {
    let refs = refs::read(&saved.refs)?;
    what(&Bellows::from_env().await?, refs).await?;
    Ok(ExitCode::SUCCESS)
}

/// The photographs of a folder, relative to the volume, by name.
fn photographs(volume: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut photos = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if ["jpg", "jpeg", "png"].iter().any(|known| extension == *known) {
            let relative = path.strip_prefix(volume);
            let relative = relative.with_context(|| format!("{} is not on the volume", path.display()))?;
            photos.push(relative.to_str().context("a name that is not UTF-8")?.to_owned());
        }
    }
    ensure!(!photos.is_empty(), "no JPEG or PNG in {}", folder.display());
    photos.sort();
    Ok(photos)
}

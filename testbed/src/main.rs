//! The command line of the testbed. Only parses, prints and calls the library.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bellows_testbed::{ImageSpec, Testbed, TestbedOptions, Tool};
use clap::{Args, Parser, Subcommand};

/// A real Kubernetes on this machine, without Docker and without an image registry.
#[derive(Parser)]
#[command(name = "testbed", version)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Args)]
struct Name {
    /// Which cluster; several of different names run side by side.
    #[arg(long, default_value = "default")]
    name: String,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster, or use the healthy one that is there.
    Up {
        #[command(flatten)]
        name: Name,
        /// How many nodes, 1 to 9.
        #[arg(long, default_value_t = 1)]
        nodes: usize,
    },
    /// Take a cluster away, whatever state it is in.
    Down(Name),
    /// Say what runs; fails when something does not.
    Status(Name),
    /// Load OCI image archives into every node.
    LoadImage {
        #[command(flatten)]
        name: Name,
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Pack static programs into an OCI image archive.
    Image(ImageArgs),
    /// Print KUBECONFIG and PATH for a shell: eval "$(testbed env)".
    Env(Name),
    /// Run a command inside the cluster's network, with KUBECONFIG and PATH set.
    Run {
        #[command(flatten)]
        name: Name,
        /// The command and its arguments, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Build the programs that are not in the cache and print where they are.
    Tools {
        /// Only these, by the names of their folders in tools/. Default: all.
        names: Vec<String>,
    },
}

#[derive(Args)]
struct ImageArgs {
    /// The image's name with its tag, as localhost/app:v1.
    #[arg(long)]
    image: String,
    /// A file and its place in the image: target/app:/app. May be repeated.
    #[arg(long = "file", value_name = "SOURCE:PATH", required = true)]
    files: Vec<String>,
    /// The command line of a container, a word each. Default: the first file.
    #[arg(long)]
    entrypoint: Vec<String>,
    /// A variable of the environment. May be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The archive to write.
    #[arg(long, short)]
    output: PathBuf,
}

fn main() -> ExitCode {
    match obey(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes in one line; a backtrace would tell the user nothing.
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Up { name, nodes } => {
            let testbed = Testbed::up(&TestbedOptions::new(&name.name).nodes(nodes))?;
            let flag = if name.name == "default" { String::new() } else { format!(" --name {}", name.name) };
            eprintln!("testbed: try `testbed run{flag} -- kubectl get pods --all-namespaces`");
            eprintln!("testbed: kubeconfig {}", testbed.kubeconfig().display());
            Ok(())
        }
        Verb::Down(name) => Ok(Testbed::remove(&name.name)?),
        Verb::Status(name) => status(&name.name),
        Verb::LoadImage { name, archives } => {
            let testbed = open(&name.name)?;
            for archive in archives {
                testbed.load_image(&archive)?;
                eprintln!("testbed: loaded {}", archive.display());
            }
            Ok(())
        }
        Verb::Image(args) => image(args),
        Verb::Env(name) => {
            let testbed = open(&name.name)?;
            println!("export KUBECONFIG='{}'", testbed.kubeconfig().display());
            println!("export PATH='{}':\"$PATH\"", testbed.programs().display());
            Ok(())
        }
        Verb::Run { name, command } => {
            let Some((program, args)) = command.split_first() else { bail!("run needs a command after --") };
            let error = open(&name.name)?.command(program).args(args).exec();
            Err(error).with_context(|| format!("could not run {program}"))
        }
        Verb::Tools { names } => tools(&names),
    }
}

fn open(name: &str) -> anyhow::Result<Testbed> {
    Testbed::open(name)?.with_context(|| format!("testbed {name} is not up: run `testbed up --name {name}`"))
}

fn status(name: &str) -> anyhow::Result<()> {
    let testbed = open(name)?;
    println!("{name}: {} node(s) in {}", testbed.nodes(), testbed.state().display());
    for server in testbed.server_names() {
        match testbed.server_process(&server) {
            Ok(process) => println!("{server}: process {}", process.pid()),
            Err(_) => println!("{server}: does not run"),
        }
    }
    let problems = testbed.problems();
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    println!("healthy");
    Ok(())
}

fn tools(names: &[String]) -> anyhow::Result<()> {
    let named =
        names.iter().map(|name| Tool::named(name).with_context(|| format!("there is no tool {name}")));
    let mut tools = named.collect::<anyhow::Result<Vec<Tool>>>()?;
    if tools.is_empty() {
        tools.extend(Tool::ALL);
    }
    Tool::ensure_all(&tools)?;
    for tool in tools {
        println!("{}", tool.ensure()?.display());
    }
    Ok(())
}

fn image(args: ImageArgs) -> anyhow::Result<()> {
    let mut image = ImageSpec::new(&args.image);
    let mut entrypoint = args.entrypoint;
    for file in &args.files {
        let (source, path) = file.split_once(':').with_context(|| format!("{file} is not SOURCE:PATH"))?;
        if entrypoint.is_empty() {
            entrypoint.push(path.to_owned());
        }
        image = image.file(source, path);
    }
    for variable in &args.env {
        let (name, value) =
            variable.split_once('=').with_context(|| format!("{variable} is not NAME=VALUE"))?;
        image = image.env(name, value);
    }
    image.entrypoint(entrypoint).write(&args.output)?;
    eprintln!("testbed: wrote {} as {}", args.image, args.output.display());
    Ok(())
}

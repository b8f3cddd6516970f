//! The operator's program: configuration, logs, signals.

use bellows_operator::config::{Action, Cli, LogFormat};
use bellows_operator::{check, operator};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_new(&cli.config.log)?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    match cli.config.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    // Two threads: the work is waiting, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match cli.action {
            Action::Check => check::run(&cli.config).await,
            Action::Run => {
                let stop = CancellationToken::new();
                let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
                let told = stop.clone();
                let running = operator::run(cli.config, stop);
                tokio::pin!(running);
                tokio::select! {
                    ended = &mut running => return ended,
                    _ = signals.0.recv() => {}
                    _ = signals.1.recv() => {}
                }
                tracing::info!("told to stop");
                told.cancel();
                running.await
            }
        }
    })
}

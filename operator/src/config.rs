//! Configuration: the environment, and flags of the same meaning. Nothing else is read.

use std::net::SocketAddr;

use clap::{Args, Parser, ValueEnum};

/// Bellows' operator.
#[derive(Debug, Clone, Parser)]
#[command(name = "bellows-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[arg(value_enum, default_value = "run")]
    pub action: Action,
    /// How to run.
    #[command(flatten)]
    pub config: Config,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Run the operator.
    Run,
    /// Check that the registry and the Kubernetes API can be used, and end.
    Check,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// The client URLs of the registry's etcd members, separated by commas.
    #[arg(long, env = "BELLOWS_ETCD_ENDPOINTS", value_delimiter = ',', required = true)]
    pub etcd_endpoints: Vec<String>,
    /// The URLs given to worker pods, if they differ.
    #[arg(long, env = "BELLOWS_WORKER_ETCD_ENDPOINTS", value_delimiter = ',')]
    pub worker_etcd_endpoints: Vec<String>,
    /// The registry's prefix in etcd.
    #[arg(long, env = "BELLOWS_PREFIX", default_value = "/bellows/")]
    pub prefix: String,
    /// This pod's name: its identity in elections.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// This pod's namespace, where the Lease lives.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// The name of the Lease that guards reconciling.
    #[arg(long, env = "BELLOWS_LEASE_NAME", default_value = "bellows-operator")]
    pub lease_name: String,
    /// The namespaces to watch, separated by commas; all of them if empty.
    #[arg(long, env = "BELLOWS_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Where health and metrics are served.
    #[arg(long, env = "BELLOWS_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,
    /// What is logged, in the form of `tracing`'s filters.
    #[arg(long, env = "BELLOWS_LOG", default_value = "info")]
    pub log: String,
    /// How it is logged.
    #[arg(long, env = "BELLOWS_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
}

impl Config {
    /// The URLs that worker pods get, separated by commas.
    pub fn worker_endpoints(&self) -> String {
        let own = filled(&self.worker_etcd_endpoints);
        if own.is_empty() { filled(&self.etcd_endpoints).join(",") } else { own.join(",") }
    }

    /// The registry's URLs.
    pub fn endpoints(&self) -> Vec<&str> {
        filled(&self.etcd_endpoints)
    }

    /// The namespaces to watch; empty means all.
    pub fn namespaces(&self) -> Vec<&str> {
        filled(&self.watch_namespaces)
    }
}

/// An empty variable in a manifest means "not set".
fn filled(list: &[String]) -> Vec<&str> {
    list.iter().map(|item| item.trim()).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_in_the_environment_means_the_default() {
        let cli = Cli::parse_from([
            "bellows-operator",
            "--pod-name=a",
            "--pod-namespace=b",
            "--etcd-endpoints=http://a:2379,http://b:2379",
            "--worker-etcd-endpoints=",
            "--watch-namespaces=",
        ]);
        assert_eq!(cli.config.worker_endpoints(), "http://a:2379,http://b:2379");
        assert!(cli.config.namespaces().is_empty());
    }

    #[test]
    fn the_check_takes_the_same_environment() {
        let who = ["--pod-name=a", "--pod-namespace=b"];
        let words = ["bellows-operator", "check", "--etcd-endpoints=http://a:2379"];
        assert_eq!(Cli::parse_from(words.into_iter().chain(who)).config.pod_name, "a");
        let nobody = Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(nobody.contains("--pod-name") && nobody.contains("--pod-namespace"), "{nobody}");
    }
}

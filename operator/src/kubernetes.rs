//! Two ways to the Kubernetes API: calls, of which none may hang, and watches, which are
//! silent for minutes and must not be taken for dead.

use std::time::Duration;

use kube::{Client, Config};

/// No call waits longer for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// No call waits longer for the next bytes of an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Both ways. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    /// For calls: reads and writes of objects. A silent API server is an error.
    pub calls: Client,
    /// For watches. kube's watcher bounds their silence itself, from the time-out that it
    /// asks the server for.
    pub watches: Client,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// By the environment: in a pod its service account, elsewhere a kubeconfig.
    pub async fn from_env() -> anyhow::Result<Self> {
        Ok(Self::of(Config::infer().await?, ANSWER)?)
    }

    pub(crate) fn of(config: Config, answer: Duration) -> Result<Self, kube::Error> {
        let mut watches = config;
        watches.connect_timeout = Some(CONNECT);
        let mut calls = watches.clone();
        calls.read_timeout = Some(answer);
        calls.write_timeout = Some(answer);
        // Counted from the request, not from when a pooled connection fell idle.
        calls.reset_reader_on_write = true;
        Ok(Self { calls: Client::try_from(calls)?, watches: Client::try_from(watches)? })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;

    use super::*;

    #[tokio::test]
    async fn a_call_to_a_silent_server_ends_with_an_error_and_a_watch_does_not() {
        // Accepts connections, as far as the kernel does it for us, and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let clients = Clients::of(Config::new(url), Duration::from_millis(100)).unwrap();
        let read = |client| async move { Api::<Namespace>::all(client).get("kube-system").await };
        let (calls, watches) = (read(clients.calls), read(clients.watches));
        tokio::select! {
            biased;
            _ = watches => panic!("a watch may be silent"),
            answer = calls => assert!(matches!(answer, Err(error) if !matches!(error, kube::Error::Api(_)))),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("the call hangs"),
        }
    }
}

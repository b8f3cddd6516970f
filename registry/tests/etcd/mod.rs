//! A real etcd for one test: on loopback, in a directory of its own, ended by its pid.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bellows_registry::backend::etcd::{EtcdBackend, EtcdConfig};
use bellows_registry::backend::{Backend, RangeRequest};
use bellows_registry::key::KeyRange;

/// One member, killed when dropped.
pub(crate) struct Member {
    process: Child,
    directory: PathBuf,
    arguments: Vec<String>,
    url: String,
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program() -> PathBuf {
    let given = std::env::var_os("BELLOWS_ETCD").map(PathBuf::from);
    given.expect("this test needs a real etcd: set BELLOWS_ETCD to the path of an etcd 3.7 program")
}

impl Member {
    pub(crate) async fn start(name: &str) -> Self {
        let (client, peer) = (free_port(), free_port());
        let (url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let directory = std::env::temp_dir().join(format!("bellows-{name}-{}-{client}", std::process::id()));
        let arguments = [
            ("--name", "one"),
            ("--data-dir", directory.to_str().unwrap()),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peer_url),
            ("--initial-advertise-peer-urls", &peer_url),
            ("--initial-cluster", &format!("one={peer_url}")),
            ("--unsafe-no-fsync", "true"),
            ("--log-level", "error"),
        ];
        let arguments: Vec<_> = arguments.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
        let process = run(&arguments);
        let member = Self { process, directory, arguments, url };
        member.ready().await;
        member
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn backend(&self) -> EtcdBackend {
        EtcdBackend::new(EtcdConfig::new([self.url()])).unwrap()
    }

    async fn ready(&self) {
        let request = || RangeRequest::new(KeyRange::prefix("ready"));
        for _ in 0..200 {
            if self.backend().range(request()).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd did not answer at {} within 10 s", self.url);
    }

    /// Kills it and starts it again on what it has stored.
    pub(crate) async fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = run(&self.arguments);
        self.ready().await;
    }

    /// Sends a signal, by name.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
    }
}

fn run(arguments: &[String]) -> Child {
    let program = program();
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("etcd does not start from {program:?}: {error}"))
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

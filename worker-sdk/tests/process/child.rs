//! A worker process, made of this test program, and how to deal with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bellows_registry::clock;
use bellows_sdk::prelude::*;

/// What the process does.
pub(crate) struct Serve;

impl TaskDefinition for Serve {
    const NAME: &'static str = "serve";
    type Callback = String;
    type Trigger = PublishTrigger<Order>;
}

/// The same work, misunderstood.
pub(crate) struct Wrong;

impl TaskDefinition for Wrong {
    const NAME: &'static str = Serve::NAME;
    type Callback = String;
    type Trigger = PublishTrigger<String>;
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    Echo(String),
    Block { seconds: u64 },
    WaitToBeStopped,
}

async fn work(context: TaskContext, order: Order) -> TaskResult<String> {
    match order {
        Order::Echo(text) => Ok(text.into()),
        Order::Block { seconds } => {
            let (_kept, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(Duration::from_secs(seconds));
            Ok("blocked".to_owned().into())
        }
        Order::WaitToBeStopped => {
            context.cancelled().cancelled().await;
            Err("was told to stop".into())
        }
    }
}

/// The process: what a worker's `main` does, with one thread for handlers.
pub(crate) fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served =
        runtime.block_on(bellows_sdk::serve(Tasks::new().with_fn::<Serve, _, _>(work).concurrency(8)));
    if let Err(error) = &served {
        eprintln!("Error: {error:?}"); // as a `main` that returns it
    }
    std::process::exit(i32::from(served.is_err()));
}

/// The process as seen from outside. Killed when dropped.
pub(crate) struct WorkerProcess {
    child: Child,
    addr: SocketAddr,
    /// Reads what it logs, all the time: a full pipe would stop the process.
    log: Option<JoinHandle<String>>,
}

impl WorkerProcess {
    pub(crate) fn spawn(env: &[(&str, &str)]) -> Self {
        // Free now; nobody else is likely to take it within the moment.
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker_process", "--exact", "--ignored", "--nocapture"])
            .env("BELLOWS_NAMESPACE", "default")
            .env("BELLOWS_LEASE_TTL", "5s")
            .env("BELLOWS_DRAIN_TIMEOUT", "1s")
            .env("BELLOWS_HTTP_ADDR", addr.to_string())
            .env("BELLOWS_LOG", "debug")
            .env("BELLOWS_LOG_FORMAT", "json")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log);
            String::from_utf8_lossy(&log).into_owned()
        });
        Self { child, addr, log: Some(log) }
    }

    /// The answer to a GET, head and body; empty if there is none within three seconds.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.addr)?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")?;
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().unwrap_or_default()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; answers its exit code and what it logged.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let deadline = clock::instant() + Duration::from_secs(15);
        let code = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if clock::instant() > deadline => break None,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        (code, self.stop())
    }

    /// Kills it, if it still runs; answers what it logged.
    fn stop(&mut self) -> String {
        let _ = self.child.kill(); // then the pipe ends too
        let _ = self.child.wait();
        self.log.take().map(|log| log.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let log = self.stop();
        if std::thread::panicking() {
            eprintln!("the worker process logged:\n{log}");
        }
    }
}

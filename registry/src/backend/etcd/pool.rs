//! One connection to one member at a time, and the way to the next when it fails.
//!
//! Sticky on purpose: the client's own balancer keeps sending a share of the requests
//! to a member that is gone. Knows nothing of what is called.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::timeout;

use super::EtcdConfig;
use super::errors::Failure;
use crate::entropy::Entropy;

/// Lends one kind of client, `T`.
pub(super) struct Pool<T> {
    endpoints: Vec<String>,
    options: ConnectOptions,
    request_timeout: Duration,
    make: fn(&Client) -> T,
    state: Mutex<State<T>>,
    /// Held by whoever connects.
    dialling: tokio::sync::Mutex<()>,
}

struct State<T> {
    endpoint: usize,
    /// Counts connections, so that many failures of one of them move us on only once.
    generation: u64,
    /// The client is kept beside its part, since it owns the list of endpoints.
    open: Option<(Client, T)>,
}

/// A client, and the connection it belongs to.
pub(super) struct Lent<T> {
    pub(super) client: T,
    generation: u64,
}

impl<T: Clone> Pool<T> {
    pub(super) fn new(config: &EtcdConfig, make: fn(&Client) -> T) -> Self {
        let (interval, answer) = config.ping;
        // Pings only beside an open stream: etcd takes those on an idle connection for
        // abuse and closes it after the third. A dead idle connection is found by the
        // first request, which times out and leaves it.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(config.connect_timeout)
            .with_keep_alive(interval, answer)
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(interval)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &config.user {
            options = options.with_user(user, password);
        }
        // Processes begin at different members, so that these share the load.
        let start = Entropy::system().bits64() % config.endpoints.len().max(1) as u64;
        let endpoint = usize::try_from(start).unwrap_or(0);
        Self {
            endpoints: config.endpoints.clone(),
            options,
            request_timeout: config.request_timeout,
            make,
            state: Mutex::new(State { endpoint, generation: 0, open: None }),
            dialling: tokio::sync::Mutex::new(()),
        }
    }

    /// One request, with a bound on its time. Moves to the next member when this one
    /// fails, but repeats only what was certainly not sent.
    pub(super) async fn call<R, F, Fut>(&self, request: F) -> Result<R, Failure>
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Result<R, Error>>,
    {
        Ok(self.call_and_tell(request).await?.0)
    }

    /// As [`Pool::call`]; tells the generation of the connection that answered.
    pub(super) async fn call_and_tell<R, F, Fut>(&self, request: F) -> Result<(R, u64), Failure>
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Result<R, Error>>,
    {
        let mut tries_left = self.endpoints.len();
        loop {
            tries_left -= 1;
            match self.once(&request).await {
                Err(failure) if failure.was_not_sent() && tries_left > 0 => {}
                result => return result,
            }
        }
    }

    async fn once<R, F, Fut>(&self, request: &F) -> Result<(R, u64), Failure>
    where
        F: Fn(T) -> Fut,
        Fut: Future<Output = Result<R, Error>>,
    {
        let lent = self.lend().await?;
        let result = timeout(self.request_timeout, request(lent.client)).await;
        let failure = match result {
            Ok(Ok(answer)) => return Ok((answer, lent.generation)),
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::TimedOut(self.request_timeout),
        };
        if failure.is_the_members() {
            self.leave(lent.generation);
        }
        Err(failure)
    }

    /// The current client; connects if there is none.
    pub(super) async fn lend(&self) -> Result<Lent<T>, Failure> {
        if let Some(lent) = self.current() {
            return Ok(lent);
        }
        // One connects, and whoever else needs a client waits for that, but not longer
        // than for any request. The state itself is never held while waiting.
        let dialling = timeout(self.request_timeout, self.dialling.lock()).await;
        let Ok(_dialling) = dialling else { return Err(Failure::TimedOut(self.request_timeout)) };
        if let Some(lent) = self.current() {
            return Ok(lent);
        }
        let endpoint = self.state().endpoint % self.endpoints.len();
        let connect = Client::connect([&self.endpoints[endpoint]], Some(self.options.clone()));
        // Waits for etcd only where there is a user to authenticate.
        let failure = match timeout(self.request_timeout, connect).await {
            Ok(Ok(client)) => {
                let part = (self.make)(&client);
                let mut state = self.state();
                state.open = Some((client, part.clone()));
                return Ok(Lent { client: part, generation: state.generation });
            }
            Ok(Err(error)) => Failure::from(error),
            Err(_) => Failure::TimedOut(self.request_timeout),
        };
        self.state().endpoint = endpoint + 1;
        Err(failure)
    }

    fn current(&self) -> Option<Lent<T>> {
        let state = self.state();
        let (_, part) = state.open.as_ref()?;
        Some(Lent { client: part.clone(), generation: state.generation })
    }

    /// Drops the connection that failed; the next call uses the next member.
    pub(super) fn leave(&self, generation: u64) {
        let mut state = self.state();
        if state.generation == generation {
            state.generation += 1;
            state.endpoint = (state.endpoint + 1) % self.endpoints.len();
            state.open = None;
        }
    }

    /// Leaves the connection when it is dropped, unless it is told that there was an answer.
    pub(super) fn until_answered(&self, generation: u64) -> Unanswered<'_, T> {
        Unanswered { pool: self, generation, answered: false }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }
}

impl<T> Lent<T> {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

/// A request whose caller may give it up earlier than the pool would: what does not answer him
/// in time is left too.
pub(super) struct Unanswered<'a, T: Clone> {
    pool: &'a Pool<T>,
    generation: u64,
    answered: bool,
}

impl<T: Clone> Unanswered<'_, T> {
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl<T: Clone> Drop for Unanswered<'_, T> {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.leave(self.generation);
        }
    }
}

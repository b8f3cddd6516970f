//! Configuration, from the environment alone.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `BELLOWS_ETCD_ENDPOINTS` | client URLs of the registry's etcd, separated by commas | none: required |
//! | `BELLOWS_NAMESPACE` | the namespace of the task definitions | none: required |
//! | `BELLOWS_PREFIX` | the registry's prefix | `/bellows/` |
//! | `BELLOWS_DEFINITION` | the one kind of work this process does | all it has |
//! | `BELLOWS_POD_NAME` | what worker ids begin with | `HOSTNAME`, else `local` |
//! | `BELLOWS_VERSION` | the version of the program, such as its image | none |
//! | `BELLOWS_CONCURRENCY` | tasks at once; wins over the code | the code's |
//! | `BELLOWS_LEASE_TTL` | how soon a dead worker's tasks run elsewhere, 2 s to 1 min | `10s` |
//! | `BELLOWS_DRAIN_TIMEOUT` | how long running tasks may take after SIGTERM | `25s` |
//! | `BELLOWS_HTTP_ADDR` | where `/healthz`, `/readyz` and `/metrics` are served | `0.0.0.0:8080` |
//! | `BELLOWS_LOG` | what is logged, as `info` or `bellows_sdk=debug` | `info` |
//! | `BELLOWS_LOG_FORMAT` | `text` or `json` | `text` |
//!
//! On a cluster the operator sets them.

use std::net::SocketAddr;
use std::time::Duration;

use bellows_registry::backend::etcd::check_endpoint;
use bellows_registry::id::Namespace;
use bellows_registry::spec::Span;
use tracing_subscriber::EnvFilter;

use crate::client::Options;
use crate::error::ConnectError;

/// What a process is told by its environment. See the table in this module's source, and in
/// `docs/reference/environment.md`.
#[derive(Debug, Clone)]
pub struct Config {
    /// `BELLOWS_ETCD_ENDPOINTS`.
    pub etcd_endpoints: Vec<String>,
    /// `BELLOWS_NAMESPACE`, `BELLOWS_PREFIX` and `BELLOWS_LEASE_TTL`, and what no variable says:
    /// set that before [`Bellows::connect`](crate::Bellows::connect).
    pub options: Options,
    /// `BELLOWS_DEFINITION`.
    pub definition: Option<String>,
    /// `BELLOWS_POD_NAME`.
    pub pod: String,
    /// `BELLOWS_VERSION`.
    pub version: Option<String>,
    /// `BELLOWS_CONCURRENCY`.
    pub concurrency: Option<u32>,
    /// `BELLOWS_DRAIN_TIMEOUT`.
    pub drain_timeout: Duration,
    /// `BELLOWS_HTTP_ADDR`.
    pub http_addr: SocketAddr,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the variable that is missing or malformed, and says what to set it to.
    pub fn from_env() -> Result<Self, ConnectError> {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Reads any source of variables.
    pub(crate) fn read(var: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConnectError> {
        let required = |name, hint| var(name).ok_or(ConnectError::Missing { name, hint });
        let endpoints = required(
            "BELLOWS_ETCD_ENDPOINTS",
            "set it to the registry's client URLs, such as http://bellows-etcd.bellows:2379",
        )?;
        let etcd_endpoints =
            endpoints.split(',').map(|url| endpoint(url.trim())).collect::<Result<_, _>>()?;
        let namespace = required(
            "BELLOWS_NAMESPACE",
            "set it to the namespace of your TaskDefinitions, such as default",
        )?;
        let mut options =
            Options { namespace: Namespace::new(&namespace)?.to_string(), ..Options::default() };
        if let Some(prefix) = var("BELLOWS_PREFIX") {
            options.prefix = prefix;
        }
        let ttl = parsed(&var, "BELLOWS_LEASE_TTL", |text| {
            let ttl = span(text)?;
            // No longer than the assigner waits past a time-out: what it takes back from a
            // dead worker must not meet a lease that still stands, or the same worker is
            // given the task again.
            let allowed = Duration::from_secs(2)..=Duration::from_secs(60);
            if allowed.contains(&ttl) { Ok(ttl) } else { Err("is not from 2s to 1m".to_owned()) }
        })?;
        if let Some(ttl) = ttl {
            options.lease_ttl = ttl;
        }
        let pod = var("BELLOWS_POD_NAME").or_else(|| var("HOSTNAME"));
        Ok(Self {
            etcd_endpoints,
            options,
            definition: var("BELLOWS_DEFINITION"),
            pod: pod.unwrap_or_else(|| "local".to_owned()).to_lowercase(),
            version: var("BELLOWS_VERSION"),
            concurrency: parsed(&var, "BELLOWS_CONCURRENCY", |text| match text.parse() {
                Ok(0) | Err(_) => Err("is not a number of tasks from 1".to_owned()),
                Ok(slots) => Ok(slots),
            })?,
            drain_timeout: parsed(&var, "BELLOWS_DRAIN_TIMEOUT", span)?.unwrap_or(Duration::from_secs(25)),
            http_addr: parsed(&var, "BELLOWS_HTTP_ADDR", |text| {
                text.parse().map_err(|_| "is not an address such as 0.0.0.0:8080".to_owned())
            })?
            .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 8080))),
        })
    }
}

/// How a process logs.
#[derive(Debug)]
pub(crate) struct Logging {
    /// `BELLOWS_LOG`.
    pub(crate) filter: EnvFilter,
    /// `BELLOWS_LOG_FORMAT`.
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Logging {
    pub(crate) fn from_env() -> Result<Self, ConnectError> {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(var: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConnectError> {
        let filter = parsed(&var, "BELLOWS_LOG", |text| {
            let refused = |error| format!("is not a filter such as info or bellows_sdk=debug: {error}");
            EnvFilter::builder().parse(text).map_err(refused)
        })?;
        let format = parsed(&var, "BELLOWS_LOG_FORMAT", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("is neither text nor json".to_owned()),
        })?;
        Ok(Self {
            filter: filter.unwrap_or_else(|| EnvFilter::new("info")),
            format: format.unwrap_or_default(),
        })
    }
}

fn endpoint(url: &str) -> Result<String, ConnectError> {
    let value = url.to_owned();
    match check_endpoint(url).map_err(str::to_owned) {
        Ok(()) => Ok(value),
        Err(problem) => Err(ConnectError::Malformed { name: "BELLOWS_ETCD_ENDPOINTS", value, problem }),
    }
}

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(Span::get).map_err(|_| "is not a duration such as 10s".to_owned())
}

fn parsed<T>(
    var: &impl Fn(&'static str) -> Option<String>,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConnectError> {
    let Some(value) = var(name) else { return Ok(None) };
    match parse(&value) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(problem) => Err(ConnectError::Malformed { name, value, problem }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(extra: &'static [(&'static str, &'static str)]) -> Result<Config, String> {
        let base =
            [("BELLOWS_ETCD_ENDPOINTS", "http://a:2379, http://b:2379"), ("BELLOWS_NAMESPACE", "media")];
        Config::read(|name| {
            let find =
                |all: &[(&str, &str)]| all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            find(extra).or_else(|| find(&base)).filter(|value| !value.is_empty())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = with(&[]).unwrap();
        assert_eq!(config.etcd_endpoints, ["http://a:2379", "http://b:2379"]);
        assert_eq!((config.options.prefix.as_str(), config.concurrency), ("/bellows/", None));
        assert_eq!(config.options.namespace, "media");
        assert_eq!((config.options.lease_ttl.as_secs(), config.drain_timeout.as_secs()), (10, 25));
        assert_eq!(config.http_addr.to_string(), "0.0.0.0:8080");
    }

    #[test]
    fn what_is_missing_or_malformed_is_named_with_what_to_do() {
        for (extra, said) in [
            (&[("BELLOWS_ETCD_ENDPOINTS", "")], "BELLOWS_ETCD_ENDPOINTS is not set: set it to"),
            (&[("BELLOWS_NAMESPACE", "")], "BELLOWS_NAMESPACE is not set: set it to"),
            (&[("BELLOWS_NAMESPACE", "Media")], "namespace \"Media\" must consist of"),
            (
                &[("BELLOWS_ETCD_ENDPOINTS", "a:2379")],
                "BELLOWS_ETCD_ENDPOINTS=\"a:2379\" is not a URL such as",
            ),
            (&[("BELLOWS_CONCURRENCY", "0")], "BELLOWS_CONCURRENCY=\"0\" is not a number of tasks"),
            (&[("BELLOWS_LEASE_TTL", "1s")], "BELLOWS_LEASE_TTL=\"1s\" is not from 2s to 1m"),
            (&[("BELLOWS_DRAIN_TIMEOUT", "soon")], "BELLOWS_DRAIN_TIMEOUT=\"soon\" is not a duration"),
            (&[("BELLOWS_HTTP_ADDR", "8080")], "BELLOWS_HTTP_ADDR=\"8080\" is not an address"),
        ] {
            let error = with(extra).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn logging_that_nobody_can_mean_is_refused() {
        let logging = |name: &'static str, value: &str| {
            Logging::read(|asked| (asked == name).then(|| value.to_owned())).map_err(|e| e.to_string())
        };
        assert_eq!(logging("BELLOWS_LOG_FORMAT", "json").unwrap().format, LogFormat::Json);
        let error = logging("BELLOWS_LOG_FORMAT", "jsno").unwrap_err();
        assert_eq!(error, "BELLOWS_LOG_FORMAT=\"jsno\" is neither text nor json");
        let error = logging("BELLOWS_LOG", "bellows_sdk=lots").unwrap_err();
        assert!(error.starts_with("BELLOWS_LOG=\"bellows_sdk=lots\" is not a filter"), "{error}");
    }
}

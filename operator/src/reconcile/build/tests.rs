//! Whole Deployments against committed ones, and what must not roll a pod.

use std::path::Path;

use super::*;
use crate::crd::TaskDefinitionSpec;

fn definition(spec: &str) -> ValidDefinition {
    let spec: TaskDefinitionSpec = serde_yaml_ng::from_str(spec).unwrap();
    ValidDefinition {
        id: bellows_registry::id::DefinitionId::new("media", "resize-image").unwrap(),
        uid: "0b5c7a0e-1111-4222-8333-444455556666".to_owned(),
        generation: 3,
        spec,
    }
}

fn installation() -> Installation {
    Installation {
        etcd_endpoints: "http://bellows-etcd.bellows:2379".to_owned(),
        prefix: "/bellows/".to_owned(),
        lease_ttl: Duration::from_secs(10),
    }
}

/// Compares with a committed file; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{name} differs from what is built now:\n{text}");
}

#[test]
fn a_minimal_definition_builds_the_golden_deployment() {
    let built =
        deployment(&definition("worker: { image: registry.example/resize:1 }"), &installation(), Some(0));
    golden("deployment-minimal.yaml", &serde_yaml_ng::to_string(&built).unwrap());
}

#[test]
fn a_full_definition_builds_the_golden_deployment() {
    let spec = include_str!("../../../tests/golden/definition-full.yaml");
    let built = deployment(&definition(spec), &installation(), None);
    golden("deployment-full.yaml", &serde_yaml_ng::to_string(&built).unwrap());
}

#[test]
fn nothing_but_the_worker_and_the_time_out_reaches_the_pod() {
    let plain = definition("worker: { image: x:1 }");
    let template = |d: &ValidDefinition| deployment(d, &installation(), None).spec.template;
    let other = definition(
        "worker: { image: x:1 }\nmode: Hold\nexecution: { maxDisruptions: 9, retry: { maxAttempts: 2 } }\n\
         retention: { failed: 1h }\nscaling: { maxReplicas: 99 }\ndeletionPolicy: Purge",
    );
    assert_eq!(template(&plain), template(&other));
    let slower = definition("worker: { image: x:1 }\nexecution: { timeout: 2m }");
    assert_ne!(template(&plain), template(&slower));
}

#[test]
fn the_grace_period_follows_the_time_out_up_to_a_limit_or_the_drain_time_out() {
    for (spec, seconds) in [
        ("worker: { image: x }", 40),
        ("worker: { image: x }\nexecution: { timeout: 2m }", 130),
        ("worker: { image: x }\nexecution: { timeout: 3h }", 610),
        ("worker: { image: x, drainTimeout: 1h }\nexecution: { timeout: 3h }", 3610),
    ] {
        let built = deployment(&definition(spec), &installation(), None);
        let grace = built.spec.template.spec.unwrap().termination_grace_period_seconds;
        assert_eq!(grace, Some(seconds), "{spec}");
    }
}

#[test]
fn a_worker_has_minutes_to_start_before_anybody_asks_whether_it_lives() {
    let built = deployment(&definition("worker: { image: x }"), &installation(), None);
    let probe = built.spec.template.spec.unwrap().containers.remove(0).startup_probe.unwrap();
    assert_eq!(probe.http_get.unwrap().path.as_deref(), Some("/healthz"));
    assert_eq!(probe.period_seconds.unwrap() * probe.failure_threshold.unwrap(), 300);
}

#[test]
fn a_user_says_how_a_worker_logs() {
    let spec = "worker: { image: x, env: [{ name: BELLOWS_LOG, value: debug }, \
                { name: BELLOWS_LOG_FORMAT, value: json }, { name: BELLOWS_LOGS, value: x }] }";
    let built = deployment(&definition(spec), &installation(), None);
    let env = built.spec.template.spec.unwrap().containers.remove(0).env.unwrap();
    let logs: Vec<_> = env.iter().filter(|var| var.name.starts_with("BELLOWS_LOG")).collect();
    assert_eq!(
        logs.iter().map(|var| var.name.as_str()).collect::<Vec<_>>(),
        ["BELLOWS_LOG", "BELLOWS_LOG_FORMAT"]
    );
    assert_eq!(logs[1].value.as_deref(), Some("json"));
}

#[test]
fn a_user_cannot_say_what_the_operator_says() {
    let built = deployment(
        &definition("worker: { image: x, env: [{ name: BELLOWS_PREFIX, value: /elsewhere/ }] }"),
        &installation(),
        None,
    );
    let env = built.spec.template.spec.unwrap().containers.remove(0).env.unwrap();
    let values: Vec<_> = env.iter().filter(|var| var.name == "BELLOWS_PREFIX").collect();
    assert_eq!(values.len(), 1);
    assert_eq!(values[0].value.as_deref(), Some("/bellows/"));
}

//! The CRD's shape, as far as no API server is needed to see it.

use super::*;

fn workspace() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_committed_crd_is_the_generated_one() {
    for (path, text) in crate::generate::files().unwrap() {
        let committed = std::fs::read_to_string(workspace().join(&path)).unwrap_or_default();
        assert!(committed == text, "{path} has drifted: run `cargo run -p bellows-operator --bin crdgen`");
    }
}

#[test]
fn the_crd_is_under_100_kb() {
    for (path, text) in crate::generate::files().unwrap() {
        assert!(text.len() < 100_000, "{path} has {} bytes", text.len());
    }
}

#[test]
fn no_list_or_text_of_the_spec_is_without_a_bound() {
    let crd = serde_json::to_value(crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut bare = Vec::new();
    look(spec, "spec", &mut bare);
    assert_eq!(bare, Vec::<String>::new());
}

fn look(schema: &serde_json::Value, path: &str, bare: &mut Vec<String>) {
    let bound = match schema["type"].as_str() {
        Some("array") => "maxItems",
        Some("string") if schema.get("enum").is_none() => "maxLength",
        _ => "type",
    };
    if schema.get(bound).is_none() && schema.get("x-kubernetes-int-or-string").is_none() {
        bare.push(path.to_owned());
    }
    assert!(schema.get("additionalProperties").is_none_or(serde_json::Value::is_object), "{path}");
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        look(inner, &format!("{path}.{name}"), bare);
    }
    if schema.get("items").is_some() {
        look(&schema["items"], &format!("{path}[]"), bare);
    }
}

#[test]
fn a_minimal_definition_gets_the_documented_defaults() {
    let spec: TaskDefinitionSpec = serde_yaml_ng::from_str("worker: { image: x:1 }").unwrap();
    assert_eq!(spec.policy(), bellows_registry::spec::Policy::default());
    assert_eq!((spec.worker.concurrency, spec.scaling.max_replicas), (1, 10));
}

#[test]
fn a_host_path_is_not_in_the_vocabulary() {
    let crd = serde_json::to_string(&crd()).unwrap();
    for word in ["hostPath", "hostNetwork", "hostPID", "privileged", "serviceAccountToken", "securityContext"]
    {
        assert!(!crd.contains(word), "{word} is in the schema");
    }
}

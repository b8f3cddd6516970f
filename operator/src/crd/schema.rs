//! The finished CRD: the derived schema, made structural, bounded and checked by the
//! tables of `rules.rs`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{TaskDefinition, rules};

/// The CRD as it is installed.
///
/// # Panics
/// If a path in the tables of `rules.rs` is not in the schema: a mistake in this crate
/// that every test finds.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(TaskDefinition::crd()).expect("a CRD is plain data");
    let schema =
        crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").expect("the derive always makes a schema");
    finish(schema);
    serde_json::from_value(crd).expect("finishing keeps the shape of a CRD")
}

fn finish(root: &mut Value) {
    walk(root, &mut structural);
    for path in rules::CUTS {
        cut(root, path);
    }
    for path in rules::TERSE {
        let node = at(root, path);
        let own = node.get("description").cloned();
        walk(node, &mut |schema| {
            schema.remove("description");
        });
        if let (Some(own), Some(node)) = (own, node.as_object_mut()) {
            node.insert("description".to_owned(), own);
        }
    }
    for (path, bound, value) in rules::BOUNDS {
        at(root, path)[bound] = json!(value);
    }
    walk(at(root, "spec"), &mut bounded);
    for path in rules::SPANS {
        forget(at(root, path), &["pattern", "minLength"]); // the rule's message says more
        validate(root, path, rules::SPAN_FORM, rules::SPAN_MESSAGE);
    }
    forget(at(root, "spec.execution.retry.backoff.jitter"), &["pattern"]);
    for rule in &rules::RULES {
        validate(root, rule.at, rule.rule, rule.message);
    }
    for (path, key) in rules::MAPS {
        let list = at(root, path);
        list["x-kubernetes-list-type"] = json!("map");
        list["x-kubernetes-list-map-keys"] = json!([key]);
        require(&mut list["items"], key); // a list-map's key has to be there
    }
}

/// What Kubernetes takes from JSON Schema is less than what schemars writes.
fn structural(schema: &mut Map<String, Value>) {
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties"); // unknown fields are pruned or refused anyway
    }
    schema.remove("nullable");
    match schema.get("format").and_then(Value::as_str) {
        Some("uint32" | "uint16" | "uint8") => {
            schema.insert("format".to_owned(), json!("int32"));
        }
        Some("uint64") => {
            schema.insert("format".to_owned(), json!("int64"));
        }
        _ => {}
    }
}

/// A bound on everything that could be long.
fn bounded(schema: &mut Map<String, Value>) {
    let (bound, value) = match schema.get("type").and_then(Value::as_str) {
        None if schema.contains_key("x-kubernetes-int-or-string") => ("maxLength", 64),
        Some("array") => ("maxItems", 64),
        Some("string") if !schema.contains_key("enum") => ("maxLength", 1024),
        Some("object") if schema.contains_key("additionalProperties") => ("maxProperties", 64),
        _ => return,
    };
    schema.entry(bound).or_insert_with(|| json!(value));
}

fn forget(schema: &mut Value, keywords: &[&str]) {
    if let Some(schema) = schema.as_object_mut() {
        keywords.iter().for_each(|keyword| drop(schema.remove(*keyword)));
    }
}

fn require(schema: &mut Value, property: &str) {
    let schema = schema.as_object_mut().expect("a schema is an object");
    let required = schema.entry("required").or_insert_with(|| json!([]));
    let required = required.as_array_mut().expect("required is a list");
    if !required.iter().any(|name| name == property) {
        required.push(json!(property));
    }
}

fn validate(root: &mut Value, path: &str, rule: &str, message: &str) {
    let schema = at(root, path).as_object_mut().expect("a schema is an object");
    let list = schema.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    let list = list.as_array_mut().expect("validations are a list");
    list.push(json!({ "rule": rule, "message": message }));
}

/// Every schema below and including this one.
fn walk(schema: &mut Value, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Some(schema) = schema.as_object_mut() else { return };
    visit(schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|property| walk(property, visit));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            walk(inner, visit);
        }
    }
}

fn at<'a>(root: &'a mut Value, path: &str) -> &'a mut Value {
    let mut node = root;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (name, into_items) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        node = node.pointer_mut(&format!("/properties/{name}")).unwrap_or_else(|| {
            panic!("rules.rs names {path:?}, but the schema has no {name:?} there");
        });
        if into_items {
            node = node.get_mut("items").unwrap_or_else(|| panic!("{path:?}: {name:?} is no list"));
        }
    }
    node
}

fn cut(root: &mut Value, path: &str) {
    let (parent, name) = path.rsplit_once('.').expect("a cut is below the root");
    let properties = at(root, parent)["properties"].as_object_mut().expect("an object has properties");
    assert!(properties.remove(name).is_some(), "rules.rs cuts {path:?}, which the schema does not have");
}

//! The worker program prints what its code states, and the committed TaskDefinition agrees.

use std::process::Command;

use bellows_sdk::spec::Span;
use serde_yaml_ng::Value;

fn printed(arguments: &[&str]) -> (bool, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_thumbnails-worker"))
        .args(arguments)
        .env_clear() // it needs nothing to say what it is
        .output()
        .expect("the worker program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (run.status.success(), text(&run.stdout), text(&run.stderr))
}

fn span(value: &Value) -> Option<Span> {
    value.as_str()?.parse().ok()
}

/// Every field of one is in the other, with the same value.
fn assert_within(part: &Value, whole: &Value, path: &str) {
    match part {
        Value::Mapping(fields) => {
            for (name, field) in fields {
                let name = name.as_str().unwrap();
                assert_within(field, &whole[name], &format!("{path}.{name}"));
            }
        }
        // `60s` and `1m` say the same.
        leaf => match (span(leaf), span(whole)) {
            (Some(part), Some(whole)) => assert_eq!(part, whole, "{path} differs"),
            _ => assert_eq!(leaf, whole, "{path} differs"),
        },
    }
}

#[test]
fn the_printed_manifest_is_part_of_the_committed_definition() {
    let committed: Value = serde_yaml_ng::from_str(include_str!("../taskdefinition.yaml")).unwrap();
    let image = committed["spec"]["worker"]["image"].as_str().unwrap();
    let (ended_well, printed, said) = printed(&["--print-manifest", "--image", image]);
    assert!(ended_well, "{said}");
    let mut printed: Value = serde_yaml_ng::from_str(&printed).unwrap();
    assert_eq!(printed["spec"]["trigger"], "Publish");
    let spec = printed["spec"].as_mapping_mut().unwrap();
    spec.remove("trigger"); // the default, which the committed one leaves out
    assert_within(&printed, &committed, "");
    assert_eq!(printed["spec"]["execution"]["retry"]["maxAttempts"], 3, "and it says something");
}

#[test]
fn an_image_that_is_none_is_refused() {
    let (ended_well, printed, said) = printed(&["--print-manifest", "--image"]);
    assert!(!ended_well && printed.is_empty());
    assert!(said.contains("--image registry.example/resize:1.4"), "{said}");
}

//! The chart, as far as no helm and no cluster is needed: the rights it asks for, and the
//! copy of the CRD chart inside it.

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rules as written: each line of `apiGroups`, `resources`, `resourceNames`, `verbs`.
fn rules(text: &str) -> String {
    let is_rule = |line: &&str| {
        ["- apiGroups:", "resources:", "resourceNames:", "verbs:"]
            .iter()
            .any(|word| line.trim_start().starts_with(word))
    };
    text.lines().filter(is_rule).map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn the_operators_rights_are_these_and_no_more() {
    let mut asked = rules(&read("bellows/templates/_helpers.tpl"));
    asked.push_str(&rules(&read("bellows/templates/operator/rbac.yaml")));
    let golden = include_str!("golden/rights.txt");
    assert_eq!(asked, golden, "the rights changed: think, then update tests/golden/rights.txt");
    assert!(asked.matches("apiGroups").count() <= 12);
    assert!(!asked.contains('*'), "a wildcard");
    for never in ["secrets", "impersonate", "escalate", "bind", "serviceaccounts", "pods"] {
        assert!(!asked.contains(never), "{never}");
    }
}

#[test]
fn the_chart_inside_the_chart_is_a_copy() {
    for file in ["Chart.yaml", "values.yaml", "templates/taskdefinitions.yaml"] {
        let (original, copy) =
            (format!("bellows-crds/{file}"), format!("bellows/charts/bellows-crds/{file}"));
        assert_eq!(read(&original), read(&copy), "{copy} is not a copy of {original}");
    }
}

#[test]
fn chart_and_crate_have_one_version() {
    for chart in ["bellows", "bellows-crds"] {
        let text = read(&format!("{chart}/Chart.yaml"));
        let version = env!("CARGO_PKG_VERSION");
        assert!(text.contains(&format!("\nversion: {version}\n")), "{chart}: version");
        assert!(text.contains(&format!("\nappVersion: \"{version}\"\n")), "{chart}: appVersion");
    }
}

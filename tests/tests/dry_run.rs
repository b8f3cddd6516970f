//! The chart in the forms a user may give it: a real API server takes every object of each.
//! Needs a cluster: run it by `make test-cluster`.

use bellows_tests::names::CHART;
use bellows_tests::scene::root;
use bellows_tests::shell;

/// What it is, its values, and a kind of object that it must or must not have.
const FORMS: [(&str, &[&str], Has); 6] = [
    ("no values", &[], Has("NetworkPolicy", true)),
    ("three members", &["etcd.replicas=3"], Has("PodDisruptionBudget", true)),
    ("an etcd for a try, without a volume", &["etcd.persistence.enabled=false"], Has("StatefulSet", true)),
    ("an etcd of one's own", &["etcd.external.endpoints={http://etcd:2379}"], Has("StatefulSet", false)),
    (
        "rights in two namespaces",
        &["watchNamespaces={default,kube-public}"],
        Has("ClusterRoleBinding", false),
    ),
    (
        "neither policies nor roles for users",
        &["networkPolicy.enabled=false", "rbac.aggregate=false"],
        Has("NetworkPolicy", false),
    ),
];

struct Has(&'static str, bool);

#[tokio::test]
async fn a_real_api_server_takes_every_form_of_the_chart() {
    std::env::set_current_dir(root()).unwrap();
    for (form, values, Has(kind, present)) in FORMS {
        // Without the pod of `helm test`: its account is there only once all is installed.
        let template = ["helm", "template", "bellows", CHART, "--namespace", "default", "--skip-tests"];
        let flags = values.iter().flat_map(|value| ["--set", value]);
        let rendered = shell::quiet(template.into_iter().chain(flags)).await.unwrap();
        let objects = rendered.lines().filter(|line| line.starts_with("kind: ")).count();
        let has = rendered.lines().any(|line| line == format!("kind: {kind}"));
        assert_eq!(has, present, "{form}: {kind}");
        let said = shell::dry_run(&rendered).await.unwrap_or_else(|error| panic!("{form}: {error:#}"));
        let taken = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
        assert_eq!(taken, objects, "{form}: {said}");
        assert!(objects >= 8, "{form} has {objects} objects");
    }
}

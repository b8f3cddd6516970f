//! A cluster of two nodes does what users need of it, survives faults, and has a neighbour.

use std::time::Duration;

use anyhow::{Context, Result};
use bellows_testbed::{Testbed, TestbedOptions, wait_until};

use crate::fixture::{Answer, Clean, IMAGE};

const SOON: Duration = Duration::from_secs(60);

fn web() -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
      - name: web
        image: {IMAGE}
        imagePullPolicy: IfNotPresent
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  clusterIP: 10.96.7.7
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"#
    )
}

fn store() -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: store}}
spec:
  serviceName: store
  selector: {{matchLabels: {{app: store}}}}
  template:
    metadata: {{labels: {{app: store}}}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {{runAsNonRoot: true, runAsUser: 1234, runAsGroup: 1234, fsGroup: 4321, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: store
        image: {IMAGE}
        imagePullPolicy: IfNotPresent
        env: [{{name: FILE, value: /data/starts}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
        securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"#
    )
}

#[test]
fn two_nodes_run_pods_that_answer_resolve_names_and_keep_their_data() -> Result<()> {
    let _clean = Clean::new(&["t-two"])?;
    let answer = Answer::build()?;
    let testbed = Testbed::up(&TestbedOptions::new("t-two").nodes(2))?;
    testbed.load_image(&answer.archive)?;
    testbed.apply(&web())?;
    testbed.apply(&store())?;
    testbed.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;

    an_own_thread_can_enter_the_network(&testbed)?;
    let mut seen = std::collections::BTreeSet::new();
    wait_until("answers of all four pods", SOON, || {
        seen.extend(answer.ask(&testbed, "10.96.7.7:80"));
        Ok((seen.len() == 4).then_some(()))
    })?;
    let nodes = testbed.kubectl(&[
        "get",
        "pods",
        "--selector=app=web",
        "--output=jsonpath={.items[*].spec.nodeName}",
    ])?;
    assert_eq!(nodes.split(' ').filter(|node| *node == "n1").count(), 2, "{nodes}");

    let name = "web.default.svc.cluster.local:80";
    wait_until("a name to resolve in a pod", SOON, || {
        Ok(testbed.kubectl(&["exec", "deployment/web", "--", "/answer", "ask", name]).ok())
    })?;

    testbed.kubectl(&["rollout", "status", "statefulset/store", "--timeout=60s"])?;
    assert_eq!(ask_store(&testbed, &answer)?, "1", "the volume was empty and could be written by its group");
    testbed.kill_container("default", "store-0", "store")?;
    wait_until("the killed container to find its data again", SOON, || {
        Ok(ask_store(&testbed, &answer).ok().filter(|lines| lines == "2"))
    })?;

    a_cut_off_node_is_reached_by_nobody(&testbed, &answer)?;
    released_volumes_can_be_used_again(&testbed)?;
    a_lost_node_comes_back(&testbed, &answer)?;
    Ok(testbed.down()?)
}

fn ask_store(testbed: &Testbed, answer: &Answer) -> Result<String> {
    let address = testbed.kubectl(&["get", "pod", "store-0", "--output=jsonpath={.status.podIP}"])?;
    answer.ask(testbed, &format!("{address}:8080")).context("store-0 does not answer")
}

fn a_cut_off_node_is_reached_by_nobody(testbed: &Testbed, answer: &Answer) -> Result<()> {
    let path = "--output=jsonpath={.items[?(@.spec.nodeName==\"n2\")].status.podIP}";
    let addresses = testbed.kubectl(&["get", "pods", "--selector=app=web", path])?;
    let pod = format!("{}:8080", addresses.split(' ').next().context("no pod on n2")?);
    assert!(answer.ask(testbed, &pod).is_some());
    testbed.pull_cable(2)?;
    assert!(answer.ask(testbed, &pod).is_none());
    testbed.plug_cable(2)?;
    wait_until("an answer when the cable is back", SOON, || Ok(answer.ask(testbed, &pod)))?;
    assert!(testbed.pull_cable(1).is_err());
    Ok(())
}

fn an_own_thread_can_enter_the_network(testbed: &Testbed) -> Result<()> {
    let testbed = testbed.clone();
    let connected = std::thread::spawn(move || -> Result<()> {
        testbed.enter_network()?;
        assert_ne!(std::fs::read_link("/proc/thread-self/ns/net")?, std::fs::read_link("/proc/self/ns/net")?);
        std::net::TcpStream::connect("10.99.0.1:6443")?;
        Ok(())
    });
    connected.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    let here = std::fs::read_link("/proc/thread-self/ns/net")?;
    assert_eq!(here, std::fs::read_link("/proc/self/ns/net")?, "the other threads stay where they were");
    Ok(())
}

fn released_volumes_can_be_used_again(testbed: &Testbed) -> Result<()> {
    testbed.kubectl(&[
        "delete",
        "statefulset/store",
        "persistentvolumeclaim/data-store-0",
        "--timeout=60s",
    ])?;
    wait_until("the volume to be released", SOON, || Ok((testbed.recycle_volumes()? == 1).then_some(())))?;
    wait_until("all volumes to be available", SOON, || {
        let phases =
            testbed.kubectl(&["get", "persistentvolumes", "--output=jsonpath={.items[*].status.phase}"])?;
        Ok(phases.split(' ').all(|phase| phase == "Available").then_some(()))
    })?;
    Ok(())
}

/// Its API may answer late on a busy machine; what is dead stays dead.
fn has_no_problems(testbed: &Testbed) -> Result<()> {
    let mut last = Vec::new();
    let well = wait_until("a cluster without problems", SOON, || {
        last = testbed.problems();
        Ok(last.is_empty().then_some(()))
    });
    well.with_context(|| last.join("; "))
}

fn a_lost_node_comes_back(testbed: &Testbed, answer: &Answer) -> Result<()> {
    testbed.cut_power(2)?;
    assert!(
        testbed.problems().iter().any(|problem| problem.contains("n2-kubelet")),
        "{:?}",
        testbed.problems()
    );
    testbed.server_process("kube-scheduler")?.signal(bellows_testbed::Signal::SIGKILL)?;
    testbed.repair()?;
    has_no_problems(testbed)?;
    testbed.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    wait_until("an answer after the repair", SOON, || Ok(answer.ask(testbed, "10.96.7.7:80")))?;
    Ok(())
}

#[test]
fn two_testbeds_run_side_by_side() -> Result<()> {
    let _clean = Clean::new(&["t-left", "t-right"])?;
    let left = Testbed::up(&TestbedOptions::new("t-left"))?;
    let right = Testbed::up(&TestbedOptions::new("t-right"))?;
    left.kubectl(&["create", "configmap", "only-here"])?;
    assert!(right.kubectl(&["get", "configmap", "only-here"]).is_err());
    left.down()?;
    has_no_problems(&right)?;
    Ok(right.down()?)
}

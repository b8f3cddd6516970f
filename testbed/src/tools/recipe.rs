//! What each tool is made of: the Go module that pins it, its programs, and the flags they are built with.

/// A program, or a family of programs from one module, that the testbed needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The servers of Kubernetes, kubelet, kube-proxy and kubectl.
    Kube,
    /// etcd, etcdctl and etcdutl.
    Etcd,
    /// The cluster's name server.
    CoreDns,
    /// The program that holds a pod's namespaces.
    Pause,
    /// Helm.
    Helm,
    /// The checker of kind configurations.
    KindCheck,
}

impl Tool {
    /// All of them, the ones that a cluster needs first.
    pub const ALL: [Self; 6] =
        [Self::Etcd, Self::Kube, Self::CoreDns, Self::Pause, Self::Helm, Self::KindCheck];

    /// How long it takes to build with two cores and empty caches, for the person who
    /// waits. Not of the recipe: it does not change what is built.
    pub(super) fn usual(self) -> &'static str {
        match self {
            Self::Kube => "8 minutes",
            Self::Helm => "2 minutes",
            Self::Etcd | Self::CoreDns => "1.5 minutes",
            Self::Pause | Self::KindCheck => "10 seconds",
        }
    }

    pub(super) fn recipe(self) -> Recipe {
        match self {
            Self::Kube => KUBE,
            Self::Etcd => ETCD,
            Self::CoreDns => COREDNS,
            Self::Pause => PAUSE,
            Self::Helm => HELM,
            Self::KindCheck => KIND_CHECK,
        }
    }
}

/// How a tool is built. Its `Debug` text is part of the cache key.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The folder under `tools/`.
    pub(super) module: &'static str,
    pub(super) version: &'static str,
    pub(super) builds: &'static [Build],
    /// Symbolic links: name, target.
    pub(super) links: &'static [(&'static str, &'static str)],
}

/// One `go build`.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) output: &'static str,
    pub(super) package: &'static str,
    pub(super) tags: &'static str,
    pub(super) ldflags: &'static str,
}

const fn plain(output: &'static str, package: &'static str) -> Build {
    Build { output, package, tags: "", ldflags: "" }
}

/// Both packages keep their own copy of the version, and both are asked for it.
const KUBE_VERSION_FLAGS: &str = "\
    -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=36 \
    -X k8s.io/component-base/version.gitTreeState=clean \
    -X k8s.io/component-base/version.gitCommit=unknown \
    -X k8s.io/component-base/version.buildDate=1970-01-01T00:00:00Z \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3 \
    -X k8s.io/client-go/pkg/version.gitMajor=1 \
    -X k8s.io/client-go/pkg/version.gitMinor=36 \
    -X k8s.io/client-go/pkg/version.gitTreeState=clean \
    -X k8s.io/client-go/pkg/version.gitCommit=unknown \
    -X k8s.io/client-go/pkg/version.buildDate=1970-01-01T00:00:00Z";

const KUBE: Recipe = Recipe {
    module: "kube",
    version: "1.36.3",
    builds: &[Build {
        output: "kube",
        package: ".",
        tags: "selinux,notest,grpcnotrace",
        ldflags: KUBE_VERSION_FLAGS,
    }],
    links: &[
        ("kube-apiserver", "kube"),
        ("kube-controller-manager", "kube"),
        ("kube-scheduler", "kube"),
        ("kubelet", "kube"),
        ("kube-proxy", "kube"),
        ("kubectl", "kube"),
    ],
};

const ETCD: Recipe = Recipe {
    module: "etcd",
    version: "3.7.3",
    builds: &[
        plain("etcd", "go.etcd.io/etcd/server/v3"),
        plain("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
        plain("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
    ],
    links: &[],
};

const COREDNS: Recipe =
    Recipe { module: "coredns", version: "1.13.1", builds: &[plain("coredns", ".")], links: &[] };

const PAUSE: Recipe = Recipe { module: "pause", version: "1", builds: &[plain("pause", ".")], links: &[] };

const HELM: Recipe = Recipe {
    module: "helm",
    version: "4.3.1",
    builds: &[Build {
        output: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        tags: "",
        ldflags: "-X helm.sh/helm/v4/internal/version.version=v4.3.1",
    }],
    links: &[],
};

const KIND_CHECK: Recipe =
    Recipe { module: "kind-check", version: "0.33.0", builds: &[plain("kind-check", ".")], links: &[] };

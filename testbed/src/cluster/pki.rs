//! The certificates and kubeconfigs of a cluster. Writes only below `pki/` and `kubeconfig/` of the state folder.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::layout::{CONTROL_ADDRESS, Layout};
use crate::error::{Error, IoContext, Result};

type Authority = Issuer<'static, KeyPair>;

/// What a certificate says of its holder. The organisation is the group, the common name the user.
struct Subject<'a> {
    file: &'a str,
    organisation: Option<&'a str>,
    common_name: &'a str,
    names: Vec<String>,
}

impl<'a> Subject<'a> {
    fn client(file: &'a str, organisation: Option<&'a str>, common_name: &'a str) -> Self {
        Self { file, organisation, common_name, names: Vec::new() }
    }
}

/// Makes everything for a cluster with that many nodes.
pub(super) fn create(layout: &Layout, nodes: usize) -> Result<()> {
    let pki = layout.folder("pki");
    for folder in [&pki, &layout.folder("kubeconfig")] {
        fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
    }
    let ca = authority(&pki, "ca", "bellows-testbed")?;
    let front_proxy_ca = authority(&pki, "front-proxy-ca", "bellows-testbed-front-proxy")?;
    service_account_keys(&pki)?;

    let apiserver = Subject {
        file: "apiserver",
        organisation: None,
        common_name: "kube-apiserver",
        names: [
            "127.0.0.1",
            CONTROL_ADDRESS,
            "10.96.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .to_vec(),
    };
    issue(&pki, &ca, &apiserver)?;
    issue(&pki, &ca, &Subject::client("kubelet-client", Some("system:masters"), "kubelet-client"))?;
    issue(&pki, &front_proxy_ca, &Subject::client("front-proxy-client", None, "front-proxy-client"))?;
    let clients = [
        ("admin", Some("system:masters"), "admin"),
        ("kcm", None, "system:kube-controller-manager"),
        ("sched", None, "system:kube-scheduler"),
        ("proxy", None, "system:kube-proxy"),
    ];
    for (file, organisation, common_name) in clients {
        issue(&pki, &ca, &Subject::client(file, organisation, common_name))?;
        kubeconfig(layout, file)?;
    }
    (1..=nodes).try_for_each(|number| node(layout, &ca, number))
}

fn node(layout: &Layout, ca: &Authority, number: usize) -> Result<()> {
    let node = layout.node(number);
    let common_name = format!("system:node:{}", node.name);
    let subject = Subject {
        file: &node.name,
        organisation: Some("system:nodes"),
        common_name: &common_name,
        names: vec![node.address(), "127.0.0.1".to_owned(), node.name.clone()],
    };
    issue(&layout.folder("pki"), ca, &subject)?;
    kubeconfig(layout, &node.name)
}

fn authority(pki: &Path, file: &str, common_name: &str) -> Result<Authority> {
    let failed = |source| Error::Certificate { subject: file.to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name = distinguished(None, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(failed)?;
    write(pki, &format!("{file}.crt"), &certificate.pem())?;
    write(pki, &format!("{file}.key"), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

fn issue(pki: &Path, authority: &Authority, subject: &Subject<'_>) -> Result<()> {
    let failed = |source| Error::Certificate { subject: subject.file.to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    // `new` tells addresses from names by itself.
    let mut params = CertificateParams::new(subject.names.clone()).map_err(failed)?;
    params.distinguished_name = distinguished(subject.organisation, subject.common_name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !subject.names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let certificate = params.signed_by(&key, authority).map_err(failed)?;
    write(pki, &format!("{}.crt", subject.file), &certificate.pem())?;
    write(pki, &format!("{}.key", subject.file), &key.serialize_pem())
}

fn service_account_keys(pki: &Path) -> Result<()> {
    let failed = |source| Error::Certificate { subject: "service accounts".to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    write(pki, "sa.key", &key.serialize_pem())?;
    write(pki, "sa.pub", &key.public_key_pem())
}

fn distinguished(organisation: Option<&str>, common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// JSON is YAML, so every client reads it.
fn kubeconfig(layout: &Layout, who: &str) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "testbed",
            "cluster": {
                "server": format!("https://{CONTROL_ADDRESS}:6443"),
                "certificate-authority": layout.pki("ca.crt"),
            },
        }],
        "users": [{
            "name": who,
            "user": {
                "client-certificate": layout.pki(&format!("{who}.crt")),
                "client-key": layout.pki(&format!("{who}.key")),
            },
        }],
        "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": who } }],
        "current-context": "testbed",
    });
    write(&layout.folder("kubeconfig"), who, &format!("{config:#}\n"))
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(file);
    let mut options = fs::OpenOptions::new();
    // Keys of system:masters lie here.
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.context(|| format!("write {}", path.display()))
}

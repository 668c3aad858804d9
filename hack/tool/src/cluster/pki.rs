//! Keys and certificates of a test cluster, as kubeadm lays them out, and the kubeconfigs that use them.

use super::layout::{API, CONTROL, Home, Machine};
use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::path::Path;

/// Names and addresses of the API server.
const SERVER: [&str; 6] = [
    "127.0.0.1",
    "10.96.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Who a certificate is for: the user's name, and its group.
struct Subject<'a>(&'a str, Option<&'a str>);

/// Writes all that a cluster of so many nodes needs.
pub fn write(home: &Home, nodes: u8) -> anyhow::Result<()> {
    let folder = home.pki();
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let authority = authority(&folder, "ca")?;
    let front = self::authority(&folder, "front-proxy-ca")?;
    signed(&folder, &front, "front-proxy", &Subject("front-proxy", None), &[])?;
    let mut names: Vec<String> = SERVER.map(str::to_owned).into();
    names.push(CONTROL.to_string());
    signed(&folder, &authority, "apiserver", &Subject("kube-apiserver", None), &names)?;
    let accounts = KeyPair::generate()?;
    fs::write(folder.join("sa.key"), accounts.serialize_pem())?;
    fs::write(folder.join("sa.pub"), accounts.public_key_pem())?;
    for (name, user, group) in [
        ("admin", "admin", Some("system:masters")),
        ("controller", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
    ] {
        client(&folder, &authority, name, &Subject(user, group))?;
    }
    for node in (1..=nodes).map(Machine::Node) {
        let user = format!("system:node:{node}");
        let subject = Subject(&user, Some("system:nodes"));
        client(&folder, &authority, &node.to_string(), &subject)?;
        let names = [node.to_string(), node.address().to_string()];
        signed(&folder, &authority, &format!("{node}-server"), &subject, &names)?;
    }
    Ok(())
}

fn authority(folder: &Path, name: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut wanted = CertificateParams::new(Vec::default())?;
    wanted.distinguished_name.push(DnType::CommonName, name);
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let made = wanted.self_signed(&key)?;
    fs::write(folder.join(format!("{name}.crt")), made.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(Issuer::new(wanted, key))
}

fn signed(
    folder: &Path,
    authority: &Issuer<'_, KeyPair>,
    name: &str,
    subject: &Subject<'_>,
    names: &[String],
) -> anyhow::Result<()> {
    let mut wanted = CertificateParams::new(names)?;
    wanted.distinguished_name.push(DnType::CommonName, subject.0);
    if let Some(group) = subject.1 {
        wanted.distinguished_name.push(DnType::OrganizationName, group);
    }
    wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    wanted.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let made = wanted.signed_by(&key, authority)?;
    fs::write(folder.join(format!("{name}.crt")), made.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

/// A client's certificate, and a kubeconfig with it.
fn client(
    folder: &Path,
    authority: &Issuer<'_, KeyPair>,
    name: &str,
    subject: &Subject<'_>,
) -> anyhow::Result<()> {
    signed(folder, authority, name, subject, &[])?;
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "wherry", "cluster": {
            "server": API, "certificate-authority": folder.join("ca.crt")}}],
        "users": [{"name": name, "user": {
            "client-certificate": folder.join(format!("{name}.crt")),
            "client-key": folder.join(format!("{name}.key"))}}],
        "contexts": [{"name": "wherry", "context": {"cluster": "wherry", "user": name}}],
        "current-context": "wherry",
    });
    fs::write(folder.join(format!("{name}.kubeconfig")), format!("{config:#}\n"))?;
    Ok(())
}

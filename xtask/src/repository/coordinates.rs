//! Where a cluster is, as far as the repository says. Two cluster.yaml files with the same coordinates lead to one
//! cluster.

use std::path::Path;

use crate::{
    machine::tree::Tree,
    repository::{
        cluster::{Aws, Azure, Cluster, Gcp, Provider},
        values_file::{ValuesContent, ValuesFile},
    },
    yaml::{Node, unquoted},
};

/// None where that cannot be told, and for a rehearsal cluster, which each cluster.yaml has for itself.
pub(crate) fn of(tree: &Tree, cluster: &Cluster) -> Option<Vec<String>> {
    match &cluster.provider {
        Provider::Local(_) => None,
        Provider::Kubeconfig(file) => of_kubeconfig(tree, file),
        Provider::Gcp(gcp) => Some(of_gcp(gcp)),
        Provider::Aws(aws) => Some(of_aws(tree, aws, &cluster.yaml)),
        Provider::Azure(azure) => Some(of_azure(tree, azure)),
    }
}

fn of_gcp(gcp: &Gcp) -> Vec<String> {
    let location = gcp.region.as_ref().or(gcp.zone.as_ref());
    let location = location.cloned().unwrap_or_default();
    vec![gcp.project.clone(), location, gcp.cluster.clone()]
}

/// Each account may have a cluster of this name. If cluster.yaml does not name the account, its key tells.
fn of_aws(tree: &Tree, aws: &Aws, yaml: &Node) -> Vec<String> {
    let account = yaml.get(&["aws", "account"]);
    let account = account.map(|it| unquoted(&it.to_json()));
    let account = account.unwrap_or_else(|| content_of_key(tree, aws.key.as_deref()));
    vec![account, aws.region.clone(), aws.cluster.clone()]
}

/// Each subscription may have such a group. Its number is in the key.
fn of_azure(tree: &Tree, azure: &Azure) -> Vec<String> {
    let key = content_of_key(tree, azure.key.as_deref());
    vec![key, azure.resource_group.clone(), azure.cluster.clone()]
}

/// As it lies in the repository; empty for the person's own login.
fn content_of_key(tree: &Tree, key: Option<&Path>) -> String {
    let content = key.and_then(|it| tree.read(it).ok()).unwrap_or_default();
    String::from_utf8_lossy(&content).into_owned()
}

/// The API server that a plain kubeconfig leads to, or all of the file.
fn of_kubeconfig(tree: &Tree, path: &Path) -> Option<Vec<String>> {
    let file = ValuesFile::read(tree, path, 0);
    let server = match &file.state {
        ValuesContent::Unreadable(_) => return None,
        ValuesContent::Plain(kubeconfig, _) => server(kubeconfig),
        _ => None,
    };
    let content = String::from_utf8_lossy(&file.content);
    Some(server.unwrap_or_else(|| vec![content.into_owned()]))
}

/// The current context with its server and whom it trusts: servers behind tunnels may have one address.
/// <https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/#Config>
fn server(kubeconfig: &Node) -> Option<Vec<String>> {
    let context = kubeconfig.text(&["current-context"])?;
    let name = named(kubeconfig, "contexts", context)?.text(&["context", "cluster"])?;
    let cluster = named(kubeconfig, "clusters", name)?.get(&["cluster"])?;
    let server = cluster.text(&["server"])?;
    let trusted = cluster.text(&["certificate-authority-data"]);
    let texts = [context, server, trusted.unwrap_or_default()];
    Some(texts.map(str::to_owned).to_vec())
}

/// The item of this name in one of a kubeconfig's lists.
fn named<'a>(kubeconfig: &'a Node, list: &str, name: &str) -> Option<&'a Node> {
    let mut items = kubeconfig.get(&[list])?.as_list()?.iter();
    items.find(|it| it.text(&["name"]) == Some(name))
}

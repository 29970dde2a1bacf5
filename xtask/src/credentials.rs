//! Logging in to a cluster. Nothing else makes a KUBECONFIG.

use std::path::Path;

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::{
    cluster::{Cluster, Nodes, Provider},
    local::{Rehearsal, State},
    paths, process,
    secrets::{self, InMemory, Kind, Mask},
};

/// A `Shell` whose helm and kubectl talk to one cluster.
pub(crate) struct Login {
    pub(crate) sh: Shell,
    /// Where KUBECONFIG came out of an encrypted file. It lives as long as the login.
    pub(crate) kubeconfig: Option<InMemory>,
    /// What the pods run on, if it's a rehearsal cluster.
    pub(crate) rehearsal: Option<Nodes>,
}

/// Logs in, and makes sure that the cluster answers. A rehearsal cluster is brought up for that.
pub(crate) fn log_in(sh: &Shell, root: &Path, cluster: &Cluster) -> Result<Login> {
    let login = match &cluster.provider {
        Provider::Local(_) => {
            let rehearsal = Rehearsal::of(root, cluster)?;
            let nodes = rehearsal.up(sh, None)?;
            let mut login = Login::new(sh, &rehearsal.kubeconfig(), None)?;
            login.rehearsal = Some(nodes);
            login.sh.set_var("KUBECACHEDIR", rehearsal.kube_cache());
            return Ok(login);
        }
        Provider::Kubeconfig(file) => match secrets::inspect(root, file)? {
            Kind::Plain => Login::new(sh, &root.join(file), None)?,
            Kind::Encrypted => {
                let kubeconfig = secrets::decrypt(sh, file)?;
                let path = kubeconfig.file.path().to_owned();
                Login::new(sh, &path, Some(kubeconfig))?
            }
        },
        Provider::Other(provider) => bail!("the provider `{provider}` isn't supported yet"),
    };
    // One answer now, rather than a timeout for each hub.
    let sh = &login.sh;
    let answer = process::run(sh, cmd!(sh, "kubectl get --raw /version --request-timeout 20s"), b"")?;
    if !answer.success {
        let said = Mask::new(&login.kubeconfig).hide(&String::from_utf8_lossy(&answer.stderr));
        bail!("the cluster doesn't answer: {}", said.trim());
    }
    Ok(login)
}

/// Whether logging in would first have to bring up a rehearsal cluster.
pub(crate) fn is_down(root: &Path, cluster: &Cluster) -> Result<bool> {
    Ok(match cluster.provider {
        Provider::Local(_) => !matches!(Rehearsal::of(root, cluster)?.state()?, State::Up(_)),
        _ => false,
    })
}

impl Login {
    fn new(sh: &Shell, kubeconfig: &Path, decrypted: Option<InMemory>) -> Result<Login> {
        let sh = sh.clone();
        sh.set_var("KUBECONFIG", kubeconfig);
        sh.set_var("KUBECACHEDIR", paths::cache()?.join("kube"));
        // kubectl's preferences and helm's settings of the person's own shell would point elsewhere.
        sh.set_var("KUBERC", "off");
        for setting in
            ["KUBEAPISERVER", "KUBEASGROUPS", "KUBEASUSER", "KUBECONTEXT", "KUBETOKEN", "NAMESPACE"]
        {
            sh.set_var(format!("HELM_{setting}"), "");
        }
        Ok(Login { sh, kubeconfig: decrypted, rehearsal: None })
    }
}

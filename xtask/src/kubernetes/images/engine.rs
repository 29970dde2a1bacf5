//! The programs that build images: docker, podman or buildah, whichever works here, and repo2docker with one of them.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Cmd, Shell, cmd};

use crate::{
    kubernetes::credentials::registry::RegistrySession,
    machine::{process, programs, terminal::Progress},
    repository::cluster::{Architecture, Builder, OwnImage},
    services::http,
};

/// How long an engine may take to say whether it works.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many of the last lines of a program that failed are told, unless all of them can be read above.
const LAST_LINES: usize = 30;

/// What engines say of a registry that wants another login.
const REFUSED: [&str; 4] = [
    "unauthorized",
    "authentication required",
    "denied",
    "no basic auth credentials",
];

/// How many characters of a line are shown in one that is rewritten.
const WIDTH: usize = 90;

/// Where repo2docker looks for podman: a `DOCKER_HOST` with that word has it run podman, which does not read the variable.
const PODMAN_HOST: &str = "unix:///run/podman/podman.sock";

/// What builds images.
pub(super) struct Engine {
    kind: Kind,
    /// Of podman and buildah: whether it takes layers from registries.
    has_cache: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Buildx,
    /// docker without buildx.
    Docker,
    Podman,
    Buildah,
}

/// One image's build.
pub(super) struct Build<'a> {
    pub(super) image: &'a OwnImage,
    /// The name with the tag.
    pub(super) reference: String,
    pub(super) folder: PathBuf,
    pub(super) architecture: Architecture,
    /// Tags of earlier images of this folder.
    pub(super) earlier: Vec<String>,
    pub(super) no_cache: bool,
    pub(super) push: bool,
    pub(super) session: &'a RegistrySession,
    pub(super) progress: &'a Progress<'a>,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Kind::Buildx | Kind::Docker => "docker",
            Kind::Podman => "podman",
            Kind::Buildah => "buildah",
        }
    }
}

impl Engine {
    /// The first one that works. Says which one that is.
    pub(super) fn find(sh: &Shell) -> Result<Engine> {
        let (engine, name) = Engine::first(sh)?;
        say!("building with {name}");
        Ok(engine)
    }

    /// An error if none works.
    pub(super) fn check(sh: &Shell) -> Result<()> {
        Engine::first(sh).map(|_| ())
    }

    /// The first one that works, and how to call it.
    fn first(sh: &Shell) -> Result<(Engine, String)> {
        let mut tried = Vec::new();
        for program in ["docker", "podman", "buildah"] {
            match version(sh, program) {
                Ok(version) => {
                    let engine = Engine::of(sh, program)?;
                    let with = match engine.kind {
                        Kind::Buildx => " and its buildx",
                        _ => "",
                    };
                    return Ok((engine, format!("{program} {version}{with}")));
                }
                Err(err) => tried.push(format!("  {program}: {err:#}")),
            }
        }
        bail!(
            "nothing works here that builds images:\n{}\nhint: start docker, or install podman or buildah",
            tried.join("\n")
        )
    }

    fn of(sh: &Shell, program: &str) -> Result<Engine> {
        let kind = match program {
            "docker" if succeeds(sh, cmd!(sh, "docker buildx version")) => Kind::Buildx,
            "docker" => Kind::Docker,
            "podman" => Kind::Podman,
            _ => Kind::Buildah,
        };
        let has_cache = match kind {
            Kind::Podman | Kind::Buildah => {
                let help = process::read(sh, cmd!(sh, "{program} build --help"))?;
                help.contains("--cache-to")
            }
            _ => false,
        };
        Ok(Engine { kind, has_cache })
    }

    /// Builds an image, and pushes it if that is asked for. Returns the digest that it was pushed with.
    pub(super) fn run(&self, build: &Build) -> Result<Option<String>> {
        let digest = build.session.folder.path.join("digest");
        match build.image.builder {
            Builder::Docker => build.run("build", self.build(build, &digest))?,
            Builder::Repo2docker => {
                let repo2docker = self.repo2docker(build)?;
                self.forget(build)?;
                build.run("build", repo2docker)?;
            }
        }
        if !build.push {
            return Ok(None);
        }
        if self.kind == Kind::Buildx && build.image.builder == Builder::Docker {
            let written = fs::read(&digest).unwrap_or_default();
            let written: Value = serde_json::from_slice(&written).unwrap_or_default();
            let digest = written["containerimage.digest"].as_str();
            return digest
                .map(str::to_owned)
                .context("buildx told no digest")
                .map(Some);
        }
        build.progress.phase("pushing");
        self.push(build, &digest).map(Some)
    }

    fn build<'a>(&self, build: &'a Build, digest: &Path) -> Cmd<'a> {
        let sh = &build.session.sh;
        let program = self.kind.program();
        let tag = &build.reference;
        let folder = &build.folder;
        let platform = platform(build.architecture);
        let no_cache = build.no_cache.then_some("--no-cache");
        let cache = self.cache(build);
        let common = ["--tag", tag, "--platform", &platform];
        // Images that it is built on may come from there, too. docker does so by itself.
        let plain = http::is_loopback(tag).then_some("--tls-verify=false");
        match self.kind {
            Kind::Buildx => {
                let to = if build.push { "--push" } else { "--load" };
                let progress = ["--progress", "plain"];
                cmd!(
                    sh,
                    "docker buildx build {progress...} {common...} {to} --metadata-file {digest} {no_cache...} {cache...} {folder}"
                )
            }
            Kind::Docker => cmd!(sh, "docker build {common...} {no_cache...} {folder}"),
            // With the other format, instructions such as SHELL would be ignored.
            Kind::Podman | Kind::Buildah => cmd!(
                sh,
                "{program} build --format docker --layers {plain...} {common...} {no_cache...} {cache...} {folder}"
            ),
        }
    }

    /// The options with which layers of earlier builds are used: buildx finds them in earlier images, podman and buildah by
    /// tags of their own beside the images'. A registry on this machine has no more than the engine itself.
    fn cache(&self, build: &Build) -> Vec<String> {
        let name = &build.image.name;
        let mut options = Vec::new();
        if build.no_cache {
            return options;
        }
        if self.kind == Kind::Buildx {
            let from = build.earlier.iter();
            options.extend(from.map(|tag| format!("--cache-from=type=registry,ref={name}:{tag}")));
            if build.push {
                options.push("--cache-to=type=inline".to_owned());
            }
        } else if self.has_cache && !http::is_loopback(&build.reference) {
            options.push(format!("--cache-from={name}"));
            if build.push {
                options.push(format!("--cache-to={name}"));
            }
        }
        options
    }

    /// Takes the name from an image that has it: repo2docker would leave that one as it is.
    fn forget(&self, build: &Build) -> Result<()> {
        let sh = &build.session.sh;
        let program = self.kind.program();
        let reference = &build.reference;
        process::run(sh, cmd!(sh, "{program} image rm {reference}"), b"")?;
        Ok(())
    }

    fn push(&self, build: &Build, digest: &Path) -> Result<String> {
        let sh = &build.session.sh;
        let reference = &build.reference;
        if matches!(self.kind, Kind::Buildx | Kind::Docker) {
            build.run("push", cmd!(sh, "docker push {reference}"))?;
            return digest_in_docker(build);
        }
        let program = self.kind.program();
        // docker does so by itself.
        let plain = http::is_loopback(reference).then_some("--tls-verify=false");
        let push = cmd!(
            sh,
            "{program} push --digestfile {digest} {plain...} {reference}"
        );
        build.run("push", push)?;
        let digest = fs::read_to_string(digest).context("no digest was written")?;
        Ok(digest.trim().to_owned())
    }

    /// repo2docker as Zero to JupyterHub wants its images: users are the user 1000, and their homes hide what an image has
    /// there.
    fn repo2docker<'a>(&self, build: &'a Build) -> Result<Cmd<'a>> {
        let sh = &build.session.sh;
        let program = ["jupyter-repo2docker", "repo2docker"];
        let program = program
            .into_iter()
            .find(|it| programs::which(sh, it).is_some());
        let program = program
            .context("`repo2docker` is not on PATH\nhint: `pip install jupyter-repo2docker`")?;
        match self.kind {
            Kind::Buildx | Kind::Podman => {}
            Kind::Docker => bail!(
                "repo2docker needs docker's plugin buildx, which is missing\n\
                 hint: https://github.com/docker/buildx#installing, or the package `docker-buildx-plugin` or `docker-buildx`"
            ),
            Kind::Buildah => bail!(
                "repo2docker needs docker with its plugin buildx, or podman, and neither works here\nhint: install podman"
            ),
        }
        let user = ["--user-id", "1000", "--user-name", "jovyan"];
        let home = ["--target-repo-dir", "/srv/repo"];
        let platform = platform(build.architecture);
        let mut options = vec![format!("--Repo2Docker.platform={platform}")];
        let base = build.image.base_image.iter();
        options.extend(base.map(|it| format!("--Repo2Docker.base_image={it}")));
        let name = &build.image.name;
        for tag in &build.earlier {
            options.extend(["--cache-from".to_owned(), format!("{name}:{tag}")]);
        }
        if build.no_cache {
            options.push("--DockerEngine.extra_buildx_build_args=--no-cache".to_owned());
        }
        let reference = &build.reference;
        let folder = &build.folder;
        let cmd = cmd!(
            sh,
            "{program} --no-run {user...} {home...} --image-name {reference} {options...} {folder}"
        );
        Ok(match self.kind {
            Kind::Podman if !names_podman(sh) => cmd.env("DOCKER_HOST", PODMAN_HOST),
            _ => cmd,
        })
    }
}

fn names_podman(sh: &Shell) -> bool {
    sh.var("DOCKER_HOST").is_ok_and(|it| it.contains("podman"))
}

impl Build<'_> {
    /// Runs a program, and shows what it writes.
    fn run(&self, what: &str, cmd: Cmd) -> Result<()> {
        let mask = &self.session.mask;
        let most = if self.progress.keeps_lines() {
            1
        } else {
            LAST_LINES
        };
        let mut last = VecDeque::new();
        let output = process::run_following(&self.session.sh, cmd, |line| {
            let line = mask.hide(line.trim_end());
            if line.is_empty() {
                return;
            }
            self.progress.phase(&self.short(&line));
            last.push_back(line);
            if last.len() > most {
                last.pop_front();
            }
        })?;
        process::check_stopped()?;
        let last = Vec::from(last).join("\n");
        let hint = if REFUSED.iter().any(|it| last.contains(it)) {
            "\nhint: `registry` in cluster.yaml says how to log in; without it the logins of docker and podman on this machine are used"
        } else {
            ""
        };
        ensure!(output.success, "the {what} failed: {last}{hint}");
        Ok(())
    }

    /// As much of a line as there is room for in one that is rewritten.
    fn short(&self, line: &str) -> String {
        let most = if self.progress.keeps_lines() {
            usize::MAX
        } else {
            WIDTH
        };
        line.chars().take(most).collect()
    }
}

/// The version of an engine, if it works.
fn version(sh: &Shell, program: &str) -> Result<String> {
    ensure!(programs::which(sh, program).is_some(), "not on PATH");
    let ask = match program {
        // Only a daemon that runs tells its own.
        "docker" => cmd!(sh, "docker version --format").arg("{{.Server.Version}}"),
        "podman" => cmd!(sh, "podman info --format").arg("{{.Version.Version}}"),
        _ => {
            answer(sh, cmd!(sh, "buildah info"))?;
            cmd!(sh, "buildah --version")
        }
    };
    let text = answer(sh, ask)?;
    let version = programs::Version::in_text(&text);
    Ok(version.map_or_else(|| text.trim().to_owned(), |it| it.to_string()))
}

fn answer(sh: &Shell, cmd: Cmd) -> Result<String> {
    let output = process::run_within(sh, cmd, PATIENCE)?;
    if !output.success {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim().lines().last().unwrap_or_default();
        bail!("{last}");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeds(sh: &Shell, cmd: Cmd) -> bool {
    answer(sh, cmd).is_ok()
}

/// The digest that docker pushed an image with.
fn digest_in_docker(build: &Build) -> Result<String> {
    let sh = &build.session.sh;
    let reference = &build.reference;
    let inspect = cmd!(sh, "docker image inspect {reference}");
    let told: Value = serde_json::from_str(&process::read(sh, inspect)?)?;
    let digests = told[0]["RepoDigests"].as_array().into_iter().flatten();
    let mut digests = digests.filter_map(|it| it.as_str()?.rsplit_once('@'));
    let own = reference.rsplit_once(':').map(|(name, _)| name);
    let found = digests.find(|(name, _)| Some(*name) == own);
    let (_, digest) = found.context("docker told no digest")?;
    Ok(digest.to_owned())
}

fn platform(architecture: Architecture) -> String {
    format!("linux/{}", architecture.name())
}

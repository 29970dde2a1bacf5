//! Building the images of hubs that come from folders of the repository, and pushing them.

mod engine;
mod range;

use std::{collections::BTreeSet, fmt};

use anyhow::{Context, Result, anyhow, bail, ensure};
use xshell::Shell;

use crate::{
    kubernetes::{
        credentials::{
            self,
            registry::{self, RegistrySession},
        },
        images::engine::Engine,
    },
    machine::{
        process, programs,
        terminal::{Progress, list},
        tree::Tree,
    },
    repository::{
        cluster::{Builder, Cluster, Hub, OwnImage, RegistryLogin},
        own_images,
    },
    services::registry::{Answer, Registries, reference::Reference},
    settings::Settings,
};

/// How many earlier images are given to an engine to take layers from.
const EARLIER: usize = 3;

/// What is built of the images that somebody asks for, and how.
#[derive(clap::Args, Default)]
pub(crate) struct BuildOptions {
    /// Push each image that was built to its registry
    #[arg(long)]
    pub(crate) push: bool,
    /// Build an image only if its registry does not have it with this tag
    #[arg(long)]
    pub(crate) check_registry: bool,
    /// Build an image only if these commits changed its folder, as `A...B` or `A..B`; on GitHub and GitLab without RANGE those
    /// of the push or pull request. With `--check-registry`, either reason is enough
    #[arg(long, value_name = "RANGE", num_args = 0..=1, default_missing_value = "")]
    pub(crate) commit_range: Option<String>,
    /// Build without layers of earlier builds
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// An image to build, once for all hubs that use it.
pub(crate) struct ImageToBuild<'a> {
    pub(crate) image: &'a OwnImage,
    /// With `-dirty` at its end if the folder has changes that no commit has.
    pub(crate) tag: String,
    pub(crate) is_dirty: bool,
    /// The hubs that use it.
    pub(crate) hubs: Vec<&'a str>,
}

/// What became of an image.
pub(crate) struct BuiltImage<'a> {
    pub(crate) image: &'a ImageToBuild<'a>,
    pub(crate) result: Result<Outcome>,
}

/// What was done for an image, and did not fail.
pub(crate) enum Outcome {
    NotBuilt,
    Built,
    Pushed {
        /// `sha256:…`
        digest: String,
    },
}

impl ImageToBuild<'_> {
    /// Its name with the tag.
    pub(crate) fn reference(&self) -> String {
        format!("{}:{}", self.image.name, self.tag)
    }

    /// What lines about it begin with.
    fn short_name(&self) -> &str {
        let name = &self.image.name;
        name.rsplit('/').next().unwrap_or(name)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::NotBuilt => f.write_str("not built"),
            Outcome::Built => f.write_str("built"),
            Outcome::Pushed { digest } => write!(f, "pushed, {digest}"),
        }
    }
}

/// The images of these hubs of a cluster, each once. An error if hubs build images of the same name from something else, or if
/// a tag cannot be known.
pub(crate) fn of_hubs<'a>(
    sh: &Shell,
    tree: &Tree,
    cluster: &'a Cluster,
    hubs: &[&'a Hub],
) -> Result<Vec<ImageToBuild<'a>>> {
    let mut problems = refuse_differing(cluster);
    let mut images: Vec<ImageToBuild> = Vec::new();
    let mut failed = BTreeSet::new();
    for hub in hubs {
        for image in &hub.images {
            if let Some(known) = images.iter_mut().find(|it| it.image.name == image.name) {
                known.hubs.push(&hub.name);
                continue;
            }
            match ImageToBuild::of(sh, tree, image, &hub.name) {
                Ok(image) => images.push(image),
                Err(err) if failed.insert(&image.name) => {
                    let hub = cluster.path_of(&hub.name);
                    problems.push(format!("{hub}: `{}`: {err:#}", image.name));
                }
                Err(_) => {}
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(images)
}

/// What is wrong where two images of a cluster have one name, and are not the same.
fn refuse_differing(cluster: &Cluster) -> Vec<String> {
    let mut seen: Vec<(&Hub, &OwnImage)> = Vec::new();
    let mut problems = Vec::new();
    for hub in &cluster.hubs {
        for image in &hub.images {
            match seen.iter().find(|(_, it)| it.name == image.name) {
                None => seen.push((hub, image)),
                Some((first, known)) if !is_same(cluster, known, image) => problems.push(format!(
                    "`{}` is built in two ways: for `{}` {}, and for `{}` {}\nhint: give one of them another name",
                    image.name,
                    first.name,
                    shown(known),
                    hub.name,
                    shown(image)
                )),
                Some(_) => {}
            }
        }
    }
    problems
}

fn is_same(cluster: &Cluster, a: &OwnImage, b: &OwnImage) -> bool {
    a.path == b.path
        && a.builder == b.builder
        && a.base_image == b.base_image
        && cluster.registry_of(a) == cluster.registry_of(b)
}

/// What an image is built from, and how.
fn shown(image: &OwnImage) -> String {
    let path = image.path.display();
    let base = image.base_image.as_ref();
    let base = base.map_or_else(String::new, |it| format!(" on `{it}`"));
    let builder = match image.builder {
        Builder::Docker => "docker",
        Builder::Repo2docker => "repo2docker",
    };
    let registry = match image.registry {
        None => "",
        Some(_) => ", with a `registry` of its own",
    };
    format!("from `{path}` by {builder}{base}{registry}")
}

impl<'a> ImageToBuild<'a> {
    fn of(sh: &Shell, tree: &Tree, image: &'a OwnImage, hub: &'a str) -> Result<ImageToBuild<'a>> {
        Reference::parse(&image.name)?;
        let tag = own_images::tag(sh, tree, &image.path)?;
        let is_dirty = own_images::is_dirty(sh, tree, &image.path)?;
        Ok(ImageToBuild {
            image,
            tag: if is_dirty { tag + "-dirty" } else { tag },
            is_dirty,
            hubs: vec![hub],
        })
    }
}

/// Builds images, one after another, and pushes them if that is asked for. One that fails does not stop the others. An error
/// if nothing can be built at all, such as without an engine.
pub(crate) fn build<'a>(
    sh: &Shell,
    tree: &Tree,
    cluster: &'a Cluster,
    images: &'a [ImageToBuild<'a>],
    options: &BuildOptions,
) -> Result<Vec<BuiltImage<'a>>> {
    if options.push {
        refuse_dirty(images)?;
    }
    let range = options.commit_range.as_deref().map(range::of);
    let builds = Builds {
        sh,
        tree,
        cluster,
        options,
        range: range.transpose()?,
        settings: Settings::load(tree)?,
        sessions: sessions(sh, tree, cluster, images, options)?,
    };
    builds.all(images)
}

/// Pushing them is an error: nobody could tell from the tag what is in the image.
fn refuse_dirty(images: &[ImageToBuild]) -> Result<()> {
    let dirty = images.iter().filter(|it| it.is_dirty);
    let dirty: Vec<_> = dirty.map(|it| it.image.path.display()).collect();
    ensure!(
        dirty.is_empty(),
        "{} has changes that no commit has, and the tag of a pushed image is the commit that it was built from\n\
         hint: `git status` shows them; commit them, or build without `--push`",
        list(dirty)
    );
    Ok(())
}

/// The login that each image is built with. Those that are only built, and not asked for, need none but the person's own.
fn sessions<'a>(
    sh: &Shell,
    tree: &Tree,
    cluster: &'a Cluster,
    images: &'a [ImageToBuild<'a>],
    options: &BuildOptions,
) -> Result<Vec<Session<'a>>> {
    let mut sessions: Vec<Session> = Vec::new();
    for image in images {
        let login = cluster.registry_of(image.image);
        let login = login.filter(|_| options.push || options.check_registry);
        if sessions.iter().any(|it| it.login == login) {
            continue;
        }
        let images = images.iter().map(|it| it.image);
        let of_login = images.filter(|it| login.is_none() || cluster.registry_of(it) == login);
        let hosts = registry::hosts_of(of_login);
        let opened = match login {
            None => RegistrySession::of_person(sh, &hosts),
            Some(login) => open(sh, tree, cluster, login, &hosts),
        };
        sessions.push(Session { login, opened });
    }
    Ok(sessions)
}

fn open(
    sh: &Shell,
    tree: &Tree,
    cluster: &Cluster,
    login: &RegistryLogin,
    hosts: &BTreeSet<String>,
) -> Result<RegistrySession> {
    let tools = programs::provide(sh, &["sops"], cluster.is_local())?;
    let decrypter = credentials::decrypter(&tools, tree, cluster)?;
    let opened = RegistrySession::open(&decrypter, tree, cluster, login, hosts);
    opened.with_context(|| format!("cannot log in to {}", list(hosts)))
}

/// The login to some of the registries.
struct Session<'a> {
    login: Option<&'a RegistryLogin>,
    opened: Result<RegistrySession>,
}

/// What all builds of a command have in common.
struct Builds<'a> {
    sh: &'a Shell,
    tree: &'a Tree,
    cluster: &'a Cluster,
    options: &'a BuildOptions,
    /// Which commits changed something, if they decide.
    range: Option<range::Range>,
    settings: Settings,
    sessions: Vec<Session<'a>>,
}

impl Builds<'_> {
    fn all<'a>(&self, images: &'a [ImageToBuild<'a>]) -> Result<Vec<BuiltImage<'a>>> {
        let mut built = Vec::new();
        let mut engine = None;
        for image in images {
            let wanted = self.is_wanted(image);
            if engine.is_none() && matches!(wanted, Ok(true)) {
                engine = Some(Engine::find(self.sh)?);
            }
            let result = match (wanted, &engine) {
                (Ok(true), Some(engine)) => self.build(engine, image),
                (Err(err), _) => Err(err),
                _ => Ok(Outcome::NotBuilt),
            };
            process::check_stopped()?;
            if let Err(err) = &result {
                say!("{}: failed: {err:#}", image.short_name());
            }
            built.push(BuiltImage { image, result });
        }
        Ok(built)
    }

    fn session(&self, image: &ImageToBuild) -> Result<&RegistrySession> {
        let login = self.cluster.registry_of(image.image);
        let found = self.sessions.iter().find(|it| it.login == login);
        // Only the person's own login is needed to build.
        let found = found
            .or(self.sessions.first())
            .context("no login was opened")?;
        match &found.opened {
            Ok(session) => Ok(session),
            Err(err) => Err(anyhow!("{err:#}")),
        }
    }

    /// Whether an image is to be built. Says why, or why not.
    fn is_wanted(&self, image: &ImageToBuild) -> Result<bool> {
        let (is_wanted, why) = self.reason(image)?;
        let what = if is_wanted { "built" } else { "not built" };
        say!("{} is {what}: {why}", image.reference());
        Ok(is_wanted)
    }

    fn reason(&self, image: &ImageToBuild) -> Result<(bool, String)> {
        let path = &image.image.path;
        let folder = path.display();
        let mut against = Vec::new();
        if let Some(range) = &self.range {
            let (changed, shown) = match range {
                range::Range::Unknown(why) => return Ok((true, why.clone())),
                range::Range::Of(range) => (
                    own_images::is_changed_by(self.sh, self.tree, range, path)?,
                    range,
                ),
            };
            if changed {
                return Ok((true, format!("`{shown}` changes `{folder}`")));
            }
            against.push(format!("`{shown}` does not change `{folder}`"));
        }
        if self.options.check_registry {
            let registries = Registries::new(&self.settings, self.session(image)?.logins.clone());
            match registries.look(&Reference::parse(&image.reference())?) {
                Answer::Missing => return Ok((true, "its registry does not have it".to_owned())),
                // A needless build does no harm, and registries do not tell everybody which images they lack.
                Answer::Unknown(why) => return Ok((true, format!("could not be checked: {why}"))),
                Answer::There { .. } => against.push("its registry has it".to_owned()),
            }
        }
        if against.is_empty() {
            let hubs = list(&image.hubs);
            return Ok((true, format!("from `{folder}`, for {hubs}")));
        }
        Ok((false, against.join(", and ")))
    }

    fn build(&self, engine: &Engine, image: &ImageToBuild) -> Result<Outcome> {
        let session = self.session(image)?;
        let progress = Progress::new(image.short_name());
        let path = &image.image.path;
        let earlier = if self.options.no_cache {
            Vec::new()
        } else {
            own_images::earlier_tags(self.sh, self.tree, path, &image.tag, EARLIER)?
        };
        let build = engine::Build {
            image: image.image,
            reference: image.reference(),
            folder: self.tree.root().join(path),
            architecture: self.cluster.architecture,
            earlier,
            no_cache: self.options.no_cache,
            push: self.options.push,
            session,
            progress: &progress,
        };
        let digest = engine.run(&build)?;
        Ok(digest.map_or(Outcome::Built, |digest| Outcome::Pushed { digest }))
    }
}

/// Prints what became of images. An error that names the hubs of those that failed.
pub(crate) fn report(cluster: &Cluster, built: &[BuiltImage]) -> Result<String> {
    let mut text = String::new();
    let mut failed = Vec::new();
    let mut hubs = BTreeSet::new();
    for image in built {
        let reference = image.image.reference();
        match &image.result {
            Ok(outcome) => text += &format!("{reference} {outcome}\n"),
            Err(_) => {
                text += &format!("{reference} failed\n");
                failed.push(reference);
                hubs.extend(image.image.hubs.iter().map(|it| cluster.path_of(it)));
            }
        }
    }
    if failed.is_empty() {
        return Ok(text);
    }
    crate::machine::terminal::print(&text)?;
    bail!("{} failed, which {} use", list(failed), list(hubs));
}

//! Building images, and pushing them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, ensure};
use xshell::Shell;

use crate::{
    kubernetes::{
        credentials::{
            self,
            registry::{self, RegistrySession},
        },
        images::{
            engine::{self, Engine},
            range::{self, Range},
            to_build::{BuiltImage, ImageToBuild, Outcome},
        },
    },
    machine::{
        process, programs,
        terminal::{Progress, list},
        tree::Tree,
    },
    repository::{
        cluster::{Cluster, RegistryLogin},
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
    /// Whether to see before the first build that images can be built, and that the logins work.
    #[arg(skip)]
    pub(crate) checks_first: bool,
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
    if options.checks_first && !images.is_empty() {
        Engine::check(sh)?;
    }
    if options.push {
        refuse_dirty(images)?;
    }
    let range = options.commit_range.as_deref();
    let range = range.map(|it| range::of(sh, tree, it)).transpose()?;
    let settings = Settings::load(tree)?;
    let builds = Builds {
        sh,
        tree,
        cluster,
        options,
        range,
        sessions: sessions(sh, tree, cluster, images, options, &settings),
    };
    if options.checks_first {
        builds.check_logins(images)?;
    }
    builds.all(images)
}

/// Why an image cannot be pushed, if its registry wants a login and there is none.
fn why_not_pushed(registries: &Registries, image: &ImageToBuild) -> Option<String> {
    let reference = Reference::parse(&image.reference()).ok()?;
    match registries.look(&reference) {
        Answer::Unknown(why) if why.wants_login => {
            Some(format!("`{}` cannot be pushed: {why}", image.image.name))
        }
        _ => None,
    }
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
    settings: &'a Settings,
) -> Vec<Session<'a>> {
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
        let opened = opened.map(|session| Opened {
            registries: Registries::new(settings, session.logins.clone()),
            session,
        });
        sessions.push(Session { login, opened });
    }
    sessions
}

fn open(
    sh: &Shell,
    tree: &Tree,
    cluster: &Cluster,
    login: &RegistryLogin,
    hosts: &BTreeSet<String>,
) -> Result<RegistrySession> {
    let needed = registry::has_key(cluster, login).then_some("sops");
    let tools = programs::provide(sh, needed.as_slice(), cluster.is_local())?;
    let decrypter = credentials::decrypter(&tools, tree, cluster)?;
    let opened = RegistrySession::open(&decrypter, tree, cluster, login, hosts);
    opened.with_context(|| format!("cannot log in to {}", list(hosts)))
}

/// The login to some of the registries.
struct Session<'a> {
    login: Option<&'a RegistryLogin>,
    opened: Result<Opened<'a>>,
}

/// A login that works, and the registries that are asked with it.
struct Opened<'a> {
    session: RegistrySession,
    registries: Registries<'a>,
}

/// What all builds of a command have in common.
struct Builds<'a> {
    sh: &'a Shell,
    tree: &'a Tree,
    cluster: &'a Cluster,
    options: &'a BuildOptions,
    /// Which commits changed something, if they decide.
    range: Option<Range>,
    sessions: Vec<Session<'a>>,
}

/// Whether an image is built, and why.
struct Decision {
    is_wanted: bool,
    why: String,
}

impl Decision {
    fn to_build(why: impl Into<String>) -> Decision {
        Decision {
            is_wanted: true,
            why: why.into(),
        }
    }

    fn against(why: impl Into<String>) -> Decision {
        Decision {
            is_wanted: false,
            why: why.into(),
        }
    }
}

impl Builds<'_> {
    /// An error if a login does not work, as far as it can be told before a push: a registry does not say what a login may
    /// push.
    fn check_logins(&self, images: &[ImageToBuild]) -> Result<()> {
        let mut problems = BTreeSet::new();
        for session in &self.sessions {
            match &session.opened {
                Ok(opened) if self.options.push => {
                    let images = images.iter();
                    let images =
                        images.filter(|it| self.cluster.registry_of(it.image) == session.login);
                    problems.extend(images.filter_map(|it| why_not_pushed(&opened.registries, it)));
                }
                Ok(_) => {}
                Err(err) => _ = problems.insert(format!("{err:#}")),
            }
        }
        let problems: Vec<_> = problems.into_iter().collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    fn all<'a>(&self, images: &'a [ImageToBuild<'a>]) -> Result<Vec<BuiltImage<'a>>> {
        let decisions: Vec<_> = images.iter().map(|it| self.decide(it)).collect();
        let is_any_wanted = decisions.iter().flatten().any(|it| it.is_wanted);
        let engine = is_any_wanted.then(|| Engine::find(self.sh)).transpose()?;
        let mut built = Vec::new();
        for (image, decision) in images.iter().zip(decisions) {
            let result = decision.and_then(|it| self.carry_out(&it, engine.as_ref(), image));
            process::check_stopped()?;
            if let Err(err) = &result {
                say!("{}: failed: {err:#}", image.short_name());
            }
            built.push(BuiltImage { image, result });
        }
        Ok(built)
    }

    /// Any reason is enough to build an image, and without a question it is built.
    fn decide(&self, image: &ImageToBuild) -> Result<Decision> {
        let mut against = Vec::new();
        if let Some(range) = &self.range {
            let decision = self.decide_by_range(range, image)?;
            if decision.is_wanted {
                return Ok(decision);
            }
            against.push(decision.why);
        }
        if self.options.check_registry {
            let decision = self.decide_by_registry(image)?;
            if decision.is_wanted {
                return Ok(decision);
            }
            against.push(decision.why);
        }
        if against.is_empty() {
            let folder = image.image.path.display();
            let why = format!("from `{folder}`, for {}", list(&image.hubs));
            return Ok(Decision::to_build(why));
        }
        Ok(Decision::against(against.join(", and ")))
    }

    fn decide_by_range(&self, range: &Range, image: &ImageToBuild) -> Result<Decision> {
        let folder = &image.image.path;
        let shown = folder.display();
        let range = match range {
            Range::Of(range) => range,
            Range::Unknown(why) => return Ok(Decision::to_build(why)),
        };
        let is_changed = own_images::is_changed_by(self.sh, self.tree, range, folder)?;
        Ok(if is_changed {
            Decision::to_build(format!("`{range}` changes `{shown}`"))
        } else {
            Decision::against(format!("`{range}` does not change `{shown}`"))
        })
    }

    fn decide_by_registry(&self, image: &ImageToBuild) -> Result<Decision> {
        let registries = &self.opened(image)?.registries;
        let reference = Reference::parse(&image.reference())?;
        Ok(match registries.look(&reference) {
            Answer::Missing => Decision::to_build("its registry does not have it"),
            // A needless build does no harm, and not everybody is told which images a registry lacks.
            Answer::Unknown(why) => Decision::to_build(format!("could not be checked: {why}")),
            Answer::There { .. } => self.decide_by_architecture(registries, &reference),
        })
    }

    /// An image that is there may be one for other nodes, from before cluster.yaml named these.
    fn decide_by_architecture(&self, registries: &Registries, image: &Reference) -> Decision {
        let wanted = self.cluster.architecture.name();
        match registries.architectures(image) {
            Ok(there) if !there.is_empty() && !there.iter().any(|it| it == wanted) => {
                Decision::to_build(format!("its registry has it only for {}", list(&there)))
            }
            _ => Decision::against("its registry has it"),
        }
    }

    fn carry_out(
        &self,
        decision: &Decision,
        engine: Option<&Engine>,
        image: &ImageToBuild,
    ) -> Result<Outcome> {
        let reference = image.reference();
        let why = &decision.why;
        match engine.filter(|_| decision.is_wanted) {
            Some(engine) => {
                let session = &self.opened(image)?.session;
                say!("{reference} is built: {why}");
                self.build(engine, image, session)
            }
            None => {
                say!("{reference} is not built: {why}");
                Ok(Outcome::NotBuilt)
            }
        }
    }

    fn build(
        &self,
        engine: &Engine,
        image: &ImageToBuild,
        session: &RegistrySession,
    ) -> Result<Outcome> {
        self.warn_of_ignored(image)?;
        let progress = Progress::new(image.short_name());
        let path = &image.image.path;
        let earlier = own_images::earlier_tags(self.sh, self.tree, path, &image.tag, EARLIER)?;
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

    /// Says that the image may have more in it than its commit. In a fresh clone there are no such files.
    fn warn_of_ignored(&self, image: &ImageToBuild) -> Result<()> {
        let folder = &image.image.path;
        if self.options.push && own_images::has_ignored(self.sh, self.tree, folder)? {
            say!(
                "warning: `{}` has files that git ignores, and the image may have them, too: `.dockerignore` leaves files out",
                folder.display()
            );
        }
        Ok(())
    }

    /// The login that an image is built with.
    fn opened(&self, image: &ImageToBuild) -> Result<&Opened<'_>> {
        let login = self.cluster.registry_of(image.image);
        let found = self.sessions.iter().find(|it| it.login == login);
        // Where no login is needed, there is but one: the person's own.
        let found = found.or(self.sessions.first());
        let found = found.context("there is no login")?;
        found.opened.as_ref().map_err(|err| anyhow!("{err:#}"))
    }
}

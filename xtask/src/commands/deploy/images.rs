//! Hubs' own images before their hubs are touched: those that are not there to be pulled.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use xshell::Shell;

use crate::{
    commands::deploy::{
        options::Deploy,
        run::{HubToDeploy, Run},
    },
    kubernetes::{
        credentials::{self, registry},
        images::{
            builds::{self, BuildOptions},
            to_build,
        },
    },
    machine::{parallel, programs::Tools, workflow},
    repository::{
        cluster::{Cluster, Hub, OwnImage},
        fleet::Fleet,
        own_images,
        release_config::ReleaseConfig,
    },
    services::registry::{Answer, Registries, reference::Reference},
};

/// Why hubs cannot be deployed, by their names.
pub(crate) type Refusals = BTreeMap<String, String>;

/// An image that hubs are to get, once for all of them.
struct Wanted<'a> {
    image: &'a OwnImage,
    reference: Reference,
    hubs: Vec<&'a str>,
}

/// Warns of folders with changes that no commit has: hubs get the image of the last commit.
pub(crate) fn warn_of_changes(sh: &Shell, fleet: &Fleet, cluster: &str) -> Result<()> {
    let mut seen = BTreeSet::new();
    for image in fleet.releases().iter().flat_map(ReleaseConfig::images) {
        let folder = &image.image.path;
        let tag = &fleet.image_tags[folder];
        if let Ok(tag) = tag
            && seen.insert(folder)
            && own_images::is_dirty(sh, &fleet.tree, folder)?
        {
            let shown = folder.display();
            let message = format!(
                "`{shown}` has changes that no commit has, and hubs get the image of commit {tag}, without them"
            );
            workflow::tell_warning(cluster, &message)?;
        }
    }
    Ok(())
}

/// Builds the own images of these hubs, and pushes them if that is asked for. Returns the hubs that miss one.
pub(crate) fn build<'a>(
    sh: &Shell,
    fleet: &'a Fleet,
    args: &Deploy,
    hubs: impl IntoIterator<Item = &'a Hub>,
) -> Result<Refusals> {
    if !args.build {
        let message = "`--push` is ignored: it pushes what `--build` builds, which is not given";
        workflow::tell_warning(&args.cluster, message)?;
        return Ok(Refusals::new());
    }
    let cluster = fleet.cluster(&args.cluster)?;
    let mut refusals = Refusals::new();
    let mut known = Vec::new();
    for hub in hubs {
        match unknown_tag(fleet, hub) {
            Some(why) => {
                if args.leaves_hubs() {
                    workflow::tell_failure(&hub.name, &why);
                }
                refusals.insert(hub.name.clone(), why);
            }
            None => known.push(hub),
        }
    }
    let images = to_build::of_hubs(sh, &fleet.tree, cluster, &known)?;
    let options = BuildOptions {
        push: args.push,
        // A tag says what is in its image.
        check_registry: args.push,
        checks_first: !args.no_setup,
        ..BuildOptions::default()
    };
    for built in builds::build(sh, &fleet.tree, cluster, &images, &options)? {
        if let Err(err) = &built.result {
            let why = format!("`{}` was not built: {err:#}", built.image.reference());
            let hubs = built.image.hubs.iter();
            refusals.extend(hubs.map(|hub| ((*hub).to_owned(), why.clone())));
        }
    }
    Ok(refusals)
}

/// Why the tag of an image of a hub is not known, if it isn't.
fn unknown_tag(fleet: &Fleet, hub: &Hub) -> Option<String> {
    let tags = hub.images.iter().map(|it| &fleet.image_tags[&it.path]);
    let mut unknown = tags.filter_map(|it| it.as_ref().err());
    unknown.next().cloned()
}

/// Asks the registries whether they have the images of these hubs. Those of which one is missing cannot be deployed; what a
/// registry does not tell is a warning.
pub(crate) fn missing(
    tools: &Tools,
    run: &Run,
    cluster: &Cluster,
    hubs: &[HubToDeploy],
) -> Result<Refusals> {
    let mut refusals = Refusals::new();
    let changed = hubs.iter().filter(|it| !run.is_unchanged(it.name()));
    let tree = &run.fleet.tree;
    let registry = to_build::registry_of_node(tree, cluster)?;
    let wanted = wanted(&run.fleet, changed, registry)?;
    if wanted.is_empty() {
        return Ok(refusals);
    }
    let decrypter = credentials::decrypter(tools, tree, cluster)?;
    let images = wanted.iter().map(|it| it.image);
    let logins = registry::logins(&decrypter, tree, cluster, images);
    let registries = Registries::new(&run.settings, logins);
    let answers = parallel::side_by_side(&(), &wanted, |(), it| registries.look(&it.reference));
    for (wanted, answer) in wanted.iter().zip(answers) {
        match answer {
            Answer::There { .. } => {}
            Answer::Missing => {
                for hub in &wanted.hubs {
                    let why = wanted.is_missing(cluster, hub);
                    refusals.insert((*hub).to_owned(), why);
                }
            }
            Answer::Unknown(why) => {
                let why = run.mask.hide(&why.to_string());
                let image = &wanted.reference;
                let message = format!("whether `{image}` is there is not known: {why}");
                workflow::tell_warning(&cluster.name, &message)?;
            }
        }
    }
    Ok(refusals)
}

/// The images of these hubs whose tags are known. `registry` is that of a rehearsal cluster's node.
fn wanted<'a>(
    fleet: &Fleet,
    hubs: impl IntoIterator<Item = &'a HubToDeploy<'a>>,
    registry: Option<&str>,
) -> Result<Vec<Wanted<'a>>> {
    let mut wanted: BTreeMap<(&str, &str), Wanted> = BTreeMap::new();
    for hub in hubs {
        for image in &hub.hub.images {
            let Some(Ok(tag)) = fleet.image_tags.get(&image.path) else {
                continue;
            };
            let reference = Reference {
                name: to_build::pushed_name(image, registry)?,
                tag: Some(tag.clone()),
                digest: None,
            };
            let known = wanted.entry((&image.name, tag)).or_insert_with(|| Wanted {
                image,
                reference,
                hubs: Vec::new(),
            });
            known.hubs.push(hub.name());
        }
    }
    Ok(wanted.into_values().collect())
}

impl Wanted<'_> {
    fn is_missing(&self, cluster: &Cluster, hub: &str) -> String {
        let Reference { name, tag, .. } = &self.reference;
        let tag = tag.as_deref().unwrap_or_default();
        let command = format!("cargo xtask image build {} {hub} --push", cluster.name);
        format!(
            "`{name}` has no tag `{tag}`, the last commit that changed `{}`\nhint: {} builds it",
            self.image.path.display(),
            workflow::at_terminal(&command)
        )
    }
}

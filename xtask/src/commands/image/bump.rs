//! Changes the tags of images in values files, of which all else stays as it is.

mod edits;
mod found;
mod newest;
mod selected;
mod versions;
mod written;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use xshell::Shell;

use self::{
    edits::Edits,
    found::{AllFound, Found},
    newest::Wanted,
    versions::{NewVersion, Wish},
};
use crate::{
    charts::fetch,
    kubernetes::credentials::{self, registry},
    machine::{
        programs,
        terminal::{self, list},
        tree::Tree,
    },
    repository::{edited, fleet::Fleet, problem::EVERYTHING, readers::Readers},
    services::registry::{Logins, Registries, reference::Reference},
    settings::Settings,
};

/// Change the tags of images in hubs' values files
///
/// All else in the files stays as it is, with comments, order and quotes. An image is found wherever values have one: as a map
/// with its name and tag, as a text in a profile or one of its choices, beside extra containers. Its tag is changed in the file
/// that sets it; if other hubs have it from there, they must be named as well. What is encrypted or made by jsonnet is named
/// and left alone.
///
/// A digest behind a tag, or in a key beside it, becomes that of the new tag. The new values are checked as by `validate`
/// before anything is written, and all files are written or none.
#[derive(clap::Args)]
#[command(
    override_usage = "cargo xtask image bump [OPTIONS] CLUSTER… [HUB…]",
    after_help = "\
Examples:\n\
\x20 cargo xtask image bump lake prod --tag 2026.1\n\
\x20 cargo xtask image bump lake --image pangeo-notebook --newest '\\d{4}\\.\\d\\d\\.\\d\\d' --dry-run\n\
\x20 cargo xtask image bump lake staging river prod --image quay.io/pool/scipy --pin\n\
\x20 cargo xtask image bump all --image rocker/binder --newest '4\\.\\d+'\n\n\
Newest is the tag with the highest numbers, compared from left to right: `2026.10` comes after\n\
`2026.9`, and `1.0` after `1.0-rc1`. If the expression has groups, only what they match is\n\
compared: `(\\d{8})-[0-9a-f]+`. A tag that is newer than what matches stays; `--tag` sets any."
)]
#[group(id = "wish", required = true, multiple = true, args = ["tag", "newest", "pin"])]
pub struct Bump {
    /// Clusters, by their folders in config/clusters/, each with those of its hubs that are meant behind it [default: all of
    /// its hubs]. `CLUSTER/HUB` is one hub, and `all` every cluster
    #[arg(value_name = "CLUSTER", required = true)]
    clusters: Vec<String>,
    /// The image by its name, or the end of it such as `scipy-notebook`; may be repeated [default: the only one that there is]
    #[arg(long, value_name = "NAME", value_parser = name)]
    image: Vec<Reference>,
    /// Set this tag, which the registry must have
    #[arg(long, value_name = "TAG", value_parser = tag, conflicts_with = "newest")]
    tag: Option<String>,
    /// Set the newest tag that this regular expression matches as a whole
    #[arg(long, value_name = "REGEX", value_parser = Wanted::parse)]
    newest: Option<Wanted>,
    /// Write the image's digest behind the tag, the present or the new one: `TAG@sha256:…`
    #[arg(long)]
    pin: bool,
    /// Print what would change in files, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The name of an image.
fn name(spelt: &str) -> Result<Reference> {
    let name = Reference::parse(spelt)?;
    ensure!(
        name.tag.is_none() && name.digest.is_none(),
        "the name of an image, without a tag or digest"
    );
    Ok(name)
}

fn tag(spelt: &str) -> Result<String> {
    // Any name will do.
    Reference::parse(&format!("image:{spelt}"))?;
    ensure!(!spelt.contains('@'), "`--pin` adds the digest of a tag");
    Ok(spelt.to_owned())
}

/// Changes tags, or shows what that would change.
pub(crate) fn bump(sh: &Shell, tree: &Tree, args: &Bump) -> Result<ExitCode> {
    let mut fleet =
        Fleet::load(sh, tree, &EVERYTHING, None, &[])?.with_charts(fetch::cached_schemas());
    edited::warn_of_unknown_clusters(&fleet)?;
    let readers = Readers::find(&fleet, &fleet.releases());
    let edits = args.edits(sh, &fleet, &readers)?;
    let files = edits.files()?;
    for untouched in &edits.untouched {
        say!("warning: {untouched}");
    }
    let told = edits.told();
    let next = edited::next(edits.releases());
    if files.is_empty() {
        say!("nothing is to be done");
        return Ok(ExitCode::SUCCESS);
    }
    let files: Vec<_> = files.iter().collect();
    edited::check(sh, &mut fleet, &files)?;
    if args.dry_run {
        terminal::print_diff(&edited::diffs(&files))?;
        return Ok(ExitCode::SUCCESS);
    }
    edited::write(tree, &files)?;
    terminal::print(&terminal::only_text(&told))?;
    say!("commit it, or see what a deploy would change: {next}");
    Ok(ExitCode::SUCCESS)
}

impl Bump {
    /// What is to be written, with what is said of the rest.
    fn edits<'a>(&self, sh: &Shell, fleet: &'a Fleet, readers: &'a Readers) -> Result<Edits<'a>> {
        let selected = selected::releases(fleet, &self.clusters)?;
        let all = AllFound::read(fleet, &selected)?;
        let mut chosen = all.choose(fleet, &selected, &self.image)?;
        leave_own_images(fleet, &mut chosen);
        let settings = Settings::load(&fleet.tree)?;
        let registries = Registries::new(&settings, logins(sh, fleet, &chosen)?);
        let wish = Wish {
            tag: self.tag.as_deref(),
            newest: self.newest.as_ref(),
            is_pinned: self.pin,
        };
        let images = chosen.iter().map(|it| &it.reference);
        let versions = wish.of_all(&registries, images)?;
        let mut edits = Edits::new(fleet, readers);
        for found in chosen {
            edits.add(found, &versions[&found.reference].reference);
        }
        edits.refuse_shared(&all);
        tell(&versions);
        Ok(edits)
    }
}

/// The logins to the registries of these images: the person's own, and those of the clusters that use them.
fn logins(sh: &Shell, fleet: &Fleet, chosen: &[&Found]) -> Result<Logins> {
    let hosts = chosen.iter().map(|it| it.reference.registry()).collect();
    let mut logins = registry::persons_logins(sh, &hosts);
    let releases = chosen.iter().filter_map(|it| it.release.split_once('/'));
    let used: BTreeSet<_> = releases.map(|(cluster, _)| cluster).collect();
    for cluster in &fleet.clusters {
        if cluster.registry.is_some() && used.contains(&*cluster.name) {
            let tools = programs::provide(sh, &["sops"], false)?;
            let decrypter = credentials::decrypter(&tools, &fleet.tree, cluster)?;
            logins.extend(registry::logins_to(
                &decrypter,
                &fleet.tree,
                cluster,
                &hosts,
            ));
        }
    }
    Ok(logins)
}

/// Says which images keep their versions, and what could not be checked.
fn tell(versions: &BTreeMap<&Reference, NewVersion>) {
    let mut warnings = BTreeSet::new();
    for (image, new) in versions {
        if **image == new.reference {
            let why = new.why_kept.as_deref();
            let why = why.unwrap_or("that is its version already");
            say!("`{image}` stays: {why}");
        }
        warnings.extend(&new.warning);
    }
    for warning in warnings {
        say!("warning: {warning}");
    }
}

/// Leaves out the images that are built from folders of the repository: a deploy sets their tags by itself.
fn leave_own_images(fleet: &Fleet, chosen: &mut Vec<&Found>) {
    for release in fleet.releases() {
        let Some(hub) = release.hub else { continue };
        for own in &hub.images {
            let before = chosen.len();
            chosen.retain(|it| it.release != release.path() || it.reference.name != own.name);
            if chosen.len() < before {
                say!(
                    "`{}` of {} stays: a deploy sets the tag that `image build` gives it",
                    own.name,
                    list([release.path()])
                );
            }
        }
    }
}

//! Asks registries whether the images exist that hubs name, each once for the whole fleet.

use std::{collections::BTreeMap, ptr};

use crate::{
    commands::validate::render::RenderedImage,
    machine::{
        parallel::side_by_side,
        terminal::{Progress, did_you_mean, list, nearest},
    },
    repository::{
        fleet::Fleet,
        images::{self, NamedImage},
        problem::{NOT_CHECKED, Problem},
        release_config::ReleaseConfig,
    },
    services::registry::{
        Answer, Logins, Registries, reference::Reference, unanswered::Unanswered,
    },
    settings::Settings,
    yaml::{Data, KeyPath, Node, Place, Step},
};

/// The rule of what only those may ask who log in. We don't, and so `--strict` takes it for no problem.
const LOGIN_WANTED: &str = "image-login";

/// What stands for an encrypted text when charts are rendered.
const PLACEHOLDER: &str = "encrypted";

/// Each image, with all places that name it.
type Named<'a> = BTreeMap<Reference, Vec<Use<'a>>>;

/// A place that names an image.
#[derive(Clone)]
struct Use<'a> {
    release: &'a ReleaseConfig<'a>,
    at: Place,
    /// What names it, if people did not set it there.
    named_by: Option<String>,
}

/// What a registry says of an image.
enum Found {
    /// The architectures that it is there for.
    There(Vec<String>),
    /// With the tag that is probably meant.
    Missing(Option<String>),
    Unknown(Unanswered),
}

/// What is wrong with the images of all selected releases: those that their values name, and those in what was rendered.
pub(crate) fn check(
    fleet: &Fleet,
    settings: &Settings,
    rendered: &BTreeMap<String, Vec<RenderedImage>>,
) -> Vec<Problem> {
    let releases = fleet.releases();
    let mut named = Named::new();
    for release in &releases {
        if fleet.wants_config_of(release) && fleet.is_readable(release) {
            add_from_values(fleet, release, &mut named);
            if let Some(rendered) = rendered.get(&release.path()) {
                add_rendered(fleet, release, rendered, &mut named);
            }
        }
    }
    let registries = Registries::new(settings, Logins::new());
    let mut problems = Vec::new();
    let mut unknown: BTreeMap<Unanswered, Vec<&Reference>> = BTreeMap::new();
    for (image, found) in ask(&registries, &named) {
        let uses = &named[image];
        match found {
            Found::Missing(meant) => problems.extend(missing(fleet, image, uses, meant.as_deref())),
            Found::There(there) => problems.extend(unfit(fleet, image, uses, &there)),
            Found::Unknown(why) => unknown.entry(why).or_default().push(image),
        }
    }
    for (why, images) in &unknown {
        problems.extend(not_checked(fleet, &named, why, images));
    }
    problems
}

/// Adds the images that the values of a release name: all that people set, and of the charts' defaults those that the
/// pods of users are made from.
fn add_from_values<'a>(fleet: &Fleet, release: &'a ReleaseConfig<'a>, named: &mut Named<'a>) {
    let Ok((mut values, enabled)) = fleet.compute(release, &fleet.set(release)) else {
        return;
    };
    let own = fleet.image_values(release, &fleet.set_by_files(release));
    for place in &own.places {
        take_out(&mut values, &place.path);
    }
    for image in images::named(&enabled, &values) {
        if let Some((reference, at)) = image.reference().filter(|(it, _)| !is_of_engine(it))
            && let Some(named_here) = use_of(fleet, release, &image, at)
        {
            named.entry(reference).or_default().push(named_here);
        }
    }
}

/// Takes a value out: a deploy sets it to an image of ours.
fn take_out(values: &mut Node, path: &KeyPath) {
    let steps = path.0.iter().map(|it| match it {
        Step::Key(key) => key.clone(),
        Step::Item(index) => index.to_string(),
    });
    let steps: Vec<_> = steps.collect();
    let steps: Vec<_> = steps.iter().map(String::as_str).collect();
    values.replace(&steps, Data::Null);
}

/// The place of an image whose version is set at `version_at`.
fn use_of<'a>(
    fleet: &Fleet,
    release: &'a ReleaseConfig<'a>,
    image: &NamedImage,
    version_at: Option<Place>,
) -> Option<Use<'a>> {
    let mut places = [version_at, image.at].into_iter().flatten();
    if let Some(at) = places.find(|it| fleet.is_set(release, *it)) {
        return Some(Use {
            release,
            at,
            named_by: None,
        });
    }
    let chart = image.chart.chart;
    image.is_of_users.then(|| Use {
        release,
        at: chart.at,
        named_by: Some(format!("a default of the chart `{}`", chart.name)),
    })
}

/// Adds the images that a release's manifests name and its values don't, without those of the repository's own.
fn add_rendered<'a>(
    fleet: &Fleet,
    release: &'a ReleaseConfig<'a>,
    rendered: &[RenderedImage],
    named: &mut Named<'a>,
) {
    let Ok(chart) = fleet.chart(release) else {
        return;
    };
    let set = Node::nowhere(Data::Map(fleet.set(release)));
    for RenderedImage {
        image: text,
        source,
    } in rendered
    {
        let Ok(image) = Reference::parse(text) else {
            continue;
        };
        if is_own(release, &image) || is_of_engine(&image) || text.contains(PLACEHOLDER) {
            continue;
        }
        let uses = named.entry(image).or_default();
        if uses.iter().any(|it| ptr::eq(it.release, release)) {
            continue;
        }
        let set_at = place_of(text, &set);
        uses.push(Use {
            release,
            at: set_at.unwrap_or(chart.at),
            named_by: set_at.is_none().then(|| source.clone()),
        });
    }
}

/// Whether an image is one that is built from the repository: a deploy looks for those.
fn is_own(release: &ReleaseConfig, image: &Reference) -> bool {
    let mut own = release.hub.iter().flat_map(|it| &it.images);
    own.any(|it| it.name == image.name)
}

/// Whether an image is in no registry: podman and buildah call those so that they build.
fn is_of_engine(image: &Reference) -> bool {
    image.name.starts_with("localhost/")
}

/// Where values have this text.
fn place_of(text: &str, values: &Node) -> Option<Place> {
    let mut place = None;
    KeyPath::default().visit_leaves(values, &mut |_, leaf| {
        if leaf.as_text() == Some(text) {
            place = place.or(leaf.at);
        }
    });
    place
}

/// Asks the registries, all of them at once.
fn ask<'i>(registries: &Registries, named: &'i Named) -> Vec<(&'i Reference, Found)> {
    let mut by_registry: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for image in named.keys() {
        let of_registry = by_registry.entry(registries.host_of(image)).or_default();
        of_registry.push(image);
    }
    if named.is_empty() {
        return Vec::new();
    }
    let progress = Progress::new("images");
    let registries_asked = list(by_registry.keys());
    progress.phase(&format!("asking {registries_asked} about {}", named.len()));
    let by_registry: Vec<_> = by_registry.into_values().collect();
    let found = side_by_side(&(), &by_registry, |(), images| {
        side_by_side(&(), images, |(), image| (*image, find(registries, image)))
    });
    found.into_iter().flatten().collect()
}

fn find(registries: &Registries, image: &Reference) -> Found {
    match registries.look(image) {
        Answer::There { .. } => match registries.architectures(image) {
            Ok(architectures) => Found::There(architectures),
            Err(err) => Found::Unknown(Unanswered::new(format!("{err:#}"))),
        },
        Answer::Missing => Found::Missing(tag_meant(registries, image)),
        Answer::Unknown(why) => Found::Unknown(why),
    }
}

/// The tag of an image that is probably meant by one that it does not have.
fn tag_meant(registries: &Registries, image: &Reference) -> Option<String> {
    let tag = image.tag.as_deref().filter(|_| image.digest.is_none())?;
    let tags = registries.tags(image).ok()?;
    nearest(tag, tags.iter().map(String::as_str)).map(str::to_owned)
}

/// That an image does not exist, wherever it is named.
fn missing(fleet: &Fleet, image: &Reference, uses: &[Use], meant: Option<&str>) -> Vec<Problem> {
    let meant = did_you_mean(meant);
    let message = |it: &Use| format!("`{image}` does not exist{}{meant}", it.named_by());
    told(fleet, uses, "image-missing", message)
}

/// That an image does not run on the nodes of the clusters that it is named for. Some do not say what they are for.
fn unfit(fleet: &Fleet, image: &Reference, uses: &[Use], there: &[String]) -> Vec<Problem> {
    let is_unfit = |it: &&Use| !there.is_empty() && !there.iter().any(|name| name == it.wanted());
    let unfit: Vec<_> = uses.iter().filter(is_unfit).cloned().collect();
    let only = list(there);
    told(fleet, &unfit, "image-architecture", |it| {
        format!(
            "`{image}` is only for {only}{}, and the nodes of `{}` are {}",
            it.named_by(),
            it.release.cluster.name,
            it.wanted()
        )
    })
}

fn told(
    fleet: &Fleet,
    uses: &[Use],
    rule: &'static str,
    message: impl Fn(&Use) -> String,
) -> Vec<Problem> {
    let mut found = Vec::new();
    for it in uses {
        let mut problems = fleet.problems_of(it.release);
        problems.problem(rule, Some(it.at), message(it));
        found.append(&mut problems.found);
    }
    found
}

/// That some images were not checked, all for one reason: at the first place that names one of them, if possible in a values
/// file.
fn not_checked(
    fleet: &Fleet,
    named: &Named,
    why: &Unanswered,
    images: &[&Reference],
) -> Vec<Problem> {
    let mut uses = Vec::new();
    for image in images {
        let of_image = named[image].iter();
        uses.extend(of_image.map(|it| (it.named_by.is_some(), it.at, image)));
    }
    let Some((_, at, first)) = uses.into_iter().min() else {
        return Vec::new();
    };
    let shown = match images {
        [_] => format!("`{first}` was not checked"),
        _ => format!(
            "{} of its images were not checked, such as `{first}`",
            images.len()
        ),
    };
    let rule = if why.wants_login {
        LOGIN_WANTED
    } else {
        NOT_CHECKED
    };
    let mut problems = fleet.problems(None, at);
    problems.warning(rule, None, format!("{why}: {shown}"));
    problems.found
}

impl Use<'_> {
    fn named_by(&self) -> String {
        let named_by = self.named_by.as_ref();
        named_by.map_or_else(String::new, |it| format!(" ({it})"))
    }

    /// The architecture of its cluster's nodes.
    fn wanted(&self) -> &'static str {
        self.release.cluster.architecture.name()
    }
}

//! Rules about images that are built from folders of the repository.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use xshell::{Shell, cmd};

use crate::{
    charts::values::EnabledChart,
    machine::{process, tree::Kind},
    repository::{
        cluster::{Builder, Cluster, Hub, OwnImage, RegistryLogin},
        fleet::Fleet,
        image_values::{ImagePlace, ImageValues},
        keys::KeyFile,
        problem::{Problem, Problems},
        release_config::{ListedImage, ReleaseConfig},
    },
    services::registry::reference::Reference,
    yaml::{Data, KeyPath, Map, Node, Place, Step},
};

const RULE: &str = "own-images";

/// Checks the own images of a release: what they are built from, and where they are among its values.
pub(crate) fn check(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    if release.images().next().is_none() {
        return;
    }
    for image in release.images() {
        if let Err(err) = Reference::parse(&image.image.name) {
            problems.problem(RULE, image.place(&["name"]), format!("{err:#}"));
        }
        can_be_built(fleet, &image, problems);
        is_no_other(fleet, release, &image, problems);
        if let Some(login) = &image.image.registry {
            let at = image.place(&["registry"]);
            can_log_in(fleet, login, at, problems);
        }
    }
    let set = fleet.set_by_files(release);
    let by_images = fleet.image_values(release, &set);
    are_set_once(&by_images, problems);
    for place in &by_images.places {
        nothing_is_overridden(fleet, release, place, &set, problems);
    }
}

/// Checks how the images of a cluster's hubs get to their registry, if it has any.
pub(crate) fn check_cluster(fleet: &Fleet, cluster: &Cluster, problems: &mut Problems) {
    let mut images = cluster.hubs.iter().flat_map(|it| &it.images);
    let is_used = images.any(|it| it.registry.is_none());
    if let Some(login) = cluster.registry.as_ref().filter(|_| is_used) {
        let at = cluster.yaml.get(&["registry"]).and_then(|it| it.at);
        can_log_in(fleet, login, at, problems);
    }
}

/// Images of folders that are in no commit: git is asked once for all of them. Of an index it is not asked, for it is about to
/// be committed.
pub(crate) fn uncommitted(fleet: &Fleet, sh: &Shell) -> Vec<Problem> {
    let releases = fleet.releases();
    let images = releases
        .iter()
        .flat_map(|release| release.images().map(move |it| (release, it)));
    let is_there = |image: &ListedImage| fleet.tree.is_folder(&image.image.path);
    let images: Vec<_> = images.filter(|(_, it)| is_there(it)).collect();
    if images.is_empty() || fleet.tree.is_index() {
        return Vec::new();
    }
    let folders: BTreeSet<_> = images.iter().map(|(_, it)| &*it.image.path).collect();
    let Some(committed) = committed(sh, fleet, &folders) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (release, image) in images {
        let folder = &image.image.path;
        if !committed.contains(folder) {
            let mut problems = fleet.problems_of(release);
            let message = format!(
                "no commit has `{}`: a deploy takes the image of the last one that changed it",
                folder.display()
            );
            problems.warning(RULE, image.place(&["path"]), message);
            found.append(&mut problems.found);
        }
    }
    found
}

/// Those of the folders that the last commit has; none if git does not tell.
fn committed(sh: &Shell, fleet: &Fleet, folders: &BTreeSet<&Path>) -> Option<BTreeSet<PathBuf>> {
    fleet.tree.top_of_git()?;
    let root = fleet.tree.root();
    let git = cmd!(sh, "git -C {root} ls-tree -z --name-only HEAD --").args(folders);
    let listed = process::read(sh, git).ok()?;
    Some(listed.split('\0').map(PathBuf::from).collect())
}

fn can_be_built(fleet: &Fleet, image: &ListedImage, problems: &mut Problems) {
    let OwnImage { path, builder, .. } = image.image;
    let at = image.place(&["path"]);
    let is_root = path.as_os_str().is_empty();
    let shown = if is_root { Path::new(".") } else { path };
    let shown = shown.display();
    if let Some(why) = is_no_folder(fleet, path) {
        return problems.problem(RULE, at, format!("`{shown}` {why}"));
    }
    if *builder == Builder::Docker && !fleet.tree.is_file(&path.join("Dockerfile")) {
        let message = format!(
            "`{shown}` has no Dockerfile; `build: repo2docker` builds an image of other files"
        );
        problems.problem(RULE, at, message);
    }
    if *builder == Builder::Docker && image.image.base_image.is_some() {
        let message =
            "`base_image` is for `build: repo2docker`; a Dockerfile says itself what it builds on";
        problems.problem(RULE, image.place(&["base_image"]), message);
    }
}

/// Why no image can be built from what is at a path, and get its tag from the commits that changed it.
fn is_no_folder(fleet: &Fleet, path: &Path) -> Option<String> {
    if path.as_os_str().is_empty() {
        return Some("is the whole repository: each commit would be a new image".to_owned());
    }
    let found = match fleet.tree.find(path) {
        Ok(Some(found)) => found,
        Ok(None) => return Some(fleet.tree.missing().to_owned()),
        Err(err) => return Some(format!("cannot be read: {err:#}")),
    };
    if found.kind != Kind::Folder {
        return Some("is not a folder".to_owned());
    }
    let is_linked = found.path != path;
    let target = found.path.display();
    is_linked.then(|| format!("is a link to `{target}`, whose commits it does not have: name that"))
}

/// A hub of any cluster that builds an image of this name from something else would replace it.
fn is_no_other(
    fleet: &Fleet,
    release: &ReleaseConfig,
    image: &ListedImage,
    problems: &mut Problems,
) {
    let mut clusters = fleet.clusters.iter();
    let other = clusters.find_map(|it| Some((it, other_of_its_name(it, image.image)?)));
    let Some((cluster, (hub, other))) = other else {
        return is_for_one_architecture(fleet, release, image, problems);
    };
    let whose = if cluster.name == release.cluster.name {
        format!("hub `{}`", hub.name)
    } else {
        format!("`{}`", cluster.path_of(&hub.name))
    };
    let is_same_folder = other.path == image.image.path;
    let how = if is_same_folder {
        " in another way"
    } else {
        ""
    };
    let message = format!(
        "{whose} builds an image `{}`, too, from `{}`{how}: give one of them another name",
        other.name,
        other.path.display()
    );
    problems.problem(RULE, image.place(&["name"]), message);
}

/// A cluster with nodes of another kind would find an image that cannot run there.
fn is_for_one_architecture(
    fleet: &Fleet,
    release: &ReleaseConfig,
    image: &ListedImage,
    problems: &mut Problems,
) {
    let name = &image.image.name;
    let mut others = fleet.clusters.iter();
    let other = others.find(|cluster| {
        let mut images = cluster.hubs.iter().flat_map(|it| &it.images);
        cluster.architecture != release.cluster.architecture && images.any(|it| it.name == *name)
    });
    if let Some(other) = other {
        let message = format!(
            "`{}` builds an image `{name}`, too, for nodes of another architecture: give one of them another name",
            other.name
        );
        problems.problem(RULE, image.place(&["name"]), message);
    }
}

/// A hub of the cluster, and its image of this name that is built from something else.
fn other_of_its_name<'a>(cluster: &'a Cluster, own: &OwnImage) -> Option<(&'a Hub, &'a OwnImage)> {
    let source = |it: &OwnImage| (it.path.clone(), it.builder, it.base_image.clone());
    let hubs = cluster.hubs.iter();
    let mut images = hubs.flat_map(|hub| hub.images.iter().map(move |it| (hub, it)));
    images.find(|(_, it)| it.name == own.name && source(it) != source(own))
}

/// Whether the file of a login can be used. Without one it is the cluster's key, or the login of this machine.
fn can_log_in(fleet: &Fleet, login: &RegistryLogin, at: Option<Place>, problems: &mut Problems) {
    let Some(path) = login.file() else {
        return;
    };
    let file = KeyFile::of_registry(path);
    for problem in file.problems(&fleet.tree, &file.read(&fleet.tree, &fleet.git_crypt)) {
        problems.problem("key", at, problem);
    }
}

fn are_set_once(by_images: &ImageValues, problems: &mut Problems) {
    let mut seen: BTreeMap<&KeyPath, &str> = BTreeMap::new();
    for place in &by_images.places {
        let name = &place.image.image.name;
        if let Some(other) = seen.insert(&place.path, name) {
            let message = format!("`{}` is the place of `{other}` already", place.path);
            problems.problem(RULE, place.at, message);
        }
    }
}

/// Each image is set where the chart has values, as far as all are known. Comes after the schemas, which may say so better.
pub(crate) fn places_are_known(fleet: &Fleet, release: &ReleaseConfig, problems: &mut Problems) {
    if release.images().next().is_none() || !fleet.knows_all_of(release) {
        return;
    }
    let set = fleet.set_by_files(release);
    let Ok((values, enabled)) = fleet.compute(release, &set) else {
        return;
    };
    let by_images = fleet.image_values(release, &set);
    for refused in &by_images.refused {
        let path = refused.path.as_ref();
        if path.is_none_or(|it| !leads_to_missing_chart(it, &enabled)) {
            problems.problem(RULE, refused.at, refused.to_string());
        }
    }
    for place in &by_images.places {
        let is_told = place.at.is_some_and(|at| problems.has_any_at(at));
        if let Some(missing) = missing_map(&place.path, &values)
            && !is_told
            && !leads_to_missing_chart(&place.path, &enabled)
        {
            let message = format!(
                "`{}`: {} has no values at `{missing}`",
                place.path,
                release.shown()
            );
            problems.problem(RULE, place.at, message);
        }
    }
}

/// The map that an image should be in, and that nothing has. In a list, and for `kubespawner_override`, people write what
/// they need.
fn missing_map(path: &KeyPath, values: &Node) -> Option<KeyPath> {
    for count in 1..path.0.len() {
        let above = path.first(count);
        match above.find(values) {
            Some(node) if node.as_list().is_some() => return None,
            Some(_) => {}
            None if above.0.last() == Some(&Step::Key("kubespawner_override".to_owned())) => {}
            None => return Some(above),
        }
    }
    None
}

/// Whether a path leads to the values of a chart that is not there.
fn leads_to_missing_chart(path: &KeyPath, enabled: &EnabledChart) -> bool {
    let mut chart = enabled;
    for step in &path.0 {
        if chart.chart.is_missing {
            return true;
        }
        let Step::Key(key) = step else { return false };
        let Some(part) = chart.parts.iter().find(|it| it.name == key) else {
            return false;
        };
        chart = part;
    }
    chart.chart.is_missing
}

/// Warns of names and tags that values files set where an own image is set over them, unless another hub needs the file.
fn nothing_is_overridden(
    fleet: &Fleet,
    release: &ReleaseConfig,
    place: &ImagePlace,
    set: &Map,
    problems: &mut Problems,
) {
    let set = Node::nowhere(Data::Map(set.clone()));
    let Some(node) = place.path.find(&set) else {
        return;
    };
    let whole = node.as_text().map(|_| (place.path.clone(), node));
    let parts = ["name", "tag"].map(|key| {
        let below = node.as_map()?.get(key)?;
        let is_same = key == "name" && below.as_text() == Some(&*place.image.image.name);
        let path = place.path.join(Step::Key(key.to_owned()));
        (!is_same && !below.is_null()).then_some((path, below))
    });
    for (path, node) in parts.into_iter().chain([whole]).flatten() {
        let Some(at) = node.at.filter(|it| is_for_own_images(fleet, *it)) else {
            continue;
        };
        let message = format!(
            "{}: `{path}` has no effect: the image that is built from `{}` is set over it",
            release.shown(),
            place.image.image.path.display()
        );
        problems.warning(RULE, Some(at), message);
    }
}

/// Whether all hubs that list a file have own images.
fn is_for_own_images(fleet: &Fleet, at: Place) -> bool {
    let file = fleet.files.path(at.file);
    let hubs = fleet.clusters.iter().flat_map(|it| &it.hubs);
    let mut readers = hubs.filter(|hub| {
        let mut files = hub.helm_chart_values_files.iter();
        files.any(|it| it == file)
    });
    fleet.values.contains_key(file) && readers.all(|it| !it.images.is_empty())
}

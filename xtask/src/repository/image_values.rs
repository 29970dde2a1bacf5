//! What a hub's own images set among its values: their names and tags, over what its values files set.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    charts::values::EnabledChart,
    repository::release_config::{ListedImage, ReleaseConfig},
    yaml::{self, Data, KeyPath, Map, Node, Place, Step},
};

/// The chart of Zero to JupyterHub.
const JUPYTERHUB: &str = "jupyterhub";

/// Stands for a tag that git was not asked for.
const SOME_TAG: &str = "a1b2c3d";

/// The tags of folders, by their paths from the root, or why git does not tell.
pub(crate) type ImageTags = BTreeMap<PathBuf, Result<String, String>>;

/// What the own images of a hub set.
#[derive(Default)]
pub(crate) struct ImageValues<'a> {
    /// To be merged over what its values files set. A list is here as a whole, since helm replaces it as a whole.
    pub(crate) values: Map,
    /// Where each image is set.
    pub(crate) places: Vec<ImagePlace<'a>>,
    /// Places where none can be set.
    pub(crate) refused: Vec<Refused>,
}

/// A place among the values of a hub that is an own image's.
pub(crate) struct ImagePlace<'a> {
    pub(crate) image: ListedImage<'a>,
    pub(crate) path: KeyPath,
    /// Where cluster.yaml says so.
    pub(crate) at: Option<Place>,
}

/// Why an image cannot be set at a place that cluster.yaml names.
pub(crate) struct Refused {
    pub(crate) at: Option<Place>,
    /// None if it is no path.
    pub(crate) path: Option<KeyPath>,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "`{path}`: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// The values of a release that its images are looked for in.
pub(crate) struct Around<'a> {
    pub(crate) values: Node,
    /// None if the chart cannot be read.
    pub(crate) enabled: Option<EnabledChart<'a>>,
}

/// What an image sets at its place.
struct NewValue<'a> {
    name: &'a str,
    tag: &'a str,
    /// Whether it is one text where nothing says otherwise.
    is_text: bool,
    at: Option<Place>,
}

/// What the own images of a release set over the values around them.
pub(crate) fn find<'a>(
    release: &ReleaseConfig<'a>,
    tags: &ImageTags,
    mut around: Around,
) -> ImageValues<'a> {
    let mut found = ImageValues::default();
    for image in release.images() {
        let tag = tags.get(&image.image.path);
        let tag = tag.and_then(|it| it.as_deref().ok()).unwrap_or(SOME_TAG);
        for place in around.places_of(image, &mut found.refused) {
            found.set(place, tag, &mut around.values);
        }
    }
    found
}

impl<'a> ImageValues<'a> {
    /// The folder of the image that a value is part of, from the root.
    pub(crate) fn folder_of(&self, path: &KeyPath) -> Option<&'a Path> {
        let is_of = |it: &&ImagePlace| {
            let below = path.0.strip_prefix(&*it.path.0);
            let named = ["name", "tag"].map(|it| Step::Key(it.to_owned()));
            below.is_some_and(|it| it.is_empty() || it.len() == 1 && named.contains(&it[0]))
        };
        let place = self.places.iter().find(is_of)?;
        Some(&place.image.image.path)
    }

    /// Sets an image at its place, also among the values around it.
    fn set(&mut self, place: ImagePlace<'a>, tag: &str, around: &mut Node) {
        let new = NewValue {
            name: &place.image.image.name,
            tag,
            is_text: is_one_text(&place.path),
            at: place.at,
        };
        match new.below(Some(around), &place.path.0) {
            Ok(change) => {
                merge(around, change.clone());
                if let Data::Map(change) = change.data {
                    yaml::merge(&mut self.values, change);
                }
                self.places.push(place);
            }
            Err(why) => self.refused.push(Refused {
                at: place.at,
                path: Some(place.path),
                why,
            }),
        }
    }
}

impl Around<'_> {
    /// Where cluster.yaml wants an image to be set, or else where the chart has the image of users' servers.
    fn places_of<'i>(
        &self,
        image: ListedImage<'i>,
        refused: &mut Vec<Refused>,
    ) -> Vec<ImagePlace<'i>> {
        let of_users = image.image.is_of_users().then(|| self.image_of_users());
        if let Some(path) = of_users.flatten() {
            let at = image.place(&["name"]);
            return vec![ImagePlace { image, path, at }];
        }
        let mut found = Vec::new();
        for (index, text) in image.image.values_paths().iter().enumerate() {
            let at = image.place_of_path(index);
            match KeyPath::parse(text) {
                Ok(path) => found.push(ImagePlace { image, path, at }),
                Err(err) => refused.push(Refused {
                    at,
                    path: None,
                    why: format!("{err:#}"),
                }),
            }
        }
        found
    }

    /// Where the image of users' servers is among the values, by the depth of JupyterHub's chart.
    fn image_of_users(&self) -> Option<KeyPath> {
        let chart = path_of_users(self.enabled.as_ref()?, Some(&self.values))?;
        let keys = chart.into_iter().chain(["singleuser", "image"]);
        Some(KeyPath(keys.map(|it| Step::Key(it.to_owned())).collect()))
    }
}

impl NewValue<'_> {
    /// What sets the image below these steps: of maps no more than what changes, of a list all of it.
    fn below(&self, there: Option<&Node>, steps: &[Step]) -> Result<Node, String> {
        let Some((first, rest)) = steps.split_first() else {
            return self.instead_of(there);
        };
        let Some(there) = there.filter(|it| !it.is_null()) else {
            return match first {
                Step::Key(key) => Ok(self.map_of(key, self.below(None, rest)?, None)),
                Step::Item(index) => Err(format!("there is no list that has an item {index}")),
            };
        };
        match (&there.data, first) {
            (Data::Map(map), Step::Key(key)) => {
                let below = self.below(map.get(key.as_str()), rest)?;
                Ok(self.map_of(key, below, Some(there)))
            }
            (Data::Map(_), Step::Item(index)) => Err(format!(
                "`[{index}]` is an item of a list, and this is a map"
            )),
            (Data::List(items), _) => self.in_list(there, items, first, rest),
            _ => Err(format!(
                "`{}` cannot be set in what is no map",
                shown(first)
            )),
        }
    }

    /// A list in which one item is changed.
    fn in_list(
        &self,
        list: &Node,
        items: &[Node],
        step: &Step,
        rest: &[Step],
    ) -> Result<Node, String> {
        let index = step.index().ok_or_else(|| {
            format!(
                "`{}` is in a list, whose items are `[0]`, `[1]` and so on",
                shown(step)
            )
        })?;
        let item = items.get(index).ok_or_else(|| {
            let count = items.len();
            format!(
                "`[{index}]` is not among the {count} items of the list, which begin with `[0]`"
            )
        })?;
        let change = self.below(Some(item), rest)?;
        let mut items = items.to_vec();
        merge(&mut items[index], change);
        Ok(Node {
            data: Data::List(items),
            ..*list
        })
    }

    /// What is set in place of this value.
    fn instead_of(&self, there: Option<&Node>) -> Result<Node, String> {
        let text = |text: String| self.node(Data::Text(text.into()));
        let is_text = match there.map(|it| &it.data) {
            None | Some(Data::Null) => self.is_text,
            Some(Data::Text(_) | Data::Encrypted(_)) => true,
            Some(Data::Map(_)) => false,
            Some(_) => return Err("what is set there is no image".to_owned()),
        };
        if is_text {
            return Ok(text(format!("{}:{}", self.name, self.tag)));
        }
        let mut map = Map::new();
        map.insert("name".into(), text(self.name.to_owned()));
        map.insert("tag".into(), text(self.tag.to_owned()));
        let data = Data::Map(map);
        Ok(match there {
            Some(there) if !there.is_null() => Node { data, ..*there },
            _ => self.node(data),
        })
    }

    /// A map of this key alone, at the place of the map that is there.
    fn map_of(&self, key: &str, value: Node, there: Option<&Node>) -> Node {
        let data = Data::Map(Map::from([(key.into(), value)]));
        match there {
            Some(there) => Node { data, ..*there },
            None => self.node(data),
        }
    }

    /// A value that cluster.yaml sets.
    fn node(&self, data: Data) -> Node {
        Node {
            data,
            at: self.at,
            key_at: self.at,
        }
    }
}

/// Whether an image is one text, `name:tag`, where nothing is set yet: KubeSpawner wants one, and so does a container in a
/// list.
fn is_one_text(path: &KeyPath) -> bool {
    let is_override = |it: &Step| *it == Step::Key("kubespawner_override".to_owned());
    let is_image = path.0.last() == Some(&Step::Key("image".to_owned()));
    let mut around = path.0.iter().rev().skip(1);
    is_image
        && around
            .next()
            .is_some_and(|it| is_override(it) || matches!(it, Step::Item(_)))
}

/// Merges a value over another one: maps by key, all else is replaced.
fn merge(into: &mut Node, from: Node) {
    match (&mut into.data, from.data) {
        (Data::Map(into), Data::Map(from)) => yaml::merge(into, from),
        (_, data) => *into = Node { data, ..from },
    }
}

/// The keys that lead to the chart that has users' servers: the one of Zero to JupyterHub, or one that says so by its values.
fn path_of_users<'a>(enabled: &EnabledChart<'a>, values: Option<&Node>) -> Option<Vec<&'a str>> {
    let has_users = values.is_some_and(|it| it.get(&["singleuser"]).is_some());
    if enabled.chart.name == JUPYTERHUB || has_users {
        return Some(Vec::new());
    }
    enabled.parts.iter().find_map(|part| {
        let below = values.and_then(|it| it.get(&[part.name]));
        let below = path_of_users(part, below)?;
        Some([vec![part.name], below].concat())
    })
}

fn shown(step: &Step) -> String {
    KeyPath(vec![step.clone()]).to_string()
}

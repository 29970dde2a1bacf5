//! What several threads want to know, and only one of them asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};

/// Values by their keys. Each is made by the first thread that wants it, and the others wait for that.
pub(crate) struct Once<K, V>(Mutex<BTreeMap<K, Arc<OnceLock<V>>>>);

impl<K, V> Default for Once<K, V> {
    fn default() -> Once<K, V> {
        Once(Mutex::default())
    }
}

impl<K: Clone + Ord, V: Clone> Once<K, V> {
    pub(crate) fn get(&self, key: &K, make: impl FnOnce() -> V) -> V {
        let mut known = self.0.lock().expect("nobody panics with it");
        let value = known.entry(key.clone()).or_default().clone();
        drop(known);
        value.get_or_init(make).clone()
    }
}

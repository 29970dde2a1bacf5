//! The way in which charts are prepared for helm.
//!
//! A change of this file redeploys every hub (`core_files` in settings.rs).

/// Part of each prepared chart's name in the cache. Count it up with every change that gives helm another chart: one that
/// is prepared in another way gets another name.
pub(crate) const FORMAT: &str = "4";

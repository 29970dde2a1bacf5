//! Charts: read, fetched, prepared for helm, and their values computed.

mod archive;
mod chart_path;
mod embed;
pub(crate) mod fetch;
mod files;
mod format;
mod ignore;
mod load;
pub(crate) mod metadata;
pub(crate) mod prepare;
pub(crate) mod source;
pub(crate) mod values;
pub(crate) mod version;
mod words;

pub(crate) use self::{
    chart_path::ChartPath,
    files::cached_texts,
    load::Loader,
    words::{words, words_of},
};

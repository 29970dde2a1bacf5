use super::*;
pub(super) fn render(_: &Shell, _: &Fleet, _: &BTreeMap<PathBuf, Result<PathBuf>>) -> Result<Vec<Problem>> { todo!() }

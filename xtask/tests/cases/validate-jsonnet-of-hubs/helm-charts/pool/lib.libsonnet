{
  wave: if std.extVar('XTASK_CLUSTER_NAME') == 'river' then 3 else {},
}

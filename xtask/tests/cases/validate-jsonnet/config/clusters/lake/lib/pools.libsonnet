{
  pool(name): { depth: std.length(std.extVar(name)) },
}

local lib = import "lib/pools.libsonnet";
{ pool: lib.pool("XTASK_POOL") }

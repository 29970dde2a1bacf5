{ greeting: import "gone.libsonnet" }

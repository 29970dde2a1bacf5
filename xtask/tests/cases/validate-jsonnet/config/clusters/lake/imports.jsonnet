(import "shared.values.jsonnet") + std.parseYaml(importstr "pools.values.yaml")

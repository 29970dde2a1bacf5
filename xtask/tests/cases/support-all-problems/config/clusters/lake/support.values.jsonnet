// Support belongs to no hub.
{ grafana: { root_url: "https://" + std.extVar("XTASK_HUB_DOMAIN") } }

{ ingress: { enabled: true, hosts: ["www." + std.extVar("XTASK_HUB_DOMAIN")] } }

"""The hub's settings: what the chart fixes, then what its values say, which wins."""

import json
import os
import sys
from pathlib import Path

SECRET = Path("/etc/jupyterhub/secret")
values = json.loads((SECRET / "values.json").read_text())
namespace = os.environ["POD_NAMESPACE"]
release = os.environ["HELM_RELEASE_NAME"]


def secret(key):
    return (SECRET / key).read_text()


c = get_config()  # noqa: F821

c.JupyterHub.bind_url = "http://:8000"
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"
c.JupyterHub.db_url = "sqlite:////srv/jupyterhub/jupyterhub.sqlite"
# Another JupyterHub may want another database: it keeps a copy of the old one beside it.
c.JupyterHub.upgrade_db = True
c.JupyterHub.cookie_secret = bytes.fromhex(secret("hub.config.JupyterHub.cookie_secret"))
# The proxy runs in a pod of its own: users stay connected while the hub restarts.
c.JupyterHub.cleanup_servers = False
c.ConfigurableHTTPProxy.should_start = False
# In seconds. Only then does the hub look whether a new proxy lacks the routes to users' servers.
c.JupyterHub.last_activity_interval = 5
c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
c.ConfigurableHTTPProxy.auth_token = secret("hub.config.ConfigurableHTTPProxy.auth_token")

singleuser = values["singleuser"]
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = namespace
c.KubeSpawner.image = "{name}:{tag}".format(**values["image"])
c.KubeSpawner.image_pull_policy = values["image"]["pullPolicy"]
c.KubeSpawner.cmd = singleuser["cmd"]
c.KubeSpawner.default_url = "/lab"
c.KubeSpawner.uid = 1000
c.KubeSpawner.gid = 1000
c.KubeSpawner.fs_gid = 1000
c.KubeSpawner.automount_service_account_token = False
c.KubeSpawner.allow_privilege_escalation = False
c.KubeSpawner.pod_security_context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
c.KubeSpawner.container_security_context = {"capabilities": {"drop": ["ALL"]}}
c.KubeSpawner.common_labels = {"app": "jupyterhub", "release": release}
c.KubeSpawner.extra_labels = {"hub.jupyter.org/network-access-hub": "true"}
c.KubeSpawner.cpu_guarantee = singleuser["cpu"].get("guarantee")
c.KubeSpawner.cpu_limit = singleuser["cpu"].get("limit")
c.KubeSpawner.mem_guarantee = singleuser["memory"].get("guarantee")
c.KubeSpawner.mem_limit = singleuser["memory"].get("limit")
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = singleuser["storage"]["capacity"]
c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
if singleuser["storage"].get("storageClassName"):
    c.KubeSpawner.storage_class = singleuser["storage"]["storageClassName"]
c.KubeSpawner.volumes = [
    {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}
]
c.KubeSpawner.volume_mounts = [{"name": "home", "mountPath": "/home/jovyan"}]
c.KubeSpawner.working_dir = "/home/jovyan"

# Nobody logs in as the user of the health check.
c.Authenticator.blocked_users = {"deployment-service-check"}

cull = values["cull"]
if cull["enabled"]:
    options = [f"--timeout={cull['timeout']}", f"--cull-every={cull['every']}"]
    culler = {"name": "idle-culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", *options]}
    c.JupyterHub.services.append(culler)
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    role = {"name": "idle-culler", "scopes": scopes, "services": ["idle-culler"]}
    c.JupyterHub.load_roles.append(role)

services = {
    "hub-health": {
        "scopes": [
            "admin:users!user=deployment-service-check",
            "admin:servers!user=deployment-service-check",
            "access:servers!user=deployment-service-check",
            "tokens!user=deployment-service-check",
        ],
    },
    **values["hub"]["services"],
}
for name, service in sorted(services.items()):
    settings = {key: value for key, value in service.items() if key not in ("apiToken", "scopes")}
    token = secret(f"hub.services.{name}.apiToken")
    c.JupyterHub.services.append({"name": name, "api_token": token, **settings})
    if service.get("scopes"):
        role = {"name": f"service-{name}", "scopes": service["scopes"], "services": [name]}
        c.JupyterHub.load_roles.append(role)

for class_name, settings in values["hub"]["config"].items():
    c[class_name].update(settings)

"""A hub of processes, with the service and role of z2jh's charts. Its users' servers do what the file `trouble` says."""

import asyncio
import json
import os
import sys
import time
from email.utils import formatdate
from pathlib import Path

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.users import SpawnProgressAPIHandler
from jupyterhub.spawner import SimpleLocalProcessSpawner
from tornado.web import HTTPError

USER = "deployment-service-check"
here = Path.cwd()
config = Path(__file__).parent
public, hub, proxy_api, gateway = os.environ["ADDRESSES"].split()


class Spawner(SimpleLocalProcessSpawner):
    async def start(self):
        trouble = (here / "trouble").read_text()
        if trouble == "fails":
            raise RuntimeError("the volume of the home is gone")
        if trouble in ("slow", "hangs", "stuck", "stuck for ever"):
            self.log.warning("This start is %s", trouble)
            await asyncio.sleep(6 if trouble == "slow" else 600)
        if trouble == "no access":
            self.oauth_access_scopes = ["access:servers!user=nobody"]
        self.args = ["--allow-root"]
        if trouble == "no kernel":
            self.args += ["--KernelSpecManager.ensure_native_kernel=False"]
            self.args += ["--KernelSpecManager.allowed_kernelspecs=another"]
        if trouble.startswith("kernel: "):
            spec = here / "homes" / USER / ".local/share/jupyter/kernels/own/kernel.json"
            spec.parent.mkdir(parents=True, exist_ok=True)
            kernel = {"argv": trouble.split()[1:], "display_name": "own", "language": "none"}
            spec.write_text(json.dumps(kernel))
            self.args += ["--MultiKernelManager.default_kernel_name=own"]
            # By itself it tries five times, each after three seconds.
            self.args += ["--KernelRestarter.restart_limit=1", "--KernelRestarter.time_to_dead=1"]
        return await super().start()

    async def stop(self, now=False):
        if (here / "trouble").read_text() == "stuck for ever":
            await asyncio.sleep(8)
        await super().stop(now)

    async def progress(self):
        yield {"progress": 50, "message": "0/1 nodes are available"}


prepare = APIHandler.prepare
refused = set()


async def prepare_unless_busy(self):
    """Says "busy 1": each request comes too early once, and is to come again in so many seconds."""
    await prepare(self)
    trouble = (here / "trouble").read_text()
    since = (here / "trouble").stat().st_mtime_ns
    what = (since, self.request.method, self.request.path)
    if trouble.startswith("busy") and what not in refused and USER in self.request.path:
        refused.add(what)
        error = HTTPError(429, "Too many users trying to log in right now.")
        seconds = int(trouble.split()[1])
        after = str(seconds) if len(refused) % 2 else formatdate(time.time() + seconds, usegmt=True)
        error.headers = {"Retry-After": after}
        raise error


APIHandler.prepare = prepare_unless_busy

send_event = SpawnProgressAPIHandler.send_event


async def send_event_and_cut(self, event):
    await send_event(self, event)
    # Of which the proxy tells nobody.
    if (here / "trouble").read_text() == "slow" and "ready" not in event:
        self.request.connection.stream.close()


SpawnProgressAPIHandler.send_event = send_event_and_cut


c = get_config()  # noqa: F821

c.JupyterHub.bind_url = f"https://{public}{os.environ['BASE']}"
c.JupyterHub.ssl_cert = str(here / "tls.crt")
c.JupyterHub.ssl_key = str(here / "tls.key")
c.JupyterHub.hub_bind_url = f"http://{hub}"
c.JupyterHub.db_url = f"sqlite:///{here}/hub.sqlite"
c.JupyterHub.cookie_secret_file = str(here / "cookie_secret")
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.blocked_users = {USER}
c.ConfigurableHTTPProxy.command = os.environ["PROXY"].split()
c.ConfigurableHTTPProxy.api_url = f"http://{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = "of-the-proxy"
c.ConfigurableHTTPProxy.pid_file = str(here / "proxy.pid")

c.JupyterHub.spawner_class = Spawner
# A start that takes longer is followed by its events, as all are with z2jh.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}
# The hub gives up what hangs.
c.Spawner.pre_spawn_hook = lambda spawner: setattr(
    spawner, "start_timeout", 14 if (here / "trouble").read_text() == "hangs" else 60
)
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.env_keep = ["PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "JUPYTER_PATH"]
c.SimpleLocalProcessSpawner.home_dir_template = str(here / "homes/{username}")
c.Spawner.environment = {
    "DASK_GATEWAY__ADDRESS": f"http://{gateway}/services/dask-gateway",
    "DASK_GATEWAY__PROXY_ADDRESS": f"gateway://{gateway}",
    "DASK_GATEWAY__AUTH__TYPE": "jupyterhub",
}

c.JupyterHub.services = [
    {"name": "hub-health", "api_token": "of-hub-health"},
    {"name": "without-rights", "api_token": "without-rights"},
]
c.JupyterHub.load_roles = [
    {
        "name": "hub-health",
        "services": ["hub-health"],
        "scopes": [
            f"admin:users!user={USER}",
            f"admin:servers!user={USER}",
            f"access:servers!user={USER}",
            f"tokens!user={USER}",
        ],
    }
]
if os.environ.get("DASK"):
    c.JupyterHub.services.append(
        {
            "name": "dask-gateway",
            "url": f"http://{gateway}",
            "command": ["dask-gateway-server", "--config", str(config / "dask_gateway_config.py")],
            "environment": {name: os.environ[name] for name in ("ADDRESSES", "PATH", "PYTHONPATH")},
        }
    )

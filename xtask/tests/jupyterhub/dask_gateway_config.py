"""A gateway whose clusters are processes; a service of the hub beside it."""

import os
import sys
from pathlib import Path

address = os.environ["ADDRESSES"].split()[-1]

c = get_config()  # noqa: F821

c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.JupyterHubAuthenticator"
# Every token of a user will do, as in z2jh's chart.
c.JupyterHubAuthenticator.use_service_access_scopes = False
c.DaskGateway.address = "127.0.0.1:0"
c.Proxy.address = address
c.Proxy.prefix = "/services/dask-gateway"
c.LocalBackend.clusters_directory = str(Path.cwd() / "clusters")
# Dask has no commands of the gateway's defaults any more.
c.ClusterConfig.scheduler_cmd = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = [sys.executable, "-m", "distributed.cli.dask_worker"]

"""What several test files share: one real Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

# One thread for each process: where several share few cores, threads that wait for a core spin and slow all down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Serve S3 on loopback, with a bucket named `bucket`; gives the address. Any key and secret will do."""
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    options = {"key": "test", "secret": "test", "endpoint_url": address, "skip_instance_cache": True}
    fsspec.filesystem("s3", **options).mkdir("bucket")
    yield address
    server.stop()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A private Ray of four logical cores, ended with the session; `connect_ray` joins it. Gives the `ray` module.

    Never `ray stop` it: that ends every Ray of the machine.
    """
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        # Workers see the directory that pytest was started in, not pytest's own `pythonpath`: without this an
        # installed package, perhaps of another checkout, would be what is tested.
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield ray
        ray.shutdown()

"""What several test files share: one real Ray, one S3 and one file of weights for the whole session."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

if TYPE_CHECKING:
    from make_weights import SeededWeights

# One thread for each process: where several share few cores, threads that wait for a core spin and slow all down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def seeded() -> Iterator[SeededWeights]:
    """EnCodec's architecture with seeded weights, made once and deleted at the end: they are 93 MB."""
    from make_weights import make_weights

    from shards.codec.weights import WEIGHTS_FILE

    with tempfile.TemporaryDirectory() as folder:
        yield make_weights(Path(folder) / WEIGHTS_FILE)


@pytest.fixture
def no_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty torch hub cache, and nothing to fill it from; gives where the published weights would lie."""
    import encodec.model

    from shards.codec.weights import weights_path

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:
        # Bound and not listening: nobody answers, and nobody else can.
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(encodec.model, "ROOT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/")
        yield weights_path(None)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread, as an actor does: another count of threads may round another way."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of one second in `wav`, and `pairs.jsonl` over them. Not to be spoiled."""
    from make_tracks import make_tracks

    return make_tracks(tmp_path_factory.mktemp("tracks"))


@pytest.fixture(scope="session")
def undisturbed_files(tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of the dataset that is made of them when nothing goes wrong, and its hash."""
    from make_tracks import TWO_A_SHARD, files, paired

    from pipeline.encode import encode_dataset, encode_locally

    folder = tmp_path_factory.mktemp("undisturbed") / "ds"
    encode_dataset(paired(tracks / "wav"), folder, TWO_A_SHARD, encode_locally)
    return files(folder)


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

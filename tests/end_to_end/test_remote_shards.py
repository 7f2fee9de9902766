"""Training on shards of an object store that fails at times is training on local ones."""

import os
import re
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from tests.data.faulty_server import serve
from tests.data.remote.test_prefetcher import spawned
from tests.end_to_end.conftest import by_torchrun, scalars

from virtex.cli import main
from virtex.data.prefetch_plan import training_windows
from virtex.data.remote import store as remote_store
from virtex.data.remote.directory import Retries

WINDOW = 24  # of 64 samples in 16 shards: three batches
SETTINGS = (
    *("OPTIM.NUM_ITERATIONS", 12, "DATA.FORMAT", "shards", "DATA.SHUFFLE_WINDOW", WINDOW),
    *("DATA.CACHE_GB", 0.01),
)
FLAGS = ("--checkpoint-every", 6, "--keep-recent", 1)
FAULTS = [503, "reset", None, 500, "truncate", "slow", "short", None, 429]
QUICK = Retries(attempts=3, first_pause=0.01, longest_pause=0.02)


@pytest.fixture(scope="module")
def packed(scenes, tmp_path_factory):
    directory = tmp_path_factory.mktemp("packed")
    words = ["--samples-per-shard", "4", "--workers", "1"]
    assert (
        main(["pack", "--from", "coco", str(scenes.root / "scenes"), str(directory), *words]) == 0
    )
    return directory


@pytest.fixture(scope="module")
def local(scenes, packed, tmp_path_factory):
    """The directory of a run on the shards as local files."""
    directory = tmp_path_factory.mktemp("local") / "run"
    assert scenes.pretrain(directory, *FLAGS, override=(*SETTINGS, "DATA.ROOT", packed)) == 0
    return directory


@pytest.fixture
def server(packed, monkeypatch):
    """A server of faults before an S3 server with the shards at s3://bucket/scenes."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    client = boto3.client("s3", endpoint_url="http://{}:{}".format(*moto.get_host_and_port()))
    client.create_bucket(Bucket="bucket")
    for path in packed.glob("*/*"):
        client.upload_file(path, "bucket", f"scenes/{path.relative_to(packed)}")
    client.close()
    with serve(upstream=moto.get_host_and_port()) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server
    moto.stop()


def at(cache):
    return (*SETTINGS, "DATA.ROOT", "s3://bucket/scenes", "DATA.CACHE_DIR", cache)


def log(run, rank=0):
    return (run / f"log_rank{rank}.txt").read_text(encoding="utf-8")


def retries(text):
    return max(map(int, re.findall(r"(\d+) requests repeated", text)), default=0)


def test_a_run_on_a_store_that_fails_at_times_is_the_run_on_files(
    scenes, server, local, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote_store, "Retries", lambda: Retries(first_pause=0.02))
    server.faults += 6 * FAULTS
    cache = tmp_path / "cache"
    assert scenes.pretrain(run, *FLAGS, "--cpu-workers", 2, override=at(cache)) == 0
    assert scalars(run) == scalars(local)
    injected = 6 * len(FAULTS) - len(server.faults)
    assert injected > 20
    assert retries(log(run)) >= injected // 2
    assert "fetching 6 shards, " in log(run)
    assert "of the first window; training starts when they are cached" in log(run)
    assert not spawned()


def of_sources(*roots):
    """Settings of the shards twice, as two sources."""
    sources = [
        {"FORMAT": "shards", "ROOT": str(root), "WEIGHT": 2.0 - number}
        for number, root in enumerate(roots)
    ]
    data = ("DATA.SOURCES", sources, "DATA.ROOT", "datasets/coco", "DATA.SHUFFLE_WINDOW", WINDOW)
    return (*data, "OPTIM.NUM_ITERATIONS", 12)


def test_a_mixture_with_a_store_is_the_mixture_of_files(
    scenes, server, packed, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(remote_store, "Retries", lambda: Retries(first_pause=0.02))
    short = ("OPTIM.NUM_ITERATIONS", 6)
    local, data = tmp_path / "local", (*of_sources(packed, packed), *short)
    assert scenes.pretrain(local, *FLAGS, override=data) == 0
    server.faults += FAULTS
    remote = (*of_sources("s3://bucket/scenes", packed), *short, "DATA.CACHE_DIR", tmp_path / "c")
    assert scenes.pretrain(run, *FLAGS, "--cpu-workers", 1, override=remote) == 0
    assert scalars(run) == scalars(local)
    assert "s3://bucket/scenes: 64 images, weight 2 (66.7%)" in log(run)
    assert "of the first window; training starts when they are cached" in log(run)
    assert not server.faults
    assert not spawned()


@pytest.mark.slow  # `test_prefetch_plan` has the order of the shards
def test_a_mixture_of_two_stores_resumes_on_several_processes(
    scenes, server, packed, run, tmp_path
):
    local = tmp_path / "local"
    data = (*of_sources(packed, packed), "SYNC_BN", "true")
    flags = ("--checkpoint-every", 6, "--cpu-workers", 1)
    assert scenes.pretrain(local, *flags, override=data) == 0
    remote = of_sources("s3://bucket/scenes", "s3://bucket/scenes")
    override = (*remote, "SYNC_BN", "true", "DATA.CACHE_DIR", tmp_path / "cache")
    for resumed in ((), ("--resume-from", "latest")):
        by_torchrun(scenes, run, 2, *flags, *resumed, override=override)
        for one, other in zip(scalars(run, "train/"), scalars(local, "train/"), strict=True):
            assert one == pytest.approx(other, rel=1e-4)
        assert server.gets
        (run / "checkpoint_12.pth").unlink()


def test_the_problem_of_a_source_at_an_address_names_it(scenes, server, packed, run, capsys):
    assert scenes.pretrain(run, override=of_sources("s3://bucket/none", packed)) == 2
    error = capsys.readouterr().err
    assert "DATA.SOURCES: the source s3://bucket/none: " in error
    assert not server.faults


@pytest.mark.slow  # `test_tokenizer` has the local case
def test_a_vocabulary_of_shards_on_a_store_is_that_of_files(scenes, server, packed, tmp_path):
    outputs = [tmp_path / "remote.model", tmp_path / "local.model"]
    for output, settings in zip(
        outputs, [at(tmp_path / "cache"), (*SETTINGS, "DATA.ROOT", packed)], strict=True
    ):
        words = ["--config", scenes.config, "--output", output, "--config-override", *settings]
        assert main(["tokenizer", *map(str, words)]) == 0
    assert server.gets
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.slow  # `test_prefetcher` holds a smaller case
def test_two_processes_share_what_they_fetch(scenes, server, local, run, tmp_path):
    server.faults += FAULTS
    override = (*at(tmp_path / "cache"), "SYNC_BN", "true")
    by_torchrun(scenes, run, 2, *FLAGS, "--cpu-workers", 1, override=override)
    for one, other in zip(scalars(run), scalars(local), strict=True):
        assert one == pytest.approx(other, rel=1e-4)  # sums are rounded in another order
    assert not server.faults
    assert retries(log(run)) + retries(log(run, 1)) > 2
    # The last line of each.
    fetched = [re.findall(r"data: (\d+) files", log(run, rank))[-1] for rank in (0, 1)]
    # 16 and 3 shards with their indexes, and both manifests in each process at most.
    assert sum(map(int, fetched)) <= 2 * (16 + 3) + 2 * 2


def test_a_run_whose_store_is_gone_ends_and_goes_on_when_it_is_back(
    scenes, server, local, run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(remote_store, "Retries", lambda: QUICK)  # in place of minutes
    sizes = np.full(16, 4)
    order = {"window": WINDOW, "batch_size": 8, "seed": 0, "first_iteration": 0}
    first = next(training_windows(sizes, **order)).shards.tolist()
    later = set(range(16)) - set(first)
    server.gone |= {f"/bucket/scenes/train/{number:05}.tar" for number in later}
    flags = ("--checkpoint-every", 2, "--cpu-workers", 1)
    assert scenes.pretrain(run, *flags, override=at(tmp_path / "cache")) == 1
    error = capsys.readouterr().err
    assert re.search(r"s3://bucket/scenes/train/\d+\.tar: gave up after 3 attempts", error)
    assert "Traceback" not in error
    assert "fetching ahead failed" in log(run)
    assert [path.name for path in run.glob("checkpoint_*")] == ["checkpoint_2.pth"]
    assert not spawned()
    server.gone.clear()
    flags = (*FLAGS, "--cpu-workers", 1, "--resume-from", "latest")
    assert scenes.pretrain(run, *flags, override=at(tmp_path / "cache")) == 0
    assert scalars(run, "train/") == scalars(local, "train/")
    assert scalars(run, "val/")[-1] == scalars(local, "val/")[-1]


@pytest.mark.usefixtures("server")
def test_a_cache_without_room_is_refused_before_training(scenes, run, tmp_path, capsys):
    override = (*at(tmp_path / "cache"), "DATA.CACHE_GB", 1e-4)
    assert scenes.pretrain(run, override=override) == 2
    assert "or DATA.SHUFFLE_WINDOW to" in capsys.readouterr().err
    assert not Path(run).exists()

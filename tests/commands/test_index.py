"""`virtex index`: the indexes that a run would make, by any number of processes."""

import pytest
from tests.data.tars import tar

from virtex.cli import main
from virtex.data.shards.indexing import Indexing, manifest_and_home
from virtex.data.shards.store import LocalStore

pytestmark = [
    # Python 3.12 and later say that torch's threads and forked workers may not go together.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    # torch says so where a machine has fewer cores than the test has workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


def write(directory, names):
    directory.mkdir(parents=True)
    for number, name in enumerate(names):
        members = {f"{number}{n}.jpg": b"-" * 2000 for n in range(3)}
        members |= {f"{number}{n}.txt": b"a dog" for n in range(3)}
        (directory / name).write_bytes(tar(members))
    return directory


def made(directory):
    """{name: bytes} of what was added to the shards, but for the times of their writing."""
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".tar"}
    return {name: content.partition(b'"tar_versions"')[0] for name, content in files.items()}


NAMES = [f"{n}.tar" for n in range(5)]


def test_any_number_of_workers_makes_the_indexes_of_a_run(tmp_path, capsys):
    of_a_run = write(tmp_path / "run", NAMES)
    seen = []
    manifest_and_home(
        Indexing(LocalStore(str(of_a_run)), tmp_path), lambda *progress: seen.append(progress)
    )
    total = sum((of_a_run / name).stat().st_size for name in NAMES)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1:] == (total, total)
    for workers in ("1", "3"):
        directory = write(tmp_path / workers, NAMES)
        assert main(["index", str(directory), "--workers", workers, "--quiet"]) == 0
        assert "5 shards with 15 samples indexed" in capsys.readouterr().out
        assert made(directory) == made(of_a_run)
    assert main(["index", str(directory)]) == 0
    assert "were indexed already" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_shard_is_named(tmp_path, capsys, workers):
    directory = write(tmp_path / "a", NAMES)
    (directory / "3.tar").write_bytes(b"no tar file" * 100)
    assert main(["index", str(directory), "--workers", workers, "--quiet"]) == 2
    assert f"{directory}/3.tar: the header at byte 0 is damaged" in capsys.readouterr().err


def test_directories_of_splits_and_names_of_splits_are_indexed_apart(tmp_path, capsys):
    write(tmp_path / "a" / "train", NAMES)
    write(tmp_path / "a" / "val", NAMES[:2])
    flat = write(tmp_path / "flat", ["x-train-0.tar", "x-val-0.tar", "x-train-1.tar"])
    for root in (tmp_path / "a", flat):
        assert main(["index", str(root), "--workers", "1", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = [line.split(": ")[1].split(" indexed")[0] for line in lines]
    assert counts == [f"{n} shards with {3 * n} samples" for n in (5, 2, 2, 1)]

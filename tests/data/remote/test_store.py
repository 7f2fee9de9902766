import fcntl
import hashlib
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.data.faulty_server import serve

from virtex.data.remote.directory import Retries
from virtex.data.remote.failures import is_permanent, refusal
from virtex.data.remote.store import RemoteStatistics, RemoteStore, open_store
from virtex.data.shards.store import LocalStore
from virtex.errors import RunError, UserError

MIB = 1 << 20
QUICK = Retries(attempts=3, first_pause=0.01, longest_pause=0.02)
FAULTS = [500, 503, 429, "reset", "truncate", "short"]  # that go away


def content(seed, size=3000):
    return hashlib.shake_128(str(seed).encode()).digest(size)


def sha256(data):
    return len(data), hashlib.sha256(data).hexdigest()


def remote(root, cache, cache_bytes=100 * MIB, retries=QUICK):
    return RemoteStore(root, cache_dir=cache, cache_bytes=cache_bytes, retries=retries)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """No proxy, and no credentials of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server():
    with serve() as server:
        server.files |= {"/d/a": content("a"), "/d/b": content("b"), "/d/empty": b""}
        yield server


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(moto, monkeypatch):
    """A server of faults before an S3 server with the bucket "bucket"."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url="http://{}:{}".format(*moto))
    client.create_bucket(Bucket="bucket")
    for name in ("a", "b"):
        client.put_object(Bucket="bucket", Key=f"d/{name}", Body=content(name))
    client.put_object(Bucket="bucket", Key="d/below/c", Body=b"c")
    client.close()
    with serve(upstream=moto) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def entries(cache, suffix=".file"):
    return [path for path in cache.iterdir() if path.suffix == suffix]


def test_reads_are_of_one_download(server, tmp_path):
    store = remote(f"{server.url}/d/", tmp_path)
    assert store.root == f"{server.url}/d"
    assert store.size("a") == 3000
    assert store.read("a", 10, 20) == content("a")[10:30]
    assert store.read("a", 2990, 50) == content("a")[2990:]
    assert store.read("a", 4000) == b""
    assert store.read("a") == content("a")
    assert store.read("empty") == b""
    assert remote(store.root, tmp_path).read("a") == content("a")
    assert server.gets == ["/d/a"]
    assert store.statistics == RemoteStatistics(files=2, bytes=3000)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_large_files_come_in_parts_where_the_server_can(server, tmp_path, has_ranges):
    server.files["/d/large"], server.has_ranges = content("large", 17 * MIB), has_ranges
    assert remote(f"{server.url}/d", tmp_path).read("large") == server.files["/d/large"]
    assert len(server.gets) == (3 if has_ranges else 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_away_is_tried_again_and_counted(server, tmp_path, fault):
    server.faults += [fault, fault]
    store = remote(f"{server.url}/d", tmp_path)
    assert store.read("a") == content("a")
    assert store.statistics == RemoteStatistics(files=1, bytes=3000, retries=2)


def test_a_stalled_read_is_given_up_and_tried_again(server, tmp_path):
    server.faults += ["stall"]
    store = remote(f"{server.url}/d", tmp_path, retries=Retries(attempt_seconds=1))
    assert store.read("a") == content("a")
    assert store.statistics.retries >= 1


def test_what_does_not_go_away_is_an_error_with_the_address(server, tmp_path):
    server.faults += [500] * 3
    store = remote(f"{server.url}/d", tmp_path)
    with pytest.raises(RunError, match=r"/d/a: gave up after 3 attempts in .*500"):
        store.read("a")
    assert entries(tmp_path, ".partial") == []
    assert store.read("a") == content("a")


def test_no_attempt_starts_after_the_total_time(server, tmp_path):
    server.faults += [500] * 3
    with pytest.raises(RunError, match="gave up after 1 attempts"):
        remote(f"{server.url}/d", tmp_path, retries=Retries(total_seconds=0)).read("a")


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "access was refused.*netrc"), (401, "access was refused"), (410, "failed permanently")],
)
def test_what_cannot_heal_fails_at_once(server, tmp_path, status, reason):
    store = remote(f"{server.url}/d", tmp_path)
    store.register_checksums({"a": sha256(content("a"))})
    server.faults += [status]
    with pytest.raises(UserError, match=f"/d/a: .*{reason}"):
        store.read("a")
    assert store.statistics.retries == 0


def test_a_missing_file_is_an_error_at_once(server, tmp_path):
    store = remote(f"{server.url}/d", tmp_path)
    for ask in (store.read, store.size):
        with pytest.raises(UserError, match="/d/c: the file does not exist"):
            ask("c")
    assert store.statistics.retries == 0


def test_a_server_that_fails_is_not_taken_for_a_missing_file(server, tmp_path):
    server.down = True
    with pytest.raises(RunError, match=r"gave up after 3 attempts.*503"):
        remote(f"{server.url}/d", tmp_path).size("a")


def test_wrong_content_is_fetched_again(server, tmp_path):
    server.faults += ["wrong", "wrong"]
    store = remote(f"{server.url}/d", tmp_path)
    store.register_checksums({"a": sha256(content("a"))})
    assert store.read("a") == content("a")
    assert store.statistics == RemoteStatistics(files=1, bytes=9000, mismatches=2)


def test_content_that_stays_wrong_is_an_error(server, tmp_path):
    store = remote(f"{server.url}/d", tmp_path)
    store.register_checksums({"a": (3000, "0" * 64)})
    with pytest.raises(RunError, match=r"/d/a: in 3 downloads .* 0{64} that the manifest gives"):
        store.read("a")
    assert list(tmp_path.iterdir()) == [tmp_path / "lock"]


def test_a_changed_manifest_fetches_anew(server, tmp_path):
    store = remote(f"{server.url}/d", tmp_path)
    store.register_checksums({"a": sha256(content("a"))})
    store.read("a")
    server.files["/d/a"] = content("other")
    assert remote(store.root, tmp_path).read("a") == content("other")  # asks for the version
    later = remote(store.root, tmp_path)
    later.register_checksums({"a": sha256(content("other"))})
    assert later.read("a") == content("other")
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("is_expected", [True, False])
def test_what_was_fetched_is_read_without_a_network(server, tmp_path, is_expected):
    remote(f"{server.url}/d", tmp_path).read("a")
    store = remote(f"{server.url}/d", tmp_path)
    if is_expected:
        store.register_checksums({"a": sha256(content("a"))})
        store.read("a")
        store = pickle.loads(pickle.dumps(store))
    server.down = True
    assert store.read("a") == content("a")
    assert store.size("a") == 3000
    assert store.statistics.unverified == (0 if is_expected else 1)
    with pytest.raises(RunError, match="gave up"):
        store.read("b")


def truncate(path):
    os.truncate(path, 1500)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"x")


def flip(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def flip_unseen(path):
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**10
    flip(path)
    os.utime(path, ns=times)


@pytest.mark.parametrize("alter", [truncate, lengthen, flip, flip_unseen])
def test_an_altered_entry_is_fetched_again(server, tmp_path, alter):
    store = remote(f"{server.url}/d", tmp_path)
    store.register_checksums({"a": sha256(content("a"))})
    store.read("a")
    alter(*entries(tmp_path))
    if alter is not flip_unseen:  # the descriptor is open
        assert store.read("a") == content("a")
        alter(*entries(tmp_path))
    assert remote(store.root, tmp_path).read("a", 100, 1) == content("a")[100:101]


def test_a_touched_entry_is_not_fetched_again(server, tmp_path):
    store = remote(f"{server.url}/d", tmp_path)
    store.read("a")
    os.utime(*entries(tmp_path))
    assert store.read("a") == content("a")
    assert server.gets == ["/d/a"]


def test_an_entry_in_use_outlives_its_eviction(server, tmp_path):
    store = remote(f"{server.url}/d", tmp_path, cache_bytes=4000)
    store.read("a")
    store.read("b")
    assert len(entries(tmp_path)) == 1
    assert store.read("a") == content("a")
    assert server.gets == ["/d/a", "/d/b"]


def test_the_least_recently_used_entry_goes_first(server, tmp_path):
    server.files["/d/c"] = content("c")
    for name in "abac":
        remote(f"{server.url}/d", tmp_path, cache_bytes=7000).read(name)
    server.gets.clear()
    for name in "ac":
        remote(f"{server.url}/d", tmp_path, cache_bytes=7000).read(name)
    assert server.gets == []


def test_other_files_in_the_directory_are_left_alone(server, tmp_path):
    (tmp_path / "mine").write_bytes(b"x" * 5000)
    remote(f"{server.url}/d", tmp_path, cache_bytes=4000).read("a")
    assert (tmp_path / "mine").exists()


def test_a_file_larger_than_the_cache_is_an_error(server, tmp_path):
    with pytest.raises(UserError, match=r"/d/a has 3000 bytes, more than the whole cache .*2000"):
        remote(f"{server.url}/d", tmp_path, cache_bytes=2000).read("a")


def test_a_cache_that_cannot_be_written_is_an_error(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot keep .*/d/a in the cache .*Not a directory"):
        remote(f"{server.url}/d", tmp_path / "file").read("a")


READERS = """
import hashlib, os, pathlib, random, sys
from virtex.data.remote.store import RemoteStore
root, cache, limit = sys.argv[1:]
store = RemoteStore(root, cache_dir=pathlib.Path(cache), cache_bytes=int(limit))
content = lambda name: hashlib.shake_128(name.encode()).digest(20000)
assert store.read("0") == content("0")  # the parent's connections are open when it forks
children = []
for seed in range(4):
    if not (child := os.fork()):
        names = [str(number) for number in range(40)]
        random.Random(seed).shuffle(names)
        os._exit(0 if all(store.read(name) == content(name) for name in names) else 3)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
assert store.read("1") == content("1")
print(store.statistics.files)
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def held_bytes(cache):
    """What the entries and the partial ones take, while nobody adds or drops any."""
    with (cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in cache.iterdir())


def test_forked_readers_share_a_cache_that_keeps_its_bound(server, tmp_path):
    cache, limit = tmp_path / "cache", 250_000  # of 800,000 bytes
    cache.mkdir()
    server.files |= {f"/d/{number}": content(number, 20_000) for number in range(40)}
    process = start(READERS, f"{server.url}/d", cache, limit)
    most = 0
    while process.poll() is None:
        most = max(most, held_bytes(cache))
        time.sleep(0.01)  # the readers want the lock too
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert 100_000 < most <= limit
    assert int(output) >= 40


def test_readers_wait_for_one_download(server, tmp_path):
    server.files |= {f"/d/{number}": content(number, 20_000) for number in range(40)}
    process = start(READERS, f"{server.url}/d", tmp_path, 10 * MIB)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output == "40\n"
    assert sorted(server.gets) == sorted(server.files.keys() - {"/d/a", "/d/b", "/d/empty"})


READER = """
import pathlib, sys
from virtex.data.remote.store import RemoteStore
RemoteStore(sys.argv[1], cache_dir=pathlib.Path(sys.argv[2]), cache_bytes=7000).read("a")
"""


def test_a_killed_download_leaves_nothing_in_the_way(server, tmp_path):
    server.faults += ["stall"]
    process = start(READER, f"{server.url}/d", tmp_path)
    assert server.stalled.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(entries(tmp_path, ".partial")) == 1
    store = remote(f"{server.url}/d", tmp_path, cache_bytes=4000)
    assert store.read("b") == content("b")  # the room that the dead one reserved is free
    assert entries(tmp_path, ".partial") == []
    assert store.read("a") == content("a")


@pytest.mark.usefixtures("s3")
def test_s3_is_listed_read_and_written(tmp_path):
    store = remote("s3://bucket/d", tmp_path)
    assert sorted(store.list_files()) == ["a", "b"]
    assert store.size("a") == 3000
    assert store.read("a", 5, 5) == content("a")[5:10]
    assert store.write("new", b"one") is True
    assert store.read("new") == b"one"
    other = remote("s3://bucket/d", tmp_path)
    assert store.write("new", b"two") is True
    assert (store.read("new"), other.read("new")) == (b"two", b"two")
    with pytest.raises(UserError, match="s3://bucket/d/c: the file does not exist"):
        store.read("c")
    with pytest.raises(UserError, match="s3://nothing/d: the file does not exist"):
        remote("s3://nothing/d", tmp_path).list_files()


@pytest.mark.parametrize("fault", [503, "reset", "truncate", "short"])
def test_s3_is_tried_again_and_counted(s3, tmp_path, fault):
    s3.faults += [fault, fault]
    store = remote("s3://bucket/d", tmp_path)
    assert store.read("a") == content("a")
    assert store.statistics == RemoteStatistics(files=1, bytes=3000, retries=2)


def test_s3_without_access_is_an_error_at_once_that_shows_no_secret(s3, tmp_path, monkeypatch):
    store = remote("s3://bucket/d", tmp_path)
    store.register_checksums({"a": sha256(content("a"))})
    s3.faults += [403]
    with pytest.raises(UserError, match=r"s3://bucket/d/a: access was refused.*~/\.aws") as refused:
        store.read("a")
    assert "of-the-test" not in str(refused.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match=r"access was refused .*redentials"):
        remote("s3://bucket/d", tmp_path).read("b")


def test_memory_is_a_store_too(tmp_path):
    store = remote("memory://store", tmp_path)
    assert store.write("b", b"bee")
    assert store.write("a", b"")
    assert sorted(store.list_files()) == ["a", "b"]
    assert (store.read("b"), store.read("a"), store.size("b")) == (b"bee", b"", 3)


def test_http_is_neither_listed_nor_written(server, tmp_path):
    store = remote(f"{server.url}/d", tmp_path)
    assert store.write("a", b"") is False
    assert store.list_files() is None


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "a?b", "a#b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="not the name of a file directly inside https://x/d"):
        remote("https://x/d", tmp_path).read(name)


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("/a/path", "'/a/path' is not a remote address; expected s3://"),
        ("https://user:hidden@host/d", "an address of host contains a user or a password"),
        ("https://host/d?signature=hidden", "https://host/d: the address of a directory must not"),
    ],
)
def test_addresses_that_cannot_be_are_refused(tmp_path, root, reason):
    with pytest.raises(UserError, match=reason) as refused:
        remote(root, tmp_path)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("gs://bucket/d", "gs://bucket/d: .*install gcsfs.*virtex-pretraining.remote"),
        ("nothing://d", "nothing://d: .*nothing.*expected s3://"),
    ],
)
def test_a_protocol_without_its_package_is_an_error_that_says_what_to_install(
    tmp_path, root, reason
):
    with pytest.raises(UserError, match=reason):
        remote(root, tmp_path).read("a")


def test_pauses_grow_spread_and_repeat():
    retries = Retries(first_pause=1, longest_pause=5)
    pauses = [retries.pause(attempt, "s3://a") for attempt in (1, 2, 3, 4)]
    for pause, longest in zip(pauses, (1, 2, 4, 5), strict=True):
        assert longest / 2 <= pause <= longest
    assert pauses == [retries.pause(attempt, "s3://a") for attempt in (1, 2, 3, 4)]
    assert retries.pause(1, "s3://b") != pauses[0]


def test_a_path_is_read_where_it_lies_and_an_address_through_the_cache(tmp_path):
    local = open_store(str(tmp_path), cache_dir=tmp_path, cache_gb=1)
    assert isinstance(local, LocalStore)
    assert local.root == str(tmp_path)
    assert isinstance(open_store("s3://bucket/a", cache_dir=tmp_path, cache_gb=1), RemoteStore)


@contextmanager
def answering(answer):
    """A port of this machine whose service answers each connection with bytes, or never (None)."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        open_connections = []

        def accept():
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    open_connections.append(connection)
                    if answer is not None:
                        connection.recv(1 << 16)
                        connection.sendall(answer)
                        connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in open_connections:
                connection.close()


@pytest.mark.parametrize("is_s3", [False, True])
@pytest.mark.parametrize(
    ("scheme", "reason"),
    [("http", "the reply is not HTTP"), ("https", "TLS failed: the server does not speak it")],
)
@pytest.mark.usefixtures("s3")
def test_another_service_is_named_as_such_at_once(tmp_path, monkeypatch, scheme, reason, is_s3):
    with answering(b"SSH-2.0-OpenSSH_9.9\r\n") as port:
        root = f"{scheme}://127.0.0.1:{port}/d"
        if is_s3:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"{scheme}://127.0.0.1:{port}")
            root = "s3://bucket/d"
        store = remote(root, tmp_path)
        with pytest.raises(UserError, match=reason):
            store.read("a")
    assert store.statistics.retries == 0


def test_an_untrusted_certificate_is_named_as_such():
    error = ssl.SSLCertVerificationError(1, "self-signed certificate")
    error.verify_message = "self-signed certificate"
    outer = OSError("cannot connect")
    outer.__cause__ = error
    assert is_permanent(outer)
    assert "certificate of the server is not trusted (self-signed" in refusal(outer)


def test_a_server_that_accepts_and_never_answers_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("virtex.data.remote.directory._SILENT_SECONDS", 0.2)
    lines = []
    with answering(None) as port:
        store = RemoteStore(
            f"http://127.0.0.1:{port}/d",
            cache_dir=tmp_path,
            cache_bytes=MIB,
            retries=Retries(attempts=1, attempt_seconds=0.5),
            notify=lines.append,
        )
        with pytest.raises(RunError, match="gave up after 1 attempts"):
            store.read("a")
    (line,) = lines
    assert line.startswith(f"http://127.0.0.1:{port}/d/a: no answer for 0.2 s; check that")


def test_a_server_that_has_answered_may_be_slow(server, tmp_path, monkeypatch):
    lines = []
    options = {"cache_dir": tmp_path, "cache_bytes": MIB, "notify": lines.append}
    store = RemoteStore(f"{server.url}/d", **options)
    store.read("a")
    monkeypatch.setattr("virtex.data.remote.directory._SILENT_SECONDS", 0.05)
    server.faults += ["slow"]
    store.read("b")
    assert lines == []


@pytest.mark.parametrize("bucket", ["b", "my bucket", "a*b", "ü-bucket"])
def test_an_impossible_bucket_is_refused_without_a_request(tmp_path, bucket):
    with pytest.raises(UserError, match="is not the name of a bucket"):
        remote(f"s3://{bucket}/d", tmp_path)

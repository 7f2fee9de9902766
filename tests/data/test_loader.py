import gc
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from virtex.data.dataset import ExampleDataset
from virtex.data.images import BadImage
from virtex.data.loader import training_batches, validation_batches
from virtex.data.sources.coco import CocoCaptions
from virtex.data.transforms import CenterCrop, ColorJitter, HorizontalFlip, RandomResizedCrop
from virtex.errors import RunError, UserError

pytestmark = [
    # Python 3.12 and later say that torch's threads and forked workers may not go together.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
    # torch says so where a machine has fewer cores than the test has workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]

SHARED_MEMORY = Path("/dev/shm")
TRAIN = (RandomResizedCrop(16), HorizontalFlip(), ColorJitter())


def encode(record, augmented, rng):
    return {
        "image_id": record.image_id,
        "image": torch.from_numpy(augmented.image),
        "draw": int(rng.integers(1 << 40)),
    }


def collate(examples):
    return {
        "image_id": torch.tensor([example["image_id"] for example in examples]),
        "image": torch.stack([example["image"] for example in examples]).permute(0, 3, 1, 2),
        "draw": torch.tensor([example["draw"] for example in examples]),
    }


@pytest.fixture
def records(write_coco):
    return CocoCaptions(write_coco({i: ["a"] for i in range(1, 12)}), "train")


@pytest.fixture
def dataset(records):
    return ExampleDataset(records, TRAIN, encode, seed=0)


def training(dataset, count=7, workers=0, **options):
    options = {"batch_size": 4, "seed": 3} | options
    batches = training_batches(dataset, collate, workers=workers, **options)
    return [batch for batch, _ in islice(batches, count)]


def validation(dataset, workers=0, **options):
    loaded = validation_batches(dataset, collate, workers=workers, **options)
    return [batch for batch, _ in loaded]


def equal(ones, others):
    return len(ones) == len(others) and all(
        one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(ones, others, strict=True)
    )


def ids(batches):
    return [batch["image_id"].tolist() for batch in batches]


@pytest.mark.parametrize("workers", [1, 4])
def test_batches_do_not_depend_on_the_number_of_workers(dataset, workers):
    assert equal(training(dataset, workers=workers), training(dataset))


def test_images_are_channels_last_views(dataset):
    for workers in (0, 1):
        (batch,) = training(dataset, 1, workers)
        assert (batch["image"].shape, batch["image"].dtype) == ((4, 3, 16, 16), torch.uint8)
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_later_equals_going_on(dataset, workers):
    assert equal(training(dataset, 4, workers, first_iteration=5), training(dataset, 9)[5:])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", [0, 2, 3, 6])
def test_the_examples_of_the_first_iterations_can_be_others(dataset, first, workers):
    """Of the same keys and draws, but the size of the images."""
    stages = [
        (last, replace(dataset, transforms=(RandomResizedCrop(size), *TRAIN[1:])))
        for last, size in ((3, 8), (5, 12))
    ]
    batches = training(dataset, 8 - first, workers, first_iteration=first, earlier=stages)
    sizes = [batch["image"].shape[-1] for batch in batches]
    assert sizes == [8, 8, 8, 12, 12, 16, 16, 16][first:]
    plain = training(dataset, 8)[first:]
    assert ids(batches) == ids(plain)
    for batch, other in zip(batches, plain, strict=True):
        assert torch.equal(batch["draw"], other["draw"])
        assert batch["image"].shape != (4, 3, 16, 16) or torch.equal(batch["image"], other["image"])


def test_an_epoch_is_a_permutation_and_each_differs(dataset):
    epochs = [
        [i for batch in ids(training(dataset, 2, first_iteration=2 * epoch)) for i in batch]
        for epoch in range(4)
    ]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_together_get_the_batches_of_one(dataset, world_size):
    parts = [training(dataset, rank=rank, world_size=world_size) for rank in range(world_size)]
    joined = [
        {name: torch.cat([part[name] for part in batch]) for name in batch[0]}
        for batch in zip(*parts, strict=True)
    ]
    assert equal(joined, training(dataset))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_validation_sees_every_example_once(dataset, world_size, workers):
    seen = [
        image_id
        for rank in range(world_size)
        for batch in ids(
            validation(dataset, workers, batch_size=6, rank=rank, world_size=world_size)
        )
        for image_id in batch
    ]
    assert sorted(seen) == list(range(1, 12))


def test_validation_is_the_same_each_time_and_none_of_the_training(dataset):
    once = validation(dataset, batch_size=4)
    assert equal(once, validation(dataset, 2, batch_size=4))
    draws = {draw for batch in once for draw in batch["draw"].tolist()}
    trained = {draw for batch in training(dataset, 20) for draw in batch["draw"].tolist()}
    assert not draws & trained


@pytest.mark.parametrize("workers", [0, 2])
def test_validating_in_between_changes_no_training_batch(dataset, workers):
    batches = training_batches(dataset, collate, batch_size=4, workers=workers, seed=3)
    interrupted = []
    for batch, _ in islice(batches, 7):
        interrupted.append(batch)
        validation(dataset, batch_size=4)
    assert equal(interrupted, training(dataset))


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_states_are_left_alone(dataset, workers):
    def states():
        return torch.random.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002

    before = states()
    training(dataset, 3, workers)
    validation(dataset, workers, batch_size=4)
    assert states() == before


def test_a_batch_larger_than_the_data_is_an_error_at_once(dataset):
    with pytest.raises(UserError, match=r"OPTIM\.BATCH_SIZE 12 is larger than the data \(11 "):
        training_batches(dataset, collate, batch_size=12, workers=0, seed=0)


@pytest.mark.parametrize("batches", [training_batches, validation_batches])
def test_a_batch_that_processes_cannot_share_is_an_error_at_once(dataset, batches):
    options = {"seed": 0} if batches is training_batches else {}
    with pytest.raises(UserError, match="a batch of 4 cannot be divided over 3 processes"):
        batches(dataset, collate, batch_size=4, workers=0, world_size=3, **options)


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_ends_the_run_with_its_path_and_no_traceback(dataset, records, workers):
    cut(records[5].image)
    with pytest.raises(BadImage) as caught:
        training(dataset, 2 * 11, workers)
    assert caught.value.path == records[5].image
    assert str(caught.value).startswith(f"cannot read the image {records[5].image}: ")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_come_with_their_batch_and_batches_stay_full(records, workers):
    for position in (5, 6):
        cut(records[position].image)
    dataset = ExampleDataset(records, TRAIN, encode, 0, "skip")
    batches = training_batches(dataset, collate, batch_size=4, workers=workers, seed=3)
    loaded = list(islice(batches, 12))
    assert {len(batch["image"]) for batch, _ in loaded} == {4}
    skipped = {error.path for _, bad in loaded for error in bad}
    assert skipped == {records[5].image, records[6].image}
    assert not {6, 7} & {i for batch in ids(batch for batch, _ in loaded) for i in batch}


def test_skipped_images_leave_validation_smaller(records):
    for position in (0, 5, 8, 9, 10):
        cut(records[position].image)
    dataset = ExampleDataset(records, TRAIN, encode, 0, "skip")
    loaded = list(validation_batches(dataset, collate, batch_size=2, workers=2))
    assert ids(batch for batch, _ in loaded if batch) == [[2], [3, 4], [5], [7, 8]]
    assert [len(bad) for _, bad in loaded] == [1, 0, 1, 0, 2, 1]
    assert loaded[-1].batch == {}


def test_a_data_set_of_bad_images_only_is_an_error_not_a_hang(records):
    for record in records:
        cut(record.image)
    dataset = ExampleDataset(records, TRAIN, encode, 0, "skip")
    with pytest.raises(UserError, match="11 images in a row"):
        training(dataset, workers=2)


def killed(record, augmented, rng):
    if record.image_id == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(record, augmented, rng)


def test_a_killed_worker_ends_the_run(records):
    dataset = ExampleDataset(records, TRAIN, killed, 0)
    with pytest.raises(RunError, match=r"is killed by signal|exited unexpectedly"):
        training(dataset, 11, workers=2)
    # The other worker dies too, and torch raises that wherever the main process then is.
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        with suppress(RuntimeError):
            gc.collect()  # the workers end with the iterator, which the error's frames held
            time.sleep(0.05)


def killed_at_once(*_):
    time.sleep(1)  # until it is waited for
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_whose_death_gave_no_signal_ends_the_run(records, dataset):
    """As of one that died before torch had noted its number; it would be waited for in vain."""
    patient = {"timeout_seconds": 60}
    training(dataset, 1, workers=1)  # torch sets its handler once
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    begin = time.monotonic()
    try:
        with pytest.raises(RunError, match="exited unexpectedly"):
            training(ExampleDataset(records, TRAIN, killed_at_once, 0), workers=1, **patient)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert time.monotonic() - begin < 30


def stuck(record, augmented, rng):
    time.sleep(2)
    return encode(record, augmented, rng)


def test_a_worker_that_hangs_ends_the_run(records):
    dataset = ExampleDataset(records, TRAIN, stuck, 0)
    with pytest.raises(RunError, match="timed out after 1"):
        training(dataset, workers=1, batch_size=1, timeout_seconds=1)


def faulty(*_):
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_keep_their_type_and_words(records, workers):
    with pytest.raises(RuntimeError, match="a fault of ours") as caught:
        training(ExampleDataset(records, TRAIN, faulty, 0), workers=workers)
    assert not isinstance(caught.value, RunError)


def test_a_user_error_of_a_transform_arrives_as_it_was(records):
    dataset = ExampleDataset(records, [CenterCrop(99)], encode, 0)
    with pytest.raises(UserError, match=r"\Acenter_crop of 99"):
        training(dataset, workers=1)


def children():
    return [child.pid for child in multiprocessing.active_children()]


def test_workers_end_with_the_batches_also_where_an_error_holds_on_to_them(dataset):
    batches = training_batches(dataset, collate, batch_size=4, workers=2, seed=3)
    next(batches)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        assert len(children()) == 2
        batches.close()
        assert children() == []


def test_a_stopped_worker_ends_with_the_batches(dataset):
    """It neither takes the word that ends the others nor SIGTERM."""
    batches = training_batches(dataset, collate, batch_size=4, workers=2, seed=3)
    next(batches)
    for pid in children():
        os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    batches.close()
    assert children() == []
    assert time.monotonic() - begin < 4


def test_a_worker_that_is_stopped_on_the_way_ends_the_run_and_then_itself(dataset):
    batches = training_batches(dataset, collate, batch_size=4, workers=1, seed=3, timeout_seconds=1)
    next(batches)
    (pid,) = children()
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(RunError, match="timed out after 1") as caught:
        list(islice(batches, 10))
    assert children() == [], caught
    assert time.monotonic() - begin < 5


def refuses(_):
    raise UserError("the first window does not come")


class Unreachable:
    wait_for = prefetch = staticmethod(refuses)


def test_workers_that_never_get_work_end_too(dataset):
    with pytest.raises(UserError, match="does not come") as caught:
        training(dataset, workers=2, prefetcher=Unreachable())
    deadline = time.monotonic() + 2
    while children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children() == [], caught


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("by_main_thread", [True, False])
def test_workers_end_with_their_process_however_that_ends(dataset, number, by_main_thread):
    reading, writing = os.pipe()
    main = os.fork()
    if main == 0:
        as_whole_process(lambda: load_and_wait(dataset, writing, by_main_thread))
    os.close(writing)
    with os.fdopen(reading) as told:
        workers = [int(word) for word in told.readline().split()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGSTOP)
        os.kill(main, number)
        os.waitpid(main, 0)
        begin = time.monotonic()
        assert select.select([told], [], [], 20)[0], "a worker does not end"
        assert told.read() == ""  # when all that hold the other end have ended
    assert time.monotonic() - begin < 2
    assert not [path for pid in workers for path in SHARED_MEMORY.glob(f"torch_{pid}_*")]


def as_whole_process(action):
    """End a forked process with the status of `action`: nothing of it may go on as a second pytest.

    An error is printed, and ends it with status 8.
    """
    status = 8
    try:
        status = action()
    except BaseException:  # noqa: BLE001, it is printed
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def load_and_wait(dataset, writing, by_main_thread):
    """Tell the workers' process ids and do nothing more, for ever."""
    signal.signal(signal.SIGQUIT, lambda *_: os._exit(1))  # without a dump of memory
    batches = training_batches(dataset, collate, batch_size=4, workers=2, seed=3)

    def load():
        """A batch of each worker: one that has just been forked does not watch its parent yet."""
        assert len(list(islice(batches, 2))) == 2

    if by_main_thread:
        load()
    else:
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()  # the kernel takes its end for that of the process
        time.sleep(0.5)
    os.write(writing, f"{' '.join(map(str, children()))}\n".encode())
    while True:
        time.sleep(0.05)  # not pause: another thread may have got the signal


def test_an_interrupt_while_workers_start_comes_when_they_are_there_and_ends_them(dataset):
    interrupting = threading.Event()

    def interrupt():
        while not interrupting.wait(0.001):
            if children():
                os.killpg(0, signal.SIGINT)  # as a terminal does
                return

    def load():
        threading.Thread(target=interrupt).start()
        try:
            next(training_batches(dataset, collate, batch_size=4, workers=2, seed=3))
        except KeyboardInterrupt:
            return len(children())
        return 9

    reading, writing = os.pipe()
    main = os.fork()
    if main == 0:
        os.setpgid(0, 0)
        os.dup2(writing, 2)
        as_whole_process(load)
    os.close(writing)
    with os.fdopen(reading) as errors:
        assert errors.read() == ""
    assert os.waitstatus_to_exitcode(os.waitpid(main, 0)[1]) == 0


ABANDONED = """
import numpy as np
import torch
from virtex.data.loader import training_batches

class Examples:
    shard_sizes = np.array([400])
    def __len__(self):
        return 400
    def examples(self, keys):
        return [torch.zeros(9) for _ in keys], []

def collate(rows):
    return {"image": torch.stack(rows)}

batches = training_batches(Examples(), collate, batch_size=8, workers=2, seed=0)
next(batches)
raise RuntimeError("of a script that never closes its batches")
"""


@pytest.mark.cold
def test_a_script_that_ends_without_closing_its_batches_ends():
    """multiprocessing would wait for workers, which ignore its SIGTERM."""
    command = [sys.executable, "-c", ABANDONED]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.endswith("RuntimeError: of a script that never closes its batches\n")

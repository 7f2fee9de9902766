"""Records packed into shards."""

from virtex.data.shards.pack import PackJob, pack
from virtex.data.shards.reader import open_shards
from virtex.data.shards.store import LocalStore
from virtex.data.shards.writer import Packing


def packed(records, directory, samples_per_shard=3, packing=Packing(), **options):  # noqa: B008
    """The directory of shards that hold the records."""
    job = PackJob(records, directory, packing, samples_per_shard, **options)
    pack(job, lambda _: None)
    return directory


def opened(directory, labels="captions", on_bad_image="error", window=1000, store=None):
    store = store or LocalStore(str(directory))
    cache_dir = directory.parent / "cache"
    return open_shards(store, labels, on_bad_image, cache_dir=cache_dir, window=window)

"""Loaders are accepted only where they provably yield samples 0..n-1 in order, and looking at them changes nothing."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

import ccx
from ccx import networks
from ccx.errors import CCXError, DTypeError, InputError, ShapeError

pytestmark = [
    pytest.mark.needs("torch"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than processors
]

N = 10


@pytest.fixture
def data():
    import torch

    return torch.utils.data


@pytest.fixture
def images(data):
    import torch

    return data.TensorDataset(torch.arange(N * 12, dtype=torch.float32).reshape(N, 3, 2, 2))


class Wrapper:
    """A loader that hides another, as those of training frameworks do."""

    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        return iter(self._loader)


class WrappedBatches:
    """A batch sampler around another, as `accelerate` makes them."""

    def __init__(self, batch_sampler):
        self.batch_sampler = batch_sampler

    def __iter__(self):
        return iter(self.batch_sampler)

    def __len__(self):
        return len(self.batch_sampler)


def read(loader):
    import torch

    return torch.cat(list(networks.image_batches(loader)))


def _in_order(data, images):
    """Yield loaders that are proven to be in order, by name."""
    sequential = data.SequentialSampler(images)
    batches = data.BatchSampler(sequential, 4, drop_last=False)
    last = data.DataLoader(images, batch_size=5, drop_last=True)  # nothing is left to drop
    yield "plain", data.DataLoader(images, batch_size=4)
    yield "drop_last without a rest", last
    yield "workers", data.DataLoader(images, batch_size=4, num_workers=2)
    yield "list", data.DataLoader(images, batch_size=4, sampler=list(range(N)))
    yield "range", data.DataLoader(images, batch_size=4, sampler=range(N))
    yield "tensor", data.DataLoader(images, batch_size=4, sampler=np.arange(N))
    yield "batches", data.DataLoader(images, batch_sampler=batches)
    yield "list of batches", data.DataLoader(images, batch_sampler=[[0, 1, 2], [3], list(range(4, N))])
    yield "wrapped batches", data.DataLoader(images, batch_sampler=WrappedBatches(batches))
    yield "batches as indices", data.DataLoader(images, sampler=batches, batch_size=None)
    yield (
        "one replica",
        data.DataLoader(
            images,
            batch_size=4,
            sampler=data.DistributedSampler(images, num_replicas=1, rank=0, shuffle=False),
        ),
    )
    yield "subset", data.DataLoader(data.Subset(images, range(N)), batch_size=3)
    yield "wrapper", Wrapper(data.DataLoader(images, batch_size=4))
    yield "generator", (batch for batch in data.DataLoader(images, batch_size=4))
    yield "map", map(tuple, data.DataLoader(images, batch_size=4))
    yield "chain", itertools.chain(data.DataLoader(images, batch_size=4))
    yield "iterator", iter(data.DataLoader(images, batch_size=4))


def _out_of_order(data, images):
    """Yield loaders to be refused, by name, with what their message says."""

    class Custom(data.Sampler):
        def __init__(self, indices):
            self.indices = indices

        def __iter__(self):
            return iter(self.indices)

    class Lucky(Custom):  # shuffles, and comes out in order
        def __iter__(self):
            torch_order = data.RandomSampler(images)
            next(iter(torch_order))
            return iter(range(N))

    class SecondTime(Custom):
        def __iter__(self):
            found = list(self.indices)
            self.indices = found[::-1]
            return iter(found)

    class Endless(Custom):
        def __iter__(self):
            return itertools.cycle(range(N))

    class Empty(Custom):
        def __iter__(self):
            return itertools.repeat([])

    class Failing(Custom):
        def __iter__(self):
            raise RuntimeError("no process group")

    class Generator(Custom):
        def __init__(self):
            self.random = random.Random(0)

        def __iter__(self):
            return iter(self.random.sample(range(N), N))

    class Stream(data.IterableDataset):
        def __init__(self, shuffle=False):
            self.shuffle = shuffle

        def __iter__(self):
            return iter(images)

    class Unsized(data.Dataset):
        def __getitem__(self, index):
            return images[index]

    def loader(**options):
        return data.DataLoader(images, **{"batch_size": 4, **options})

    def batched(sampler):
        return data.DataLoader(images, batch_sampler=sampler)

    shuffling = loader(shuffle=True)
    begun = iter(loader())
    next(begun)
    shuffled_batches = data.BatchSampler(data.RandomSampler(images), 4, drop_last=False)
    yield "shuffle", shuffling, "a RandomSampler, which shuffles; build the DataLoader with shuffle=False"
    yield "one sample", data.DataLoader(data.Subset(images, [0]), shuffle=True), "a RandomSampler, which"
    yield "a subset at random", loader(sampler=data.SubsetRandomSampler(range(N))), "a SubsetRandomSampler, which"
    yield "weights", loader(sampler=data.WeightedRandomSampler([1.0] * N, N)), "a WeightedRandomSampler, which"
    yield "batches", batched(shuffled_batches), "a RandomSampler, which"
    yield "wrapped batches", batched(WrappedBatches(WrappedBatches(shuffled_batches))), "a RandomSampler, which"
    yield "distributed", loader(sampler=data.DistributedSampler(images, 1, 0)), "a DistributedSampler, which"
    yield (
        "rank 0 of 2",
        loader(sampler=data.DistributedSampler(images, 2, 0, shuffle=False)),
        r"2 where sample 1 of 10 should be \(Distr",
    )
    yield "dropped", loader(drop_last=True), "10 samples, of which the last 2 are dropped; use drop_last=False"
    yield "a part", loader(sampler=range(6)), r"6 of 10 samples \(range\); .* torch.utils.data.Subset"
    yield "reversed", loader(sampler=list(range(N))[::-1]), "9 where sample 0 of 10 should be"
    yield "repeated", loader(sampler=[0, 0, *range(1, N)]), "0 where sample 1 of 10 should be"
    yield "custom", loader(sampler=Custom([1, 0, *range(2, N)])), r"1 where sample 0 of 10 should be \(Custom\)"
    yield "lucky", loader(sampler=Lucky(None)), r"a sampler that draws random numbers \(Lucky\)"
    yield "only at first", loader(sampler=SecondTime(range(N))), "9 where sample 0"
    yield "its own generator", loader(sampler=Generator()), r"a sampler with a random generator \(Generator\)"
    yield "endless", loader(sampler=Endless(None)), "0 where sample 10 of 10 should be"
    yield "empty batches", batched(Empty(None)), "an empty batch"
    yield "failing", loader(sampler=Failing(None)), "a sampler that fails .*no process group"
    yield "once", loader(sampler=iter(range(N))), "a sampler that can be used only once"
    yield "not to be copied", loader(sampler=Custom(i for i in range(N))), "a sampler that cannot be copied"
    yield "list of batches", batched([[0, 1], [3, 2], list(range(4, N))]), "3 where sample 2"
    yield "as workers finish", loader(num_workers=2, in_order=False), "batches as workers finish them; .*in_order=True"
    yield "a stream", data.DataLoader(Stream(), batch_size=4, num_workers=2), "an iterable data set read by 2 workers"
    yield (
        "a chain",
        data.DataLoader(data.ChainDataset([Stream(), Stream()]), batch_size=4, num_workers=3),
        "an iterable data set read by 3",
    )
    yield "a stream that drops", data.DataLoader(Stream(), batch_size=4, drop_last=True), "may drop the last samples"
    yield "a stream that shuffles", data.DataLoader(Stream(shuffle=True), batch_size=4), "a Stream, which shuffles"
    yield (
        "a chain that shuffles",
        data.DataLoader(data.ChainDataset([Stream(shuffle=True)]), batch_size=4),
        "a Stream, which",
    )
    yield "no length", data.DataLoader(Unsized(), batch_size=4, sampler=range(N)), "Unsized without a length"
    yield "wrapper", Wrapper(Wrapper(shuffling)), "a RandomSampler, which"
    yield "generator", (batch for batch in shuffling), "a RandomSampler, which"
    yield "map", map(tuple, shuffling), "a RandomSampler, which"
    yield "zip", zip(shuffling, itertools.count(), strict=False), "a RandomSampler, which"
    yield "islice", itertools.islice(shuffling, 2), "a RandomSampler, which"
    yield "iterator", iter(shuffling), "a RandomSampler, which"
    yield "a begun iterator", begun, "an iterator that has yielded 1 batches already; pass the DataLoader itself"
    yield "set", {1, 2}, "a set, which has no order"


@pytest.mark.states("Loaders", "a DataLoader whose sampler lists 0..n-1", "accepted", "batch samplers, one replica too")
@pytest.mark.states(
    "Loaders",
    "any other iterable of batches",
    "accepted",
    "its first sample is sample 0; DataLoaders in it are checked",
)
def test_loaders_in_order(data, images):
    for name, loader in _in_order(data, images):
        assert read(loader).equal(images.tensors[0]), name


@pytest.mark.states("Loaders", "a DataLoader that shuffles", "refused", "build it with shuffle=False")
@pytest.mark.states("Loaders", "`drop_last=True` with a rest", "refused", "build it with drop_last=False")
@pytest.mark.states("Loaders", "a sampler of a part", "refused", "take a Subset, and concepts.subset(samples=...)")
@pytest.mark.states("Loaders", "an iterable data set with several workers", "refused", "num_workers=0 or 1")
@pytest.mark.states("Loaders", "`in_order=False` with workers", "refused", "build it with in_order=True")
@pytest.mark.states("Loaders", "a set of batches", "refused", "pass a list")
def test_loaders_out_of_order(data, images):
    for name, loader, message in _out_of_order(data, images):
        with pytest.raises(InputError, match=rf"loader: expected samples in a fixed order, each once, got .*{message}"):
            pytest.fail(f"{name}: {next(networks.image_batches(loader))}")


def test_the_same_check_serves_probing_and_label_maps(data, images):
    import torch
    from torch import nn

    loader = data.DataLoader(images, batch_sampler=data.BatchSampler(data.RandomSampler(images), 4, drop_last=False))
    with pytest.raises(InputError, match="which shuffles"):
        ccx.probe(nn.Sequential(nn.ReLU()), loader, "0")
    labels = data.TensorDataset(torch.zeros(N, 2, 2, dtype=torch.int64))
    for options in ({"shuffle": True}, {"drop_last": True}, {"sampler": list(range(N))[::-1]}):
        with pytest.raises(InputError, match="labels: expected samples in a fixed order"):
            ccx.Concepts.from_label_maps(
                (batch for (batch,) in data.DataLoader(labels, batch_size=4, **options)), ["a"]
            )
    batches = (batch for (batch,) in data.DataLoader(labels, batch_size=4))
    assert ccx.Concepts.from_label_maps(batches, ["a"]).n_samples == N


def test_looking_at_a_sampler_disturbs_nothing(data, images):
    import torch

    class Counting(data.Sampler):
        def __init__(self):
            self.epoch, self.left, self.source = 0, list(range(N)), images

        def __iter__(self):
            self.epoch += 1
            while self.left:  # used up by the pass that counts
                yield self.left.pop(0)

    class Once(Counting):
        def __iter__(self):
            self.epoch += 1
            return iter(self.left)

    sampler = Once()
    networks.check_order(data.DataLoader(images, sampler=sampler))
    assert (sampler.epoch, sampler.left) == (0, list(range(N)))
    assert sampler.source is images
    used_up = Counting()
    with pytest.raises(InputError, match="0 of 10 samples"):  # the second time
        networks.check_order(data.DataLoader(images, sampler=used_up))
    assert (used_up.epoch, used_up.left) == (0, list(range(N)))

    class Random(data.Sampler):
        def __iter__(self):
            random.random()
            np.random.random()  # noqa: NPY002 - what such samplers do
            torch.rand(1)
            return iter(range(N))

    def drawn():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    def seed():
        random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002

    seed()
    want = drawn()
    seed()
    with pytest.raises(InputError, match="draws random numbers"):
        networks.check_order(data.DataLoader(images, sampler=Random()))
    assert drawn() == want


def test_workers_that_persist_are_no_begun_iterator(data, images):
    loader = data.DataLoader(images, batch_size=4, num_workers=1, persistent_workers=True)
    for _ in range(2):
        assert read(loader).equal(images.tensors[0])


def test_samples_are_counted(data, images):
    def thinned(samples):
        return data.default_collate(samples[:-1])

    class Short(data.DataLoader):
        def __iter__(self):
            return itertools.islice(super().__iter__(), 2)

    assert networks.check_order(data.DataLoader(images, batch_size=4)) == N
    assert networks.check_order(data.DataLoader(images, batch_sampler=[list(range(N))])) == N
    for loader in (data.DataLoader(images, batch_size=4, collate_fn=thinned), Short(images, batch_size=4)):
        with pytest.raises(ShapeError, match=r"loader: expected 10 samples, got [78]; let len\(\)"):
            read(loader)
    with pytest.raises(DTypeError, match="an iterable of batches"):
        networks.check_order(3)
    assert issubclass(ShapeError, CCXError)

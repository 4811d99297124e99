"""Reads a dataset of the stage shard with NumPy alone, in the order in which the stage train reads it.

    split = Split("dataset/manifest.json", "train")
    tokens, targets = split.step(0, 32, seed=42)  # the 32 sequences of the first optimizer step

docs/formats/dataset.md has the files. Every sequence has T tokens, and as many targets.
"""
import bisect, functools, json, pathlib, struct

import numpy as np

IGNORED = -1  # a target that is not predicted


def read_shard(path, width, id_type):
    """Yields the record batches of a shard: tokens, n × width, and how many targets of each of the n sequences count.

    A shard is an uncompressed Arrow IPC file. Its footer and the headers of its record batches are flatbuffers: a table
    begins with the distance to its vtable, which holds the places of its fields.
    """
    file = np.memmap(path, np.uint8, "r")
    number = lambda kind, b, at: struct.unpack_from("<" + kind, b, at)[0]
    follow = lambda b, at: at + number("I", b, at)
    field = lambda b, table, i: table + number("H", b, table - number("i", b, table) + 4 + 2 * i)
    footer = file[-10 - number("i", file, len(file) - 10) : -10]
    blocks = follow(footer, field(footer, follow(footer, 0), 3))
    for i in range(number("i", footer, blocks)):
        offset, header = struct.unpack_from("<qi", footer, blocks + 4 + 24 * i)
        message, body = file[offset + 8 : offset + header], file[offset + header :]
        batch = follow(message, field(message, follow(message, 0), 2))
        n = number("q", message, field(message, batch, 0))
        start = lambda k: number("q", message, follow(message, field(message, batch, 2)) + 4 + 16 * k)  # of buffer k
        tokens = np.frombuffer(body, id_type, n * width, start(2)).reshape(n, width)
        yield tokens, np.frombuffer(body, np.int32, n, start(4))


class Split:
    """A split, train or validation, of the dataset with this manifest. The shards lie beside the manifest."""

    def __init__(self, manifest_path, name):
        path = pathlib.Path(manifest_path)
        manifest = json.loads(path.read_text())
        if manifest.get("format") != "bitnet1.dataset.v1":
            raise SystemExit(f"{path} is no bitnet1.dataset.v1: name the manifest.json that shard wrote")
        self.length, self.vocab = manifest["sequence_length"], manifest["tokenizer"]["vocab"]
        self.counted = manifest.get("counted", [0, self.length])
        id_type = np.uint16 if self.vocab <= 65536 else np.uint32
        shards = [path.parent / shard["name"] for shard in manifest["splits"][name]["shards"]]
        self.batches = [batch for shard in shards for batch in read_shard(shard, self.length + 1, id_type)]
        self.first = np.cumsum([0] + [len(valid) for _, valid in self.batches]).tolist()

    def __len__(self):
        return self.first[-1]

    def sequences(self, indices):
        """The tokens and the targets of these sequences, each len(indices) × T."""
        rows, valid = np.empty((len(indices), self.length + 1), np.int64), np.empty((len(indices), 1), np.int64)
        for row, i in enumerate(indices):
            b = bisect.bisect_right(self.first, i) - 1
            rows[row], valid[row] = (column[i - self.first[b]] for column in self.batches[b])
        place, (begin, end) = np.arange(self.length), self.counted
        counts = (place >= begin) & (place < np.minimum(end, valid))
        return rows[:, :-1], np.where(counts, rows[:, 1:], IGNORED)

    def step(self, step, n, seed):
        """The n sequences of an optimizer step, counted from 0. Each epoch has an order of its own."""
        places = [divmod(i, len(self)) for i in range(step * n, (step + 1) * n)]
        return self.sequences([order(len(self), seed, epoch)[place] for epoch, place in places])


@functools.lru_cache(2)
def order(n, seed, epoch):
    """The order in which an epoch reads n sequences: a Feistel network of ten rounds (shared/data/dataset/order.go)."""
    keys = split_mix(split_mix(np.array([seed], np.uint64)) ^ np.uint64(epoch))
    keys = split_mix(keys + np.arange(1, 11, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    bits, one = (n - 1).bit_length(), np.uint64(1)

    def encrypt(x):
        low, high = np.uint64(bits // 2), np.uint64((bits + 1) // 2)
        left, right = x >> low, x & ((one << low) - one)
        for key in keys:
            left, right = right, (left ^ split_mix(right ^ key)) & ((one << high) - one)
            low, high = high, low
        return left << low | right

    x = encrypt(np.arange(n, dtype=np.uint64))
    while (beyond := x >= n).any():  # the network permutes the numbers below a power of two
        x[beyond] = encrypt(x[beyond])
    return x.astype(np.int64)


def split_mix(x):
    """The finalizer of the generator SplitMix64, of an array of uint64."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)

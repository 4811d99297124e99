"""Reads packed models, whose bytes docs/formats/bit2.md describes.

    python bit2.py packed/step-000600.bit2        # what the file says of the model, its tensors and its self-test

Needs torch, and nothing of this project. The digest is not verified, because Python has no blake3.
"""
import json, struct, sys

import torch


def bits(data, rows, planes, columns):
    """Bits of rows × planes × columns, each plane of a row in whole words of 64 bits, as 0 and 1."""
    words = -(-columns // 64)
    stored = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(rows, planes, 8 * words, 1)
    return (stored >> torch.arange(8, dtype=torch.uint8) & 1).view(rows, planes, 64 * words)[:, :, :columns]


def tensor(entry, data):
    """The elements of one tensor; data are the bytes from its offset on."""
    shape, kind = entry["shape"], entry["kind"]
    if kind == "f16":
        return torch.frombuffer(bytearray(data[:2 * shape[0]]), dtype=torch.float16).float()
    if kind == "f32":
        return torch.frombuffer(bytearray(data[:4 * shape[0]]), dtype=torch.float32)
    planes = entry.get("bits", 1)  # kind sign has one plane, and a unit of 1
    size = shape[0] * planes * -(-shape[1] // 64) * 8
    signs = 2 * bits(data[:size], shape[0], planes, shape[1]).int() - 1
    integers = (signs << torch.arange(planes).view(-1, 1)).sum(1)
    return integers * torch.tensor(entry.get("unit", 1.0))


def read(path):
    """The configuration, the metadata, the tensors by name (weights as the model computes with them), the self-test."""
    with open(path, "rb") as f:
        file = f.read()
    magic, version, length = struct.unpack("<4sIQ", file[:16])
    if magic != b"BIT2" or version not in (1, 2, 3):
        raise ValueError(f"{path}: {magic} of version {version}, want BIT2 of version 1, 2 or 3")
    header, data = json.loads(file[16:16 + length]), memoryview(file)[16 + length:-32]
    tensors = {entry["name"]: tensor(entry, data[entry["offset"]:]) for entry in header["tensors"]}
    selftest = None
    for section in header.get("sections", []):
        if section["name"] == "selftest":
            selftest = json.loads(bytes(data[section["offset"]:][:section["size"]]))
    return header["config"], header["metadata"], tensors, selftest


if __name__ == "__main__":
    config, metadata, tensors, selftest = read(sys.argv[1])
    print(json.dumps(config), json.dumps(metadata), *(f"{n} {tuple(t.shape)}" for n, t in tensors.items()), sep="\n")
    print("self-test:", json.dumps(selftest))

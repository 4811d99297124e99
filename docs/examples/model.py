"""The models v75, v76 and v77 in PyTorch, in one file: loads a checkpoint or a packed model and computes its logits.

    python model.py step-000600.safetensors 12 7 200        # the most probable token after each of these, with its bits

Needs torch and safetensors, and nothing of this project but bit2.py, for packed models. docs/model.md has the same in
formulas. Shapes: B sequences of T tokens, D the width of the residual stream, H heads of D/H. Weights of blocks are ±1:
the sign of the file's latents. `pack huggingface` puts this file into the folders that it writes.
"""
import json, math, sys

import torch
import torch.nn.functional as F
from safetensors import safe_open

try:
    from bit2 import read as read_packed
except ImportError:  # without the file beside this one, checkpoints alone are loaded
    read_packed = None


def sign(x):
    """±1, with sign(0) = +1."""
    return torch.where(x >= 0, 1.0, -1.0)


def rms_norm(x, gain, eps):
    return gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def quantize(x, bits):
    """How linears read the residual stream, and queries and values: signs (1), 2^bits levels on [-2.5, 2.5] (2 to 8), or
    x (16). Returns integers, or halves of odd ones, and the unit that makes levels of them."""
    if bits == 1:
        return sign(x), 1.0
    if bits == 16:
        return x, 1.0
    half = 2 ** (bits - 1)
    return ((x * half / 2.5 - 0.5).round() + 0.5).clamp(0.5 - half, half - 0.5), 2.5 / half


def squared_relu(u, bits):
    """How linears read the hidden layer: its signs (1), or 2^bits levels of relu(u)^2 on [0, 4] (2 to 8). Returns
    integers and their unit."""
    if bits == 1:
        return sign(u), 1.0
    top = 2 ** bits - 1
    return (u.clamp_min(0).square().clamp(max=4) * (top / 4)).round(), 4 / top


# Distances between 2^bits levels with the least squared error on a unit normal.
NORMAL_STEP = {2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}


def normal_levels(w, bits):
    """The codebook: signs (1), or 2^bits levels of its rows divided by their root mean square (2 to 8)."""
    if bits == 1:
        return sign(w)
    w = w.double()
    z = w / w.square().mean(1, keepdim=True).clamp_min(1e-24).sqrt()
    half, step = 2 ** (bits - 1), NORMAL_STEP[bits]
    return ((z / step - 0.5).round() + 0.5).clamp(0.5 - half, half - 0.5).float() * step


def rotate(x, block):
    """Blocks of so many channels of x times the orthonormal Hadamard matrix; 0: x."""
    if block == 0:
        return x
    y, n = x.double().reshape(-1, block), 1
    while n < block:
        a, b = y.reshape(-1, block // (2 * n), 2, n).unbind(2)
        y, n = torch.stack((a + b, a - b), 2).reshape(-1, block), 2 * n
    return (y * block ** -0.5).reshape(x.shape)


# The options of v77, and their values in a v75 or v76, whose checkpoints do not name them.
V77 = {"hidden_bits": 1, "query_bits": 1, "value_bits": 1, "read_bits": 1, "codebook_bits": 1, "hadamard": 0}


def load(path):
    """The model of a checkpoint, or of a packed model (.bit2)."""
    if path.endswith(".bit2"):
        config, metadata, tensors, _ = read_packed(path)
        return Model(config, metadata, tensors, packed=True)
    with safe_open(path, "pt") as f:
        metadata = f.metadata()
        tensors = {name: f.get_tensor(name).float() for name in f.keys()}
    if metadata["format"] != "bitnet1.checkpoint.v1":
        raise ValueError(f"{path} is a {metadata['format']}, not a bitnet1.checkpoint.v1")
    return Model(json.loads(metadata["config"]), metadata, tensors)


class Model:
    """A model at work. tensors have the names of a model file, whose metadata has gamma, mix and documents. The weights
    of a packed model are those that it computes with; others are latents."""

    def __init__(self, config, metadata, tensors, packed=False):
        self.config, self.tensors, self.packed = V77 | config, tensors, packed
        self.gamma, self.mix = float(metadata["gamma"]), float(metadata["mix"])
        self.end_of_text = int(metadata["end_of_text"]) if metadata.get("documents") == "separate" else None

    def weight(self, name):
        """The effective weight: quantized, or a blend with the latents while bonsai anneals."""
        w = self.tensors[name + ".weight"]
        if self.packed:
            return w
        quantized = normal_levels(w, self.config["codebook_bits"] if name == "codebook" else 1)
        if self.mix == 1:
            return quantized
        return (1 - self.mix) * w / w.abs().mean(1, keepdim=True).clamp_min(1e-12) + self.mix * quantized

    def linear(self, name, x, unit):
        """The linear of x, integers, times their unit."""
        w = self.weight(name)
        if self.mix < 1 or self.config["stream_bits"] == 16:  # no integers, whose sums are exact in float32
            x, w = x.double(), w.double()  # exact enough for all devices to agree on signs
        return F.linear(x, w).float() * unit * self.tensors[name + ".alpha"] - self.tensors[name + ".theta"]

    def read(self, x, norm):
        """How linears read the residual stream x: integers, and their unit."""
        c = self.config
        levels, unit = quantize(rotate(rms_norm(x, self.tensors[norm], c["eps"]), c["hadamard"]), c["stream_bits"])
        return levels.float(), unit

    def starts(self, tokens):
        """The first position that each token may read, B × T: its document's where documents are separate."""
        position = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        if self.end_of_text is None:
            return torch.zeros_like(position)
        return torch.where(tokens == self.end_of_text, position, 0).cummax(1).values

    def attend(self, layer, x, unit, starts):
        c, block = self.config, f"blocks.{layer}.attn."
        B, T, D = x.shape
        position = torch.arange(T, device=x.device)
        heads = lambda y: y.view(B, T, c["heads"], -1).transpose(1, 2)
        keys = x
        if layer in c["kshift_layers"]:  # keys read an earlier token: alone, or as well
            offset = c["kshift_offset"]
            earlier = F.pad(x, (0, 0, offset, 0))[:, :T] * (position - offset >= starts).unsqueeze(-1)
            keys = x + earlier if c["kshift_self"] else earlier
        q, q_unit = quantize(self.linear(block + "q", x, unit), c["query_bits"])
        q, k = heads(q), heads(sign(self.linear(block + "k", keys, unit)))
        v, v_unit = quantize(self.linear(block + "v", x, unit), c["value_bits"])
        v = heads(v * v_unit)

        scores = (q @ k.mT).double() * q_unit / math.sqrt(q.shape[-1])
        distance = position.unsqueeze(1) - position
        if c["alibi"]:
            slopes = [2.0 ** (-8 * (h + 1) / c["heads"]) for h in range(c["heads"])]
            scores = scores - torch.tensor(slopes, dtype=torch.double, device=x.device).view(-1, 1, 1) * distance
        seen = (distance >= 0) & (position >= starts.unsqueeze(-1))
        scores = scores.masked_fill(~seen.unsqueeze(1), -math.inf)

        if c["attention"] == "softmax":
            read = (scores.softmax(-1) @ v.double()).float()
        else:  # the best keys, best first; of equal scores the most recent key
            best = 1 if c["attention"] == "pointer" else min(c["rwsp_k"], T)
            order = T - 1 - scores.flip(-1).argsort(dim=-1, descending=True, stable=True)[..., :best]
            alive = scores.gather(-1, order).isfinite()
            weights = self.gamma ** torch.arange(best, dtype=torch.double, device=x.device) * alive
            weights = weights / weights.sum(-1, keepdim=True)
            chosen = v.gather(2, order.reshape(B, -1, T * best, 1).expand(-1, -1, -1, v.shape[-1]))
            read = (weights.unsqueeze(-1) * chosen.view(*order.shape, -1)).sum(-2).float()
        return self.linear(block + "o", *quantize(read.transpose(1, 2).reshape(B, T, D), c["read_bits"]))

    @torch.no_grad()
    def logits(self, tokens, starts=None, last=0):
        """tokens: B × T. Returns B × T × vocabulary: row t predicts token t+1; with last, the last rows of each
        sequence alone. starts, B × T, is the first position that each token may read, where padding changes it."""
        c, starts = self.config, self.starts(tokens) if starts is None else starts
        x = self.weight("codebook")[tokens]
        for layer in range(c["layers"]):
            block = f"blocks.{layer}."
            x = x + self.attend(layer, *self.read(x, block + "norm_attn"), starts)
            hidden = self.linear(block + "up", *self.read(x, block + "norm_ffn"))
            x = x + self.linear(block + "down", *squared_relu(hidden, c["hidden_bits"]))
        return self.linear("codebook", *self.read(x[:, -last:], "norm_out"))


if __name__ == "__main__":
    model, tokens = load(sys.argv[1]), torch.tensor([[int(a) for a in sys.argv[2:]]])
    bits = -model.logits(tokens)[0].log_softmax(-1) / math.log(2)
    for token, row in zip(tokens[0], bits):
        print(f"{token.item():6d} -> {row.argmin().item():6d}  {row.min().item():.3f} bits")

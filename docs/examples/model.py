"""The models v75, v76 and v77 in PyTorch, in one file: loads a checkpoint or a packed model and computes its logits.

    python model.py step-000600.safetensors 12 7 200        # the most probable token after each of these, with its bits

Needs torch and safetensors, and nothing of this project but bit2.py, for packed models. docs/model.md has the same in
formulas. Shapes: B sequences of T tokens, D the width of the residual stream, H heads of D/H. Weights of blocks are ±1:
the sign of the file's latents.
"""
import json, math, sys

import torch
import torch.nn.functional as F
from safetensors import safe_open


def sign(x):
    """±1, with sign(0) = +1."""
    return torch.where(x >= 0, 1.0, -1.0)


def rms_norm(x, gain, eps):
    return gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def quantize(x, bits):
    """How linears read the residual stream, and values: signs (1), 2^bits levels on [-2.5, 2.5] (2 to 8), or x (16)."""
    if bits == 1:
        return sign(x)
    if bits == 16:
        return x
    half = 2 ** (bits - 1)
    return ((x * half / 2.5 - 0.5).round() + 0.5).clamp(0.5 - half, half - 0.5) * (2.5 / half)


def squared_relu(u, bits):
    """How linears read the hidden layer: its signs (1), or 2^bits levels of relu(u)^2 on [0, 4] (2 to 8)."""
    if bits == 1:
        return sign(u)
    top = 2 ** bits - 1
    return (u.clamp_min(0).square().clamp(max=4) * (top / 4)).round() * (4 / top)


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
V77 = {"hidden_bits": 1, "value_bits": 1, "read_bits": 1, "codebook_bits": 1, "hadamard": 0}


class Model:
    """A model file at work. config, gamma, mix and documents are its metadata's; tensors have the names of the file."""

    def __init__(self, path):
        self.packed = path.endswith(".bit2")
        if self.packed:
            from bit2 import read
            config, metadata, self.tensors, _ = read(path)
        else:
            with safe_open(path, "pt") as f:
                metadata = f.metadata()
                self.tensors = {name: f.get_tensor(name).float() for name in f.keys()}
            if metadata["format"] != "bitnet1.checkpoint.v1":
                raise ValueError(f"{path} is a {metadata['format']}, not a bitnet1.checkpoint.v1")
            config = json.loads(metadata["config"])
        self.config = V77 | config
        self.gamma, self.mix = float(metadata["gamma"]), float(metadata["mix"])
        self.end_of_text = int(metadata["end_of_text"]) if metadata.get("documents") == "separate" else None

    def weight(self, name):
        """The effective weight: quantized, or a blend with the latents while bonsai anneals."""
        w = self.tensors[name + ".weight"]
        if self.packed:  # as the model computes with it
            return w
        quantized = normal_levels(w, self.config["codebook_bits"] if name == "codebook" else 1)
        if self.mix == 1:
            return quantized
        return (1 - self.mix) * w / w.abs().mean(1, keepdim=True).clamp_min(1e-12) + self.mix * quantized

    def linear(self, name, x):
        product = F.linear(x.double(), self.weight(name).double()).float()  # exact, so that all devices agree on signs
        return product * self.tensors[name + ".alpha"] - self.tensors[name + ".theta"]

    def read(self, x, norm):
        """How linears read the residual stream x."""
        c = self.config
        x = rms_norm(x, self.tensors[norm], c["eps"])
        return quantize(rotate(x, c["hadamard"]), c["stream_bits"]).float()

    def starts(self, tokens):
        """The first position that each token may read, B × T: its document's where documents are separate."""
        position = torch.arange(tokens.shape[1]).expand(tokens.shape)
        if self.end_of_text is None:
            return torch.zeros_like(position)
        return torch.where(tokens == self.end_of_text, position, 0).cummax(1).values

    def attend(self, layer, x, starts):
        c, block = self.config, f"blocks.{layer}.attn."
        B, T, D = x.shape
        heads = lambda y: y.view(B, T, c["heads"], -1).transpose(1, 2)
        keys = x
        if layer in c["kshift_layers"]:  # keys read an earlier token: alone, or as well
            offset = c["kshift_offset"]
            earlier = F.pad(x, (0, 0, offset, 0))[:, :T] * (torch.arange(T) - offset >= starts).unsqueeze(-1)
            keys = x + earlier if c["kshift_self"] else earlier
        q, k = heads(sign(self.linear(block + "q", x))), heads(sign(self.linear(block + "k", keys)))
        v = heads(quantize(self.linear(block + "v", x), c["value_bits"]))

        scores = (q @ k.mT).double() / math.sqrt(q.shape[-1])
        distance = torch.arange(T).unsqueeze(1) - torch.arange(T)
        if c["alibi"]:
            slopes = torch.tensor([2.0 ** (-8 * (h + 1) / c["heads"]) for h in range(c["heads"])], dtype=torch.double)
            scores = scores - slopes.view(-1, 1, 1) * distance
        seen = (distance >= 0) & (torch.arange(T) >= starts.unsqueeze(-1))
        scores = scores.masked_fill(~seen.unsqueeze(1), -math.inf)

        if c["attention"] == "softmax":
            read = (scores.softmax(-1) @ v.double()).float()
        else:  # the best keys, best first; of equal scores the most recent key
            best = 1 if c["attention"] == "pointer" else min(c["rwsp_k"], T)
            order = T - 1 - scores.flip(-1).argsort(dim=-1, descending=True, stable=True)[..., :best]
            alive = scores.gather(-1, order).isfinite()
            weights = self.gamma ** torch.arange(best, dtype=torch.double) * alive
            weights = weights / weights.sum(-1, keepdim=True)
            chosen = v.gather(2, order.reshape(B, -1, T * best, 1).expand(-1, -1, -1, v.shape[-1]))
            read = (weights.unsqueeze(-1) * chosen.view(*order.shape, -1)).sum(-2).float()
        return self.linear(block + "o", quantize(read.transpose(1, 2).reshape(B, T, D), c["read_bits"]))

    @torch.no_grad()
    def logits(self, tokens):
        """tokens: B × T. Returns B × T × vocabulary: row t predicts token t+1."""
        c, starts = self.config, self.starts(tokens)
        x = self.weight("codebook")[tokens]
        for layer in range(c["layers"]):
            block = f"blocks.{layer}."
            x = x + self.attend(layer, self.read(x, block + "norm_attn"), starts)
            hidden = self.linear(block + "up", self.read(x, block + "norm_ffn"))
            x = x + self.linear(block + "down", squared_relu(hidden, c["hidden_bits"]))
        return self.linear("codebook", self.read(x, "norm_out"))


if __name__ == "__main__":
    model, tokens = Model(sys.argv[1]), torch.tensor([[int(a) for a in sys.argv[2:]]])
    bits = -model.logits(tokens)[0].log_softmax(-1) / math.log(2)
    for token, row in zip(tokens[0], bits):
        print(f"{token.item():6d} -> {row.argmin().item():6d}  {row.min().item():.3f} bits")

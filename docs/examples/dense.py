"""A dense bf16 transformer in PyTorch, in one file: the model that models of ±1 weights are compared with.

    python dense.py dataset/manifest.json --preset 75M --steps 800 --lr 1.5e-3             # equal tokens
    python dense.py dataset/manifest.json --preset 300M --seconds 150 --optimizer muon     # equal seconds

Needs torch and numpy, and of this project dataset.py beside it. It reads the sequences that the stage train reads, in
the same order. It prints a line of JSON for every logged step, for every validation and, last, for the whole run; --out
adds the last line to a results file. docs/recipes/dense.md has the comparison. Losses are in bits per token. Shapes: B
sequences of T tokens, D the width of the residual stream, H heads of D/H.

The model: RMSNorm, RoPE, normalized queries and keys, softmax attention, ReLU², an embedding that is the head as well.
On a GPU, products and the residual stream are bfloat16, parameters and the optimizer's state float32.
"""
import argparse, copy, json, math, os, time

import torch
import torch.nn as nn
import torch.nn.functional as F
from dataset import IGNORED, Split

PRESETS = {"300M": (1024, 21, 16, 4096), "75M": (512, 16, 8, 2048), "nano": (128, 4, 4, 512)}  # d, layers, heads, ff


# ---- the model ----


def rms_norm(x, gain=1.0):
    x = x.float()
    return gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def linear(inputs, outputs, scale=1.0):
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=scale / math.sqrt(inputs))
    return layer


class Block(nn.Module):
    def __init__(self, d, layers, heads, ff):
        super().__init__()
        self.heads, residual = heads, 1 / math.sqrt(2 * layers)
        self.norm_attn, self.norm_ffn = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        self.q, self.k, self.v, self.o = linear(d, d), linear(d, d), linear(d, d), linear(d, d, residual)
        self.up, self.down = linear(d, ff), linear(ff, d, residual)

    def forward(self, x, cos, sin):
        B, T, D = x.shape
        heads = lambda y: y.view(B, T, self.heads, -1).transpose(1, 2)

        def rotate(y):  # RoPE: pairs of channels are turned by angles that grow with the position
            a, b = y.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

        y = rms_norm(x, self.norm_attn)
        q, k = rotate(heads(rms_norm(self.q(y)))), rotate(heads(rms_norm(self.k(y))))
        v = heads(self.v(y))
        read = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        x = x + self.o(read.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.relu(self.up(rms_norm(x, self.norm_ffn))).square())


class Transformer(nn.Module):
    def __init__(self, vocab, seq, d, layers, heads, ff):
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(vocab, d))
        self.blocks = nn.ModuleList(Block(d, layers, heads, ff) for _ in range(layers))
        self.norm_out = nn.Parameter(torch.ones(d))
        half = d // heads // 2
        angles = torch.arange(seq).unsqueeze(1) * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens, targets):
        """tokens and targets: B × T. Returns the sum of the losses in nats."""
        x = rms_norm(F.embedding(tokens, self.embedding))
        x = x.bfloat16() if x.is_cuda else x
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(rms_norm(x, self.norm_out), self.embedding).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


# ---- the optimizers ----


def orthogonal(x, steps):
    """Makes n matrices, n × rows × columns, nearly orthogonal: Newton–Schulz in bfloat16 (Jordan et al. 2024)."""
    y = x.bfloat16()
    y = y.mT if x.shape[1] > x.shape[2] else y
    y = y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = y @ y.mT
        y = 3.4445 * y + (-4.7750 * a + 2.0315 * a @ a) @ y
    return (y.mT if x.shape[1] > x.shape[2] else y).to(x.dtype)


class Muon(torch.optim.Optimizer):
    """Updates matrices by their momentum, made nearly orthogonal. Those of one shape are computed together."""

    def __init__(self, matrices, lr, momentum, steps):
        shapes = {}
        for p in matrices:
            shapes.setdefault(p.shape, []).append(p)
        super().__init__([{"params": same} for same in shapes.values()], dict(lr=lr, momentum=momentum, steps=steps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            matrices, momentum = group["params"], group["momentum"]
            gradient = torch.stack([p.grad for p in matrices])
            mean = self.state[matrices[0]].setdefault("mean", torch.zeros_like(gradient))
            mean.lerp_(gradient, 1 - momentum)
            update = orthogonal(gradient.lerp(mean, momentum), group["steps"])
            rows, columns = matrices[0].shape
            torch._foreach_add_(matrices, list(update), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def optimizers(model, a):
    """AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""
    takes_muon = lambda name, p: a.optimizer == "muon" and p.ndim == 2 and name.startswith("blocks.")
    matrices = [p for name, p in model.named_parameters() if takes_muon(name, p)]
    others = [p for name, p in model.named_parameters() if not takes_muon(name, p)]
    both = [torch.optim.AdamW(others, a.lr, betas=(0.9, 0.95), weight_decay=0, fused=others[0].is_cuda)]
    if matrices:
        both.append(Muon(matrices, a.muon_lr, a.muon_momentum, a.muon_steps))
    for group in (g for o in both for g in o.param_groups):
        group["peak"] = group["lr"]
    return both


def share_of_peak(done, a, length):
    """The learning rate as a share of its peak, when that share of the training is done: both 0 to 1. Of trainings of
    several lengths, in seconds, the warm-up is that of the shortest."""
    warmup = a.warmup * (a.seconds[0] / length if length else 1)
    if done < warmup:
        return done / warmup
    if a.schedule == "trapezoid":
        return a.final_share + (1 - a.final_share) * min(1, (1 - done) / a.cooldown)
    falling = (done - warmup) / (1 - warmup)
    return a.final_share + (1 - a.final_share) * (1 + math.cos(math.pi * falling)) / 2


# ---- training and measuring ----


class Trainer:
    def __init__(self, a):
        self.a, self.device = a, "cuda" if torch.cuda.is_available() else "cpu"
        self.train, self.validation = Split(a.manifest, "train"), Split(a.manifest, "validation")
        length = self.train.length
        self.seq, self.per_step = a.seq or length, a.batch_tokens // length
        if a.batch_tokens < length or a.batch_tokens % length or length % self.seq or a.micro_tokens < length:
            raise SystemExit(f"the dataset has sequences of {length} tokens: --batch-tokens must be a multiple of "
                             f"{length}, --seq a divisor, and --micro-tokens no less")
        if not len(self.train) or not len(self.validation):
            raise SystemExit("the dataset lacks a split: shard more documents, with a validation_share above 0")
        most = a.micro_tokens // length
        self.micro = max(m for m in range(1, most + 1) if self.per_step % m == 0)  # sequences computed at once
        torch.manual_seed(a.seed)
        torch.set_float32_matmul_precision("high")
        ids = self.train.vocab
        vocab = ids if ids <= 4096 else (ids + 127) // 128 * 128  # padded as the stage train pads it
        self.model = Transformer(vocab, self.seq, a.d, a.layers, a.heads, a.ff).to(self.device)
        self.compiled = torch.compile(self.model, dynamic=False) if self.device == "cuda" else self.model

    def batch(self, step):
        return [torch.from_numpy(x) for x in self.train.step(step, self.per_step, self.a.seed)]

    def losses(self, tokens, targets):
        """Yields the sum of the losses of every micro-batch, in nats."""
        for t, y in zip(tokens.split(self.micro), targets.split(self.micro)):
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                loss = self.compiled(*(x.to(self.device).reshape(-1, self.seq) for x in (t, y)))
            yield loss  # gradients take the types of the forward pass, and no autocast of their own

    def backward(self, tokens, targets):
        """Computes the gradients of a step and returns its mean loss in nats, a tensor."""
        count, total = (targets != IGNORED).sum().item(), 0.0
        for loss in self.losses(tokens, targets):
            (loss / count).backward()
            total += loss.detach() / count
        return total

    @torch.no_grad()
    def validate(self):
        """The mean loss of the validation split, or of its first sequences, in bits per token."""
        n, total, count = len(self.validation), 0.0, 0
        n = min(n, self.a.validation_sequences or n)
        for i in range(0, n, self.micro):
            here = range(i, min(i + self.micro, n))
            tokens, targets = self.validation.sequences([*here] + [i] * (self.micro - len(here)))
            targets[len(here) :] = IGNORED  # all batches have one shape, for which the model is compiled
            total += sum(loss.item() for loss in self.losses(torch.from_numpy(tokens), torch.from_numpy(targets)))
            count += (targets != IGNORED).sum().item()
        return total / count / math.log(2)

    @torch.no_grad()
    def rounded(self):
        """The loss and the size of the model whose weights are rounded to nearest: to bfloat16, or to integers with a
        float16 scale, which are 8 bits (a scale for each row) or 4 bits (a scale for every 64 weights of a row).
        """
        kept, measured = [p.clone() for p in self.model.parameters()], {}
        for bits in (16, 8, 4):
            size = 0
            for p, original in zip(self.model.parameters(), kept):
                if bits == 16 or p.ndim < 2:
                    p.copy_(original.bfloat16())
                    size += 2 * p.numel()
                    continue
                columns, top = p.shape[1], 2 ** (bits - 1) - 1
                groups = original.view(-1, 64 if bits == 4 and columns % 64 == 0 else columns)
                scale = (groups.abs().amax(1, keepdim=True) / top).clamp_min(1e-7).half().float()
                p.copy_(((groups / scale).round().clamp(-top, top) * scale).view_as(p))
                size += groups.numel() * bits / 8 + 2 * len(groups)
            measured |= {f"bits_per_token_{bits}_bit": self.validate(), f"megabytes_{bits}_bit": size / 1e6}
        for p, original in zip(self.model.parameters(), kept):
            p.copy_(original)
        return measured

    def run(self):
        """Trains, printing lines, and yields the line of every training. Neither compilation nor validation counts as
        time. Of trainings of several --seconds, a longer one continues from where a shorter one began its cool-down.
        """
        a = self.a
        self.optimizers, self.step, self.seconds, self.next = optimizers(self.model, a), 0, 0.0, self.batch(0)
        if self.device == "cuda":  # compiles both directions
            self.backward(*self.next)
            self.model.zero_grad()
            self.validate()
        for seconds in a.seconds or [0]:
            several = len(a.seconds) > 1
            if several:
                self.until(seconds, stop=(1 - a.cooldown) * seconds)
                kept = copy.deepcopy(self.state())
            self.until(seconds)
            yield self.line(seconds)
            if several:
                self.restore(kept)

    def state(self):
        return self.model.state_dict(), [o.state_dict() for o in self.optimizers], self.step, self.seconds

    def restore(self, state):
        model, both, self.step, self.seconds = state
        self.model.load_state_dict(model)
        for optimizer, kept in zip(self.optimizers, both):
            optimizer.load_state_dict(kept)
        self.next = self.batch(self.step)

    def until(self, length, stop=0.0):
        """Trains until the end of a training of --seconds length, 0: of --steps, or until that many seconds."""
        a, done = self.a, 0.0
        while (self.seconds < stop) if stop else done < 1:
            began = time.perf_counter()
            share = share_of_peak(self.seconds / length if length else (self.step + 1) / a.steps, a, length)
            for group in (g for o in self.optimizers for g in o.param_groups):
                group["lr"] = group["peak"] * share
            loss = self.backward(*self.next)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), a.clip or math.inf, foreach=True)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.step += 1
            self.next = self.batch(self.step)  # while the GPU computes
            bits = loss.item() / math.log(2)  # waits for the GPU
            self.seconds += time.perf_counter() - began
            done = self.seconds / length if length else self.step / a.steps
            if not math.isfinite(bits):
                raise SystemExit(f"step {self.step}: the loss is {bits}: lower --lr or --muon-lr, or raise --warmup")
            self.now = {"step": self.step, "tokens": self.step * a.batch_tokens, "seconds": round(self.seconds, 3),
                        "train_bpc": bits}
            if self.step % a.log_every == 0 or done >= 1:
                lr = self.optimizers[0].param_groups[0]["lr"]
                show({"event": "step", **self.now, "lr": lr, "grad_norm": norm.item()})
            if a.validate_every and self.step % a.validate_every == 0 or done >= 1:
                self.val_bpc = self.validate()
                show({"event": "validation", **self.now, "val_bpc": self.val_bpc})

    def line(self, length):
        """What a results file holds of a training (docs/formats/results.md)."""
        a = self.a
        left_out = ("manifest", "out", "name", "seed", "seconds") + (("steps",) if length else ())
        parameters = {key: value for key, value in vars(a).items() if key not in left_out}
        parameters |= {"seconds": length} if length else {}
        return {"model": a.name or f"dense, {a.optimizer}", "seed": a.seed,
                "hardware": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
                "parameters": parameters | {"seq": self.seq, "training_sequences": len(self.train)},
                "steps": self.step, "tokens": self.step * a.batch_tokens, "seconds": self.seconds,
                "results": {"bits_per_token": self.val_bpc, "train_bits": self.now["train_bpc"], **self.rounded()}}


def show(line):
    print(json.dumps(line), flush=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = lambda name, value, text, **more: p.add_argument(name, type=type(value), default=value, help=text, **more)
    p.add_argument("manifest", help="manifest.json of a dataset, with its shards beside it")
    p.add_argument("--out", help="results file (JSON lines) to which the run is added")
    add("--name", "", "of the model in the results file; empty: dense and the optimizer")
    add("--preset", "nano", "d, layers, heads and ff, as in the stage train", choices=PRESETS)
    add("--d", 0, "width of the residual stream; 0: the preset's")
    add("--layers", 0, "number of layers; 0: the preset's")
    add("--heads", 0, "attention heads of a layer; 0: the preset's")
    add("--ff", 0, "width of the feed-forward layer; 0: the preset's")
    add("--seq", 0, "tokens of a sequence, a divisor of the dataset's; 0: the dataset's")
    add("--seed", 42, "of the initial parameters and the data order")
    add("--steps", 600, "number of optimizer steps")
    p.add_argument("--seconds", type=float, nargs="+", default=[], metavar="S", help="train for so long instead; the "
                   "learning rate then falls with the time. Several, with the schedule trapezoid: a training of each")
    add("--batch-tokens", 32768, "tokens of a step")
    add("--micro-tokens", 32768, "most tokens computed at once")
    add("--optimizer", "adamw", "of the matrices of the blocks", choices=["adamw", "muon"])
    add("--lr", 1.5e-3, "AdamW: peak learning rate")
    add("--muon-lr", 0.02, "Muon: peak learning rate")
    add("--muon-momentum", 0.95, "Muon: decay of the momentum")
    add("--muon-steps", 5, "Muon: Newton–Schulz steps")
    add("--schedule", "cosine", "how the learning rate falls", choices=["cosine", "trapezoid"])
    add("--warmup", 0.06, "share of the training in which the learning rate rises")
    add("--cooldown", 0.2, "trapezoid: share of the training in which the learning rate falls")
    add("--final-share", 0.1, "last learning rate as a share of the peak")
    add("--clip", 1.0, "largest norm of the gradient; 0: no limit")
    add("--log-every", 10, "steps between lines")
    add("--validate-every", 0, "steps between validations; 0: at the end alone")
    add("--validation-sequences", 0, "validation sequences, from the first; 0: all")
    a = p.parse_args()
    for key, value in zip(("d", "layers", "heads", "ff"), PRESETS[a.preset]):
        setattr(a, key, getattr(a, key) or value)
    if a.d % (2 * a.heads):
        p.error(f"--d is {a.d}: it must be a multiple of 2 · {a.heads}, for RoPE turns pairs of a head's channels")
    if not (a.steps > 0 and a.log_every > 0 and 0 <= a.warmup < 1 and 0 < a.cooldown <= 1):
        p.error("--steps, --log-every and --cooldown must be positive, and --warmup and --cooldown shares below 1")
    rising = a.seconds == sorted(set(a.seconds)) and a.schedule == "trapezoid" and a.warmup + a.cooldown <= 1
    if a.seconds and min(a.seconds) <= 0 or len(a.seconds) > 1 and not rising:
        p.error("--seconds must be positive. Several of them rise, need --schedule trapezoid, and the first one's "
                "warm-up must end before its cool-down")
    return a


def add_to(path, run):
    """Adds a run to a results file, where it takes the place of the same run."""
    which = lambda run: [run.get(key) for key in ("model", "seed", "hardware", "parameters")]
    lines = open(path).read().splitlines() if os.path.exists(path) else []
    others = [line for line in lines if line and which(json.loads(line)) != which(run)]
    with open(path, "w") as f:
        f.write("\n".join(others + [json.dumps(run)]) + "\n")


if __name__ == "__main__":
    a = arguments()
    for run in Trainer(a).run():
        show(run)
        if a.out:
            add_to(a.out, run)

"""Runs checkpoints through the PyTorch reference: python agree.py REFERENCE_DIR CHECKPOINT TOKENS OUT_DIR

Loads CHECKPOINT (safetensors) with PyTorch's own loader, strictly; writes the logits of TOKENS (JSON, rows of ids) to
OUT_DIR/logits.safetensors, and the same parameters as PyTorch saves them: .pt and .safetensors of every float type.
Then takes two steps with Muon and AdamW: the model and the state of the optimizers after the first are in trained.pt and
state.safetensors, the parameters after the second in after.safetensors.
"""
import json, sys
from dataclasses import asdict

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

reference, path, tokens, out = sys.argv[1:]
sys.path.insert(0, reference)
from v76 import Config, LM, Muon, block_matrices

with safe_open(path, "pt") as f:
    meta = f.metadata()
config = Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(meta["config"]).items()})
model = LM(config)
model.load_state_dict(load_file(path))
model.set_mix(float(meta["mix"]))
with torch.no_grad():
    logits, _ = model(torch.tensor(json.loads(tokens)), gamma=float(meta["gamma"]))
save_file({"logits": logits.contiguous()}, out + "/logits.safetensors")

description = dict(config=asdict(config), gamma=float(meta["gamma"]), mix=float(meta["mix"]),
                   tokenizer=meta["tokenizer"])
for name in ("float64", "float32", "bfloat16", "float16"):
    dtype = getattr(torch, name)
    state = {k: v.to(dtype) for k, v in model.state_dict().items()}
    torch.save(dict(model=state, optimizer={"lr": 1e-3}, **description), f"{out}/{name}.pt")
    save_file(state, f"{out}/{name}.safetensors", metadata={"format": "pt"})
    with open(f"{out}/{name}.json", "w") as f:
        json.dump(description, f)

torch.set_default_dtype(torch.float64)
model = LM(config)
model.load_state_dict(load_file(path))
rows = torch.tensor(json.loads(tokens))
matrices = block_matrices(model)
others = [p for p in model.parameters() if not any(p is m for m in matrices)]
muon, adam = Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0)


def step():
    model.zero_grad()
    model.loss(rows, rows.roll(-1, 1), gamma=float(meta["gamma"])).backward()
    muon.step()
    adam.step()


step()
torch.save(dict(model=model.state_dict(), **description), out + "/trained.pt")
state = {"updates": torch.tensor(1)}
for name, p in model.named_parameters():
    for kind in ("exp_avg", "exp_avg_sq", "momentum"):
        value = {**adam.state[p], **muon.state[p]}.get(kind)
        if value is not None:
            state[f"{kind}.{name}"] = value.float()
save_file(state, out + "/state.safetensors", metadata=dict(format="bitnet1.state.v1", checkpoint="00" * 32, step="1",
                                                           position="0", log_offset="0"))
step()
save_file({n: p.detach().float() for n, p in model.named_parameters()}, out + "/after.safetensors")

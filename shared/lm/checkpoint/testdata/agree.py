"""Runs checkpoints through the PyTorch reference: python agree.py REFERENCE_DIR PAGE CHECKPOINT TOKENS OUT_DIR

Loads CHECKPOINT (safetensors) with PyTorch's own loader, strictly; writes the logits of TOKENS (JSON, rows of ids) to
OUT_DIR/logits.safetensors, and the same parameters as PyTorch saves them: .pt and .safetensors of every float type.
Then takes two steps with Muon and AdamW: the model after the first is in model.pt, the state of the optimizers in
model.state.safetensors, which the lines of PAGE (docs/recipes/pytorch.md) write, and the parameters after the second step
are in after.safetensors.
"""
import json, os, re, sys
from dataclasses import asdict

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

reference, page, path, tokens, out = sys.argv[1:]
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
muon, adamw = Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0)


def step():
    model.zero_grad()
    model.loss(rows, rows.roll(-1, 1), gamma=float(meta["gamma"])).backward()
    muon.step()
    adamw.step()


step()
torch.save(dict(model=model.state_dict(), **description), out + "/model.pt")
with open(page) as f:
    [lines] = [code for code in re.findall(r"```python\n(.*?)```", f.read(), re.DOTALL) if "momentum" in code]
os.chdir(out)
exec(lines, dict(torch=torch, save_file=save_file, model=model, adamw=adamw, muon=muon, steps=1, sequences=len(rows)))
step()
save_file({n: p.detach().float() for n, p in model.named_parameters()}, out + "/after.safetensors")

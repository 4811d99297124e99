"""A bitnet1 model for transformers. model.py beside this file has the mathematics; here are the tensors of
model.safetensors, the padding of batches, and what generate() asks for.

Weights lie in the file as bits, 8 in a byte, and in memory so until the first call, which unpacks them to float32.
Nothing is cached between tokens: each token that generate() writes computes the whole text.
"""
import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .bit2 import tensor as unpack
from .configuration_bitnet1 import BitNet1Config
from .model import NORMAL_STEP, Model


def frozen(*shape, dtype=torch.float32):
    return nn.Parameter(torch.zeros(*shape, dtype=dtype), requires_grad=False)


class Linear(nn.Module):
    """alpha * (x · weightᵀ) - theta. A row of weight has so many planes of bits, each in whole words of 64."""

    def __init__(self, columns, rows, planes=1):
        super().__init__()
        self.columns, self.planes = columns, planes
        self.weight = frozen(rows, planes * -(-columns // 64) * 8, dtype=torch.uint8)
        self.alpha, self.theta = frozen(rows), frozen(rows)

    def unpacked(self):
        """±1, or with several planes the levels of the codebook."""
        kind = {"kind": "sign"}
        if self.planes > 1:
            kind = {"kind": "planes", "bits": self.planes, "unit": NORMAL_STEP[self.planes] / 2}
        w = self.weight.detach()
        return unpack(kind | {"shape": [w.shape[0], self.columns]}, w.cpu().numpy().tobytes()).float().to(w.device)


class Attention(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v, self.o = (Linear(d, d) for _ in range(4))


class Block(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.norm_attn, self.norm_ffn = frozen(d), frozen(d)
        self.attn, self.up, self.down = Attention(d), Linear(d, ff), Linear(ff, d)


class BitNet1ForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = BitNet1Config
    main_input_name = "input_ids"
    _no_split_modules = ["BitNet1ForCausalLM"]

    def __init__(self, config):
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config.d, config.ff) for _ in range(config.layers))
        self.codebook = Linear(config.d, config.vocab, config.codebook_bits)
        self.norm_out = frozen(config.d)
        self.computing = None
        self.post_init()

    def _init_weights(self, module):
        pass  # there is nothing to begin a training with

    def model(self):
        """The model of model.py with this one's tensors, unpacked once for each device."""
        if self.computing is None or self.computing.tensors["norm_out"].device != self.norm_out.device:
            if self.norm_out.dtype != torch.float32:
                raise ValueError(f"scales as {self.norm_out.dtype} are rounded: load the model anew, in float32")
            tensors = {name: p.detach() for name, p in self.named_parameters() if p.dtype != torch.uint8}
            tensors |= {name + ".weight": m.unpacked() for name, m in self.named_modules() if isinstance(m, Linear)}
            c = self.config
            metadata = {"gamma": c.gamma, "mix": 1, "documents": c.documents, "end_of_text": c.end_of_text}
            self.computing = Model({o: getattr(c, o) for o in c.OPTIONS}, metadata, tensors, packed=True)
        return self.computing

    def forward(self, input_ids, attention_mask=None, labels=None, logits_to_keep=0, **ignored):
        """input_ids: B × T. attention_mask: B × T, where a sequence may be padded on either side. labels: B × T, -100
        where a token is not to be predicted. Loss in nats."""
        if input_ids is None:
            raise ValueError("the model reads input_ids: its embedding is quantized and takes no inputs_embeds")
        if input_ids.shape[1] > self.config.seq:
            raise ValueError(f"{input_ids.shape[1]} tokens: the model reads at most {self.config.seq}: truncate them")
        model = self.model()
        starts = model.starts(input_ids)
        if attention_mask is not None:
            starts = padded(starts, attention_mask)
        logits = model.logits(input_ids, starts, 0 if labels is not None else logits_to_keep)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten().to(logits.device))
        return CausalLMOutput(loss=loss, logits=logits)


def padded(starts, mask):
    """starts where tokens read none of the padding on the left; padding itself reads no other token. Padding on the
    right needs nothing: no token reads a later one."""
    if mask.shape != starts.shape:
        raise ValueError(f"an attention mask of shape {tuple(mask.shape)}: want one number for each token")
    mask = mask.bool()
    position = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    first = mask.int().argmax(1, keepdim=True)
    if (mask[:, 1:] & ~mask[:, :-1] & (position[:, 1:] > first)).any():
        raise ValueError("an attention mask with gaps: the model reads sequences padded on the left or the right alone")
    return torch.where(mask, torch.maximum(starts, first), position)

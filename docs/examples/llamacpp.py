"""Writes models of random weights, of the sizes of the presets, as GGUF files that llama.cpp measures.

    pip install gguf
    python docs/examples/llamacpp.py llama.cpp   # llama.cpp/75M-TQ2_0.gguf, 75M-Q1_0.gguf, 300M-TQ2_0.gguf, …

A layer of llama has three matrices in its feed-forward network where ours has two. So the network is narrower by a
third, rounded to what blocks of 256 weights allow, and the models have the same number of weights within three percent.
All matrices have the file's type, the embedding too, which is also the head.
"""

import os
import sys

import gguf
import numpy as np

PRESETS = {  # width, layers, heads, width of the feed-forward network
    "75M": (512, 16, 8, 1280),
    "300M": (1024, 21, 16, 2816),
}
VOCAB, CONTEXT = 50304, 2048


def random_blocks(rng, kind, rows, cols):
    """The blocks of a matrix: signs or ternary weights, all with the same scale."""
    scale = np.frombuffer(np.float16(1 / np.sqrt(cols)).tobytes(), np.uint8)
    if kind == gguf.GGMLQuantizationType.TQ2_0:  # 256 weights of two bits, 0 to 2; then the scale
        bits = sum(rng.integers(0, 3, (rows, cols // 256, 64), np.uint8) << (2 * i) for i in range(4)).astype(np.uint8)
        parts = [bits, np.broadcast_to(scale, (rows, cols // 256, 2))]
    else:  # Q1_0: the scale; then 128 signs
        bits = rng.integers(0, 256, (rows, cols // 128, 16), np.uint8)
        parts = [np.broadcast_to(scale, (rows, cols // 128, 2)), bits]
    return np.concatenate(parts, axis=2).reshape(rows, -1)


def write(path, kind, d, layers, heads, ff):
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(layers)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(d)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(heads)
    w.add_rope_dimension_count(d // heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("no_vocab")

    def matrix(name, rows, cols):
        w.add_tensor(name, random_blocks(rng, kind, rows, cols), raw_dtype=kind)

    def norm(name):
        w.add_tensor(name, np.ones(d, np.float32))

    matrix("token_embd.weight", VOCAB, d)
    norm("output_norm.weight")
    for i in range(layers):
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{name}.weight", d, d)
        matrix(f"blk.{i}.ffn_gate.weight", ff, d)
        matrix(f"blk.{i}.ffn_up.weight", ff, d)
        matrix(f"blk.{i}.ffn_down.weight", d, ff)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for preset, shape in PRESETS.items():
        for name in ("TQ2_0", "Q1_0"):
            if kind := getattr(gguf.GGMLQuantizationType, name, None):  # older packages lack Q1_0
                write(f"{folder}/{preset}-{name}.gguf", kind, *shape)

"""The configuration of a bitnet1 model: a v75, v76 or v77."""
try:
    from transformers import PreTrainedConfig
except ImportError:  # before version 5
    from transformers import PretrainedConfig as PreTrainedConfig


class BitNet1Config(PreTrainedConfig):
    """vocab to hadamard are the model's options: the README beside this file says what they are. gamma is the weight of
    a survivor over the weight of the one before; documents is packed or separate, and end_of_text the token between
    separate ones."""

    model_type = "bitnet1"
    attribute_map = {
        "vocab_size": "vocab", "hidden_size": "d", "num_hidden_layers": "layers", "num_attention_heads": "heads",
        "intermediate_size": "ff", "max_position_embeddings": "seq",
    }
    OPTIONS = ("vocab", "d", "layers", "heads", "ff", "seq", "attention", "rwsp_k", "kshift_layers", "kshift_offset",
               "kshift_self", "alibi", "eps", "stream_bits", "hidden_bits", "query_bits", "value_bits", "read_bits",
               "codebook_bits", "hadamard")

    def __init__(self, vocab=50304, d=512, layers=16, heads=8, ff=2048, seq=2048, attention="rwsp", rwsp_k=4,
                 kshift_layers=(0,), kshift_offset=1, kshift_self=True, alibi=True, eps=1e-5, stream_bits=4,
                 hidden_bits=1, query_bits=1, value_bits=1, read_bits=1, codebook_bits=1, hadamard=0, gamma=0.1,
                 documents="packed", end_of_text=0, **kwargs):
        self.vocab, self.d, self.layers, self.heads, self.ff, self.seq = vocab, d, layers, heads, ff, seq
        self.attention, self.rwsp_k = attention, rwsp_k
        self.kshift_layers, self.kshift_offset, self.kshift_self = list(kshift_layers), kshift_offset, kshift_self
        self.alibi, self.eps, self.stream_bits, self.hidden_bits = alibi, eps, stream_bits, hidden_bits
        self.query_bits, self.value_bits, self.read_bits = query_bits, value_bits, read_bits
        self.codebook_bits, self.hadamard = codebook_bits, hadamard
        self.gamma, self.documents, self.end_of_text = gamma, documents, end_of_text
        kwargs.setdefault("tie_word_embeddings", False)  # one codebook is both, under one name
        super().__init__(**kwargs)

"""A Hugging Face backbone over embeddings of interleaved tokens, untrained here: --adapter interleaved."""

import torch
import transformers

from lab.diagnosis import adapt

sizes = transformers.GPT2Config(vocab_size=1, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)
backbone = transformers.GPT2Model(sizes)
model = adapt.Embedded(backbone, torch.nn.Linear(5, 16), torch.nn.Linear(16, 1))

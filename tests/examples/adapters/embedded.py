"""A Hugging Face backbone over embeddings of interleaved tokens, untrained here: --adapter interleaved."""

import torch
import transformers

from lab.diagnosis import adapt

backbone = transformers.GPT2Model(transformers.GPT2Config(vocab_size=1, n_positions=64, n_embd=16, n_layer=1, n_head=2))
model = adapt.Embedded(backbone, torch.nn.Linear(5, 16), torch.nn.Linear(16, 1))

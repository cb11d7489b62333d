"""A Hugging Face causal language model over the symbols of a chain, untrained here: --adapter causal-lm."""

import transformers

sizes = transformers.GPT2Config(vocab_size=3, n_positions=64, n_embd=16, n_layer=1, n_head=2)
model = transformers.GPT2LMHeadModel(sizes)

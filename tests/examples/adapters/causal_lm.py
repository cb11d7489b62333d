"""A Hugging Face causal language model over the symbols of a chain, untrained here: --adapter causal-lm."""

import transformers

sizes = transformers.GPT2Config(vocab_size=3, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)
model = transformers.GPT2LMHeadModel(sizes)

"""What training makes of copying and recall: attention, relation networks and linear attention on the same prompts."""

PARTS = ("copied_strings", "recalled_pairs", "recalled_tokens")

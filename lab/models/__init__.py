"""Attention masks, the transformer and, in ``constructions``, transformers whose weights are written by hand."""

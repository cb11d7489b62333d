"""Attention patterns and the networks that read them: trained, or with weights written by hand."""

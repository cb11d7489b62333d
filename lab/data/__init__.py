"""Prompts for training elsewhere: any registered generator as an endless sequence, as files, as datasets."""

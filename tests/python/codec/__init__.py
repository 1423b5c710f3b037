"""The codec beside those of others: who understands what differently, and why.

`peers` has the three codecs, `generate` what they are given beside the corpus of the Rust tests,
and `disagreements.toml` the reviewed reasons, one for each class.
"""

"""Bytes on disk: what a file of tensors holds, one tensor at a time, whatever its format and quantisation."""

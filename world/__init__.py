"""A small world of puppets, drawn by code, to train and judge a small SCAIL-2 with: numpy and Pillow only.

Everything it draws is ours and in the public domain (CC0).
"""

"""The kinds of layers, a file each: what a layer computes, how it is planned, cut into tasks and bounded.

Batch 1; images are [channels, height, width]. A fully-connected layer reads an image as a vector. `layer` says what a
kind has to say of itself; one from outside that says it is as good as those here.
"""

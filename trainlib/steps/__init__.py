"""What each kind of layer does in each step of training, as tasks for the cluster: loads, kernel calls, stores.

Tensors in L2: x<i> is the input of layer i (the last one the network's output), g<i> the gradient at layer i's
output, taken back through the layer's own ReLU; w<i>, b<i> its parameters, dw<i> a stored weight gradient.
An image [C, H, W] is a matrix [C, H W], weights are [outputs, the rest]. A fully-connected layer's gradient
stays in L1 as pairs d<i> of (d, -(lr d)) where the layer above is fully connected or the loss.
"""

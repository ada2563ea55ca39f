"""Networks from outside, in other libraries' formats, as networks of this one; and trained weights back to them.

`file` reads an ONNX file and believes nothing that it says; `patterns` finds operators that come in pieces; `known`
computes what is constant; `seen` follows arrays through reshapes and transpositions that move nothing; `walk` makes
layers of nodes, or says all that cannot be; `fusing` makes fewer of them; `network` puts all together; `writing` puts
trained weights back. `modules` has PyTorch's networks, `script` those that Python files make.
"""

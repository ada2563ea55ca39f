"""Networks from outside, in other libraries' formats, as networks of this one; and trained weights back to them.

`file` reads an ONNX file and believes nothing that it says; `known` computes what is constant; `seen` follows arrays
through reshapes and transpositions that move nothing; `patterns` finds operators that come in pieces; `operators` makes
layers of nodes; `network` puts them together, or says all that cannot be; `writing` puts trained weights back.
"""

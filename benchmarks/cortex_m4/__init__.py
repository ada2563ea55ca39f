"""A small in-order model of a Cortex-M4F, and on it the loops that PULP's training is published against.

Thumb-2 assembly text is assembled (`assembler`, by the table of `instructions`) and executed once (`core`): the
values it leaves and the cycles it takes come from the same run. `costs` says what an instruction takes, in three
columns, and what is left out. `programs` are the loops of AIfES, of CMSIS-DSP and of PULP-TrainLib's port to STM32;
`training` is the autoencoder's training step, and the pointwise layer, by them.
"""

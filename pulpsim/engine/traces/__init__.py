"""The engine of traces: values first, then time.

Between two barriers the cores of a team do not hear of each other, as a rule: no core reads what another writes, none
touches what a transfer moves, nobody reads the clock. Each can then be run by itself, ahead of time (`values`); what
is left of it is a trace: when it asks for something that is shared, a bank, an FPU, the divider, a line of code. The
loop of the fast engine takes the entries of all traces in its order, and so finds how long each had to wait (`turns`);
where cores ask for nothing but banks and FPUs, for all cores at once (`lanes`).

Whether the cores do not hear of each other is looked at with every access (`touched`). What has been overwritten since
the stretch began is kept (`kept`): where a trace cannot go on, or somebody looks at the machine in the middle of a
stretch, all is put back, and the fast engine runs it again, up to that cycle (`engine`). So the results are those of
the fast engine, whatever happens.
"""

"""Which chip, which network, which plan: every point of a space looked at with a plan made for it.

`spec` is what is asked for, `axes` and `constraints` say which points there are, `neighbours` in which order; `setting`
is what a point stands for, `counting` what workers do there, `run` the exploration itself; `table`, `fronts` and `page`
are what comes out.
"""

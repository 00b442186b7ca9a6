"""The training program: one stage of one run, on whatever machine has room for it.

With `engine`, the only home of torch.  It knows its assignment, an object store and the control
plane's desk for workers; no database and no settings of ours.
"""

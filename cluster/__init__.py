"""What a cluster is."""

import gc

# A run of the program makes hundreds of thousands of objects that live to its end, most of them in the SDKs' modules. With
# Python's own threshold, the garbage collector takes a sixth of the program's CPU time.
gc.set_threshold(10_000, 10, 100)

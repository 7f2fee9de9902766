"""Networks: constructors take parts and plain numbers; `forward` gives features or logits.

Convention: a grid is (B, C, h, w) float; "grid positions" are its h·w cells in row-major order.
State-dict names equal those of the published checkpoints.
"""

"""Networks: constructors take modules and plain numbers; `forward` returns features or logits.

Convention: a grid is (B, C, h, w) float; "grid positions" are its h·w cells in row-major order.
State-dict names equal those of the published checkpoints.
"""

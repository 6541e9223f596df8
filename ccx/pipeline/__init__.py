"""From activations or bitmaps and concepts to explanations."""

from ccx.pipeline.explaining import explain, explain_bitmaps

__all__ = ["explain", "explain_bitmaps"]

"""Training and distilling decoders of the Llama architecture, in PyTorch.

What the recipe of the bundled pair and `outrider models distill` have in common. Needs the extra ``train``; the command imports
it only where it trains.
"""

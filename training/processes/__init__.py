"""Several processes that make each step of one fit together.

The parent prepares: it fits the encoder, encodes the days, builds the model. It writes that into a folder
(`job`), starts the ranks by torchrun's own launcher (`launch`), and reads what rank 0 wrote (`rank`).
"""

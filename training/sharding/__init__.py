"""Embedding tables that ranks share: who holds which rows (`plan`), and the tables themselves (`tables`).

All of TorchRec is behind this package; it is imported when a fit shares its tables, and by `recsys plan`.
"""

"""Does sharing help a head? Matched models alone against the shared one."""

"""Sets that are logs, measured as nights are: KuaiRand, the simulated shop."""

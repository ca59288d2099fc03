"""Census-income: two heads of one person."""

"""Measures of quality and the benchmarks that report them."""

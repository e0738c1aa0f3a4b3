"""Images, their degradation, and the pairs the benchmarks are made of."""

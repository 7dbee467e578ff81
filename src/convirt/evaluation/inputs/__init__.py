"""What an evaluation is given: labelled tables, benchmarks, and the features of their images."""

"""Tests of single parts, without Ray and without a run. `make fast` runs them."""

"""Tests of repix.data, one module each."""

"""Tests of repix.data, one module for one module."""

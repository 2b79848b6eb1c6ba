"""Helpers of the tests: small runs, live runs, odd environments, golden vectors."""

"""Lets the tests in folders below import `synthetic`."""

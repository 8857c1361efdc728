"""Fakes and oracles that several tests share."""

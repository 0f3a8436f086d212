"""Compiled hot paths: what runs once per packet or per byte. No asyncio, logging or clock here."""

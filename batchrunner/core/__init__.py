"""Pure and synchronous rules. Imports no asyncio, no aiohttp, no sqlite; reads no clock, draws no randomness."""

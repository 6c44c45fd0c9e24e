"""The HTTP server side: aiohttp's parser and connection handling, our own answers."""

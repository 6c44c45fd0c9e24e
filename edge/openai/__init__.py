"""What a client asks for and what it is told, in OpenAI's shapes: pure functions over bytes, no I/O."""

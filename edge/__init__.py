"""The HTTP edge: OpenAI's API in front of the upstreams, metered and paid from leases."""

"""What the edge says of itself to programs and to people: /openapi.json, /llms.txt and the pages that they point to."""

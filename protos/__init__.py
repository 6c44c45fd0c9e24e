"""The contract: one .proto per service with its generated stubs beside it (`make protos` regenerates them)."""

"""The operator's command: starts everything on one machine, and administers it over gRPC."""

from chassis import garbage

garbage.look_seldom()  # here, before all that a command or a child of `tollgate up` loads: they start a sixth faster

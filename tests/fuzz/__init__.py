"""Coverage-guided fuzzing of what reads text that others wrote: manifests and the provider's answers."""

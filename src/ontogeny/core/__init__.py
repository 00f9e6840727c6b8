"""Pure values and tensor functions: torch, numpy, jaxtyping and the standard library; nothing else of ours."""

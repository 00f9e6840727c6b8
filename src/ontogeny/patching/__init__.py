"""What a circuit does on its own: interchange, zero and mean ablation of everything outside it (METHODS 5)."""

from ontogeny.patching.circuit_eval import Ablation, CircuitEvaluator

__all__ = ["Ablation", "CircuitEvaluator"]

"""HKD4VLM: pyramid (PPOD), ternary refinement (TCRD), mapping shift (MSI)."""

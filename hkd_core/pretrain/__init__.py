"""How the laptop's small models come to be: language on symbols, sight, alignment, instruction tuning."""

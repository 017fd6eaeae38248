"""The built-in world: scenes, pictures, questions, small models. Nothing outside notebooks and tests imports it."""

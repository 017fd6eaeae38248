"""The built-in world: scenes, pictures, questions, small models. Nothing else in the library imports it."""
